"""What callers get wrong: a 4xx in OpenAI's error body that names the field, a request id, and a server that lives on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import ECHO, Control, until
from tests.e2e.schema import Schema
from tests.e2e.wire import Answer

pytestmark = pytest.mark.process

CHAT = "/v1/chat/completions"
GOOD: dict[str, Any] = {"model": ECHO, "messages": wire.HELLO}
TEN_MB = 10 * 2**20
LIMIT = 4 * 2**20  # LLM_MAX_BODY_BYTES, as it is unless set
DEEP = 100_000


@pytest.fixture
def refused(control: Control, schema: Schema, timings: Callable[[str, float], None]) -> Callable[..., Answer]:
    """Sends what should be refused, checks what every refusal has, and that the server still answers afterwards."""

    def send(status: int, method: str = "POST", path: str = CHAT, **what: Any) -> Answer:
        what.setdefault("key", control.key)
        began = time.perf_counter()
        answer = wire.call(control.base_url, method, path, **what)
        timings(f"{method} {path} → {answer.status}", time.perf_counter() - began)
        assert answer.status == status, answer
        assert answer.error
        schema.check("ErrorResponse", answer.json)
        assert answer.request_id.startswith("req_")
        assert answer.headers["content-type"].startswith("application/json")
        assert "[DONE]" not in answer.body.decode()
        assert wire.chat(control.base_url, control.key, ECHO).status == 200
        return answer

    return send


def body_with(raw: str) -> bytes:
    """A good body and one more field, written as given: what no JSON encoder would write."""
    return json.dumps(GOOD).encode()[:-1] + b", " + raw.encode("utf-8", "surrogateescape") + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"model": ECHO, "messages": [{"role": "user", "content": "hi"}]',
        b"not json",
        json.dumps(GOOD).encode() + b"}",
        b"model=echo",
        b"\x00\x01\x02",
        body_with('"seed": NaN'),
        body_with('"temperature": NaN'),
        body_with('"top_p": -Infinity'),
        body_with('"seed": 01'),
        body_with("'seed': 1"),
    ],
)
def test_what_is_no_json_is_refused(refused: Callable[..., Answer], body: bytes) -> None:
    answer = refused(400, body=body)
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"5", b"true"])
def test_a_body_that_is_no_object_is_refused(refused: Callable[..., Answer], body: bytes) -> None:
    assert "object" in refused(400, body=body).error["message"]


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named(refused: Callable[..., Answer], field: str) -> None:
    answer = refused(400, body={name: value for name, value in GOOD.items() if name != field})
    assert answer.error["param"] == field
    assert field in answer.error["message"]


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("model", 5, "model"),
        ("model", None, "model"),
        ("model", "", "model"),
        ("model", [ECHO], "model"),
        ("model", "m" * 5000, "model"),
        ("messages", "hi", "messages"),
        ("messages", None, "messages"),
        ("messages", {}, "messages"),
        ("messages", [], "messages"),
        ("messages", ["hi"], "messages[0]"),
        ("messages", [{}], "messages[0].role"),
        ("messages", [{"role": 5, "content": "hi"}], "messages[0].role"),
        ("messages", [{"role": "user", "content": 5}], "messages[0].content"),
        ("stream", "yes", "stream"),
        ("stream", 1, "stream"),
        ("stream_options", True, "stream_options"),
        ("stream_options", {"include_usage": "yes"}, "stream_options.include_usage"),
        ("max_tokens", "ten", "max_tokens"),
        ("max_tokens", 0, "max_tokens"),
        ("max_tokens", -1, "max_tokens"),
        ("max_tokens", 1.5, "max_tokens"),
        ("max_tokens", 10**12, "max_tokens"),
        ("max_tokens", 10**40, "max_tokens"),
        ("max_completion_tokens", 10**12, "max_completion_tokens"),
        ("temperature", "hot", "temperature"),
        ("temperature", 2.5, "temperature"),
        ("temperature", -1, "temperature"),
        ("top_p", 1.5, "top_p"),
        ("n", 1_000_000, "n"),
        ("n", 0, "n"),
        ("n", "two", "n"),
        ("presence_penalty", 3, "presence_penalty"),
        ("frequency_penalty", [], "frequency_penalty"),
        ("logprobs", "yes", "logprobs"),
        ("top_logprobs", 21, "top_logprobs"),
        ("stop", 5, "stop"),
        ("stop", [5], "stop[0]"),
        ("tools", {}, "tools"),
        ("tools", ["search"], "tools[0]"),
        ("user", 5, "user"),
    ],
)
def test_a_wrong_type_or_a_number_out_of_range_names_its_field(refused: Callable[..., Answer], field: str, value: Any, param: str) -> None:
    answer = refused(400, body={**GOOD, field: value})
    assert answer.error["param"] == param
    assert param in answer.error["message"]


@pytest.mark.parametrize(
    "body",
    [
        body_with('"seed": ' + "[" * DEEP + "]" * DEEP),
        body_with('"seed": ' + '{"a":' * DEEP + "1" + "}" * DEEP),
        b"[" * DEEP,
        b'{"model": ECHO, "messages": ' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"model": ECHO, "messages": [{"role": "user", "content": ' + b"[" * DEEP + b"]" * DEEP + b"}]}",
    ],
    ids=["arrays in an unknown field", "objects in an unknown field", "arrays that never end", "as messages", "as content"],
)
def test_deep_json_is_refused(refused: Callable[..., Answer], body: bytes) -> None:
    refused(400, body=body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": ECHO, "messages": [{"role": "user", "content": "\xff\xfe"}]}',
        b'{"model": "echo\xff", "messages": [{"role": "user", "content": "hi"}]}',
        b'{"model": ECHO, "messages": [{"role": "user", "content": "hi"}], "\xc3\x28": 1}',
        json.dumps(GOOD).encode("utf-16"),
    ],
    ids=["in a text", "in the model", "in an unknown name", "UTF-16"],
)
def test_what_is_not_utf8_is_refused(refused: Callable[..., Answer], body: bytes) -> None:
    assert "UTF-8" in refused(400, body=body).error["message"]


@pytest.mark.parametrize("model", ["no-such-model", "echo-1 ", "ECHO-1", "../echo-1", "a\r\nx-evil: 1", "\x00", "модель", "'; DROP--"])
def test_an_unknown_model_is_404(refused: Callable[..., Answer], model: str) -> None:
    answer = refused(404, body={**GOOD, "model": model})
    assert (answer.error["code"], answer.error["param"]) == ("model_not_found", "model")
    assert "x-evil" not in answer.headers


def test_half_a_surrogate_pair_in_the_model_is_the_callers_mistake(refused: Callable[..., Answer], control: Control) -> None:
    body = b'{"model": "\\ud800", "messages": [{"role": "user", "content": "hi"}]}'
    status = wire.call(control.base_url, "POST", CHAT, key=control.key, body=body).status
    assert status in (400, 404)
    refused(status, body=body)


def test_an_unknown_model_is_404_in_the_list_too(refused: Callable[..., Answer]) -> None:
    assert refused(404, "GET", "/v1/models/no-such-model").error["code"] == "model_not_found"


# Who is asking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, "/v1/models", f"/v1/models/{ECHO}", "/api/v1/chat/completions", "/api/v1/models"])
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer sk-llmc-wrong", "Basic dXNlcjpwYXNz", "sk-llmc-wrong", "Bearer " + "x" * 5000],
    ids=lambda value: repr(value)[:24],
)
def test_a_missing_or_wrong_key_is_401(refused: Callable[..., Answer], path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    method = "POST" if path.endswith("completions") else "GET"
    answer = refused(401, method, path, key=None, headers=headers, body=GOOD if method == "POST" else None)
    assert answer.error["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_that_is_not_ascii_is_401(refused: Callable[..., Answer]) -> None:
    refused(401, key=None, headers={"x-api-key": "sk-llmc-\xff\xe9"}, body=GOOD)


def test_the_refusal_does_not_say_what_is_wrong_with_a_key(refused: Callable[..., Answer], control: Control) -> None:
    revoked = control.new_key()
    control.apply()
    control.call("DELETE", f"/api/v1/llm/keys/{revoked['id']}")
    until(lambda: control.forgot(revoked["key"]), "the data plane forgets the key")
    said = {refused(401, key=key, body=GOOD).body for key in (None, "sk-llmc-unknown", revoked["key"])}
    assert len(said) == 1


@pytest.mark.parametrize("name", ["key", "api_key", "api-key", "access_token", "token", "API_KEY"])
@pytest.mark.parametrize("also_in_header", [True, False])
def test_a_key_in_the_url_is_refused(refused: Callable[..., Answer], control: Control, name: str, also_in_header: bool) -> None:
    answer = refused(401, path=f"{CHAT}?{name}={control.key}", key=control.key if also_in_header else None, body=GOOD)
    assert "URL" in answer.error["message"]
    assert control.key not in answer.body.decode()


@pytest.mark.parametrize("second", ["x-api-key", "api-key", "x-goog-api-key"])
def test_two_credentials_are_refused_even_if_both_are_good(refused: Callable[..., Answer], control: Control, second: str) -> None:
    assert "more than one" in refused(401, headers={second: control.key}, body=GOOD).error["message"]


@pytest.mark.parametrize("header", ["x-api-key", "api-key", "x-goog-api-key"])
def test_each_usual_header_carries_a_key(control: Control, header: str) -> None:
    assert wire.chat(control.base_url, None, ECHO, headers={header: control.key}).status == 200


def test_an_expired_key_is_401(refused: Callable[..., Answer], control: Control) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2.5)
    key = control.new_key(expires_at=soon.isoformat())["key"]
    control.apply()
    until(lambda: control.forgot(key), "the key expires")
    refused(401, key=key, body=GOOD)
    assert datetime.now(UTC) >= soon


def test_a_key_may_do_what_its_scopes_and_models_say(refused: Callable[..., Answer], control: Control) -> None:
    """The list hides what a key may not call, and says so in the same words as for what does not exist."""
    lists_only, no_list, other = control.new_key(scopes=["models"]), control.new_key(scopes=["chat"]), control.new_key(models=["other"])
    until(lambda: wire.chat(control.base_url, no_list["key"], ECHO).status == 200, "the data plane knows the new keys")
    assert refused(403, key=lists_only["key"], body=GOOD).error["code"] == "not_permitted"
    refused(403, "GET", "/v1/models", key=no_list["key"])
    control.apply()
    assert refused(403, key=other["key"], body=GOOD).error["param"] == "model"
    assert control.models(other["key"]) == {}
    refused(404, "GET", f"/v1/models/{ECHO}", key=other["key"])


# What is asked for --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", CHAT), ("PUT", CHAT), ("DELETE", CHAT), ("PATCH", CHAT), ("POST", "/v1/models"), ("DELETE", f"/v1/models/{ECHO}")],
)
def test_a_wrong_method_is_405(refused: Callable[..., Answer], method: str, path: str) -> None:
    assert refused(405, method, path).error["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/v1/nope", "/v1/", "/v1/chat", "/v1/chat/completions/", "/v1/files", "/v1/%00", "/v1/../admin/"])
def test_an_unknown_path_is_404(refused: Callable[..., Answer], path: str) -> None:
    assert refused(404, "POST", path, body=GOOD).error["code"] == "unknown_url"


def _pieces(size: int) -> Iterator[bytes]:
    piece = b" " * 2**16
    for _ in range(size // len(piece)):
        yield piece


def _ten_mb(chunked: bool) -> bytes | Iterator[bytes]:
    return _pieces(TEN_MB) if chunked else b" " * TEN_MB


@pytest.mark.parametrize("chunked", [True, False], ids=["without a length", "with a length"])
def test_a_body_one_byte_over_the_limit_is_413(refused: Callable[..., Answer], chunked: bool) -> None:
    """Nothing more is to come when the limit is found to be crossed, so nothing more may be waited for."""
    body = b" " * (LIMIT + 1)
    refused(413, body=iter([body]) if chunked else body)


def test_a_body_at_the_limit_is_read(refused: Callable[..., Answer]) -> None:
    refused(400, body=b" " * LIMIT)


@pytest.mark.parametrize("chunked", [True, False], ids=["without a length", "with a length"])
def test_a_body_of_10_mb_is_413_and_the_client_can_read_it(refused: Callable[..., Answer], chunked: bool) -> None:
    assert refused(413, body=_ten_mb(chunked)).error["code"] == "request_too_large"


@pytest.mark.parametrize("chunked", [True, False], ids=["without a length", "with a length"])
def test_a_large_body_with_a_bad_key_is_401_and_the_client_can_read_it(refused: Callable[..., Answer], chunked: bool) -> None:
    refused(401, key="sk-llmc-wrong", body=_ten_mb(chunked))


def test_a_chunked_body_without_a_length_is_as_good_as_any(control: Control) -> None:
    body = json.dumps(GOOD).encode()
    answer = wire.call(control.base_url, "POST", CHAT, key=control.key, body=iter([body[:10], body[10:30], body[30:]]))
    assert answer.status == 200
    assert wire.said_whole(answer.json).texts[0]


@pytest.mark.parametrize("length", ["-1", "x", "9" * 30])
def test_a_content_length_that_is_none_is_refused(control: Control, length: str) -> None:
    """The HTTP server itself may refuse it, in its own words; the gateway may not fall over it."""
    answer = wire.call(control.base_url, "POST", CHAT, key=control.key, headers={"Content-Length": length}, body=b"")
    assert 400 <= answer.status < 500
    assert wire.chat(control.base_url, control.key, ECHO).status == 200
