"""The doors that Anthropic's clients use, driven as an ASGI server drives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from core.chat import ChatRequest, WireCall
from core.config import LimitSpec, ModelSpec
from core.errors import (
    AccountingUnavailable,
    BudgetExhausted,
    ContextTooLong,
    GatewayError,
    NotPermitted,
    ProviderFault,
    ProviderLimited,
    ProviderNonsense,
    ProviderPaused,
    ProviderRefused,
    ProviderTimeout,
    RequestTimeout,
)
from core.secrets import Secret
from gateway.doors import anthropic_messages
from gateway.doors.anthropic_count import MessagesCountDoor
from gateway.doors.http import Gateway, GenerationDoor
from gateway.doors.models import ModelsDoor
from gateway.doors.probes import health
from llmcontrol.routing import data_plane
from tests.gateway.scripted import ANSWER, KEY, PEPPER, Bench, ScriptedAdapter, Stream
from tests.gateway.test_door import Client

GOOD: dict[str, Any] = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
X_API_KEY = (b"x-api-key", KEY.encode())
BEARER = (b"authorization", b"Bearer " + KEY.encode())
ABSENT = object()
OLD, NEW = (b"anthropic-version", b"2023-06-01"), (b"anthropic-version", b"2026-10-21")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def gateway(bench: Bench) -> Gateway:
    return Gateway(pepper=PEPPER, max_body_bytes=1000, body_timeout_s=1, pipeline=bench.pipeline)


def body(**changes: Any) -> bytes:
    """GOOD with changes; ABSENT leaves a field out."""
    return msgspec.json.encode({name: value for name, value in {**GOOD, **changes}.items() if value is not ABSENT})


async def ask(bench: Bench, raw: bytes = body(), *, headers: tuple = (X_API_KEY, OLD), **how: Any) -> Client:
    return await Client(raw, headers=headers, **how).call(GenerationDoor(gateway(bench), anthropic_messages))


def error_of(client: Client) -> dict[str, Any]:
    """The error of a body that has Anthropic's shape and names the request as the headers do."""
    value = json.loads(client.body)
    assert set(value) == {"type", "error", "request_id"}
    assert (value["type"], set(value["error"])) == ("error", {"type", "message", "details"})
    assert value["request_id"].encode() == client.headers[b"request-id"] == client.headers[b"x-request-id"]
    return value["error"]


# Reading ------------------------------------------------------------------------------------------------------------


def test_fields_travel_on_as_sent() -> None:
    messages = b'[{"role":"user","content":[{"type":"brand_new","x":1}]}]'
    raw = b'{"model":"m","max_tokens":9,"messages":' + messages + b',"new": {"a":[1, 2.50]},"stream":true}'
    request = anthropic_messages.parse(raw)
    assert bytes(request.fields["new"]) == b'{"a":[1, 2.50]}'
    assert bytes(request.fields["messages"]) == messages
    assert (request.model, request.stream, request.wants_usage, request.max_output_tokens) == ("m", True, True, 9)
    assert request.body_bytes == len(raw)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"max_tokens": ABSENT}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"model": ""}, "model"),
        ({"system": 7}, "system"),
        ({"temperature": 3}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"stream": "yes"}, "stream"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"tools": {}}, "tools"),
        ({"cache": {"ttl": 60}}, "cache"),
    ],
)
async def test_a_bad_field_is_named(bench: Bench, changes: dict, param: str) -> None:
    client = await ask(bench, body(**changes))
    error = error_of(client)
    assert (client.status, error["type"], error["details"]["param"]) == (400, "invalid_request_error", param)
    assert param in error["message"]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", body()[:-1] + b',"x":"\xff"}', b"[" * 900])
async def test_what_is_no_json_object_is_refused(bench: Bench, raw: bytes) -> None:
    client = await ask(bench, raw)
    assert (client.status, error_of(client)["type"]) == (400, "invalid_request_error")


# Answers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credential", [X_API_KEY, BEARER])
@pytest.mark.parametrize("version", [(), (OLD,), (NEW,), ((b"anthropic-version", b"2099-01-01"),)])
async def test_both_credentials_and_any_version(bench: Bench, credential: tuple, version: tuple) -> None:
    bench.scripts["a"] = [ANSWER]
    client = await ask(bench, headers=(credential, *version), query=b"beta=true")
    assert (client.status, client.body) == (200, ANSWER.body)
    assert client.headers[b"request-id"] == client.headers[b"x-request-id"]
    assert bench.settled_in_full()


async def test_version_and_betas_pass_to_the_adapter_and_nothing_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ChatRequest] = []

    def chat_call(self: Any, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        seen.append(request)
        return WireCall("http://vendor", {})

    monkeypatch.setattr(ScriptedAdapter, "chat_call", chat_call)
    bench.scripts["a"] = [ANSWER]
    await ask(bench, headers=(X_API_KEY, NEW, (b"anthropic-beta", b"a,b"), (b"anthropic-beta", b"c"), (b"user-agent", b"x")))
    assert seen[0].headers == (("anthropic-version", "2026-10-21"), ("anthropic-beta", "a,b"), ("anthropic-beta", "c"))
    assert seen[0].dialect.NAME == "anthropic"


async def test_a_stream_that_fails_ends_with_an_error_event(bench: Bench) -> None:
    bench.scripts["a"] = [Stream(b"event: x\ndata: {}\n\n", ProviderNonsense("cut short"))]
    client = await ask(bench, body(stream=True))
    assert (client.status, client.complete) == (200, True)
    assert client.headers[b"request-id"] == client.headers[b"x-request-id"]
    *_, event, end = client.body.decode().split("\n\n")
    name, data = event.split("\n")
    assert (name, end) == ("event: error", "")
    error = json.loads(data.removeprefix("data: "))
    assert (error["error"]["type"], error["error"]["message"]) == ("api_error", "cut short")
    assert error["request_id"].encode() == client.headers[b"request-id"]


# Errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "type_"),
    [
        (ContextTooLong("x"), 400, "invalid_request_error"),
        (ProviderRefused("x"), 400, "invalid_request_error"),
        (NotPermitted("x"), 403, "permission_error"),
        (RequestTimeout("x"), 408, "timeout_error"),
        (ProviderLimited("x", retry_after_s=3), 429, "rate_limit_error"),
        (BudgetExhausted("x"), 429, "billing_error"),
        (GatewayError("x"), 500, "api_error"),
        (ProviderFault("x"), 502, "api_error"),
        (ProviderPaused("x"), 503, "overloaded_error"),
        (AccountingUnavailable("x"), 503, "overloaded_error"),
        (ProviderTimeout("x"), 504, "timeout_error"),
    ],
)
async def test_error_types(bench: Bench, error: GatewayError, status: int, type_: str) -> None:
    bench.scripts["a"] = [error] * 3
    bench.scripts["b"] = [error] * 3
    client = await ask(bench)
    assert (client.status, error_of(client)["type"]) == (status, type_)
    assert error_of(client)["details"]["error_code"] == error.code


async def test_errors_before_a_body_is_read_have_the_same_shape(bench: Bench) -> None:
    client = await ask(bench, headers=(OLD,))
    assert (client.status, error_of(client)["type"]) == (401, "authentication_error")
    client = await ask(bench, method="GET")
    assert (client.status, error_of(client)["type"]) == (405, "invalid_request_error")
    client = await ask(bench, b" " * 2000)
    assert (client.status, error_of(client)["type"]) == (413, "invalid_request_error")
    client = await ask(bench, body(model="nope"))
    assert (client.status, error_of(client)["type"]) == (404, "not_found_error")


# Counting -----------------------------------------------------------------------------------------------------------

TO_COUNT = msgspec.json.encode({"model": "m", "messages": GOOD["messages"], "system": "Be brief."})


class Counts:
    """What an adapter has whose vendor counts: asked through the script, like everything else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[ChatRequest] = []
        monkeypatch.setattr(ScriptedAdapter, "count_call", self.count_call, raising=False)
        monkeypatch.setattr(ScriptedAdapter, "read_count", staticmethod(lambda body: 42), raising=False)

    def count_call(self, request: ChatRequest, model: ModelSpec, secret: Secret | None) -> WireCall:
        self.asked.append(request)
        return WireCall("http://vendor/count", {})


async def count(bench: Bench, raw: bytes = TO_COUNT, headers: tuple = (X_API_KEY, NEW)) -> Client:
    return await Client(raw, headers=headers).call(MessagesCountDoor(gateway(bench)))  # type: ignore[arg-type]


async def test_a_vendor_that_counts_is_asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counts(monkeypatch)
    bench.scripts["a"] = [ANSWER]
    client = await count(bench)
    assert (client.status, json.loads(client.body)) == (200, {"input_tokens": 42})
    assert client.headers[b"x-llm-token-count"] == b"exact"
    assert client.headers[b"x-llm-provider"] == b"a"
    assert client.headers[b"request-id"] == client.headers[b"x-request-id"]
    assert counts.asked[0].headers == (("anthropic-version", "2026-10-21"),)
    assert bench.sink.records == []
    assert bench.settled_in_full()


async def test_where_no_vendor_counts_we_do(bench: Bench) -> None:
    client = await count(bench)
    assert client.status == 200
    assert 1 < json.loads(client.body)["input_tokens"] < 30
    assert client.headers[b"x-llm-token-count"] == b"estimated"
    assert bench.responses == []


@pytest.mark.parametrize("error", [ProviderFault("down"), ProviderLimited("later", retry_after_s=30)])
async def test_a_vendor_that_fails_to_count_is_not_blamed_for_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: GatewayError
) -> None:
    Counts(monkeypatch)
    bench.scripts["a"] = [error] * 5 + [ANSWER]
    for _ in range(5):
        client = await count(bench)
        assert (client.status, client.headers[b"x-llm-token-count"]) == (200, b"estimated")
    assert bench.settled_in_full()
    answered = await ask(bench)
    assert answered.headers[b"x-llm-provider"] == b"a", "the key rests, or its breaker is open"


async def test_what_becomes_of_counting_says_nothing_to_the_breaker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    Counts(monkeypatch)
    breaker = bench.manager.view.targets["m"][0].runtime.breaker("key-a", "vendor-a")

    def fail() -> None:
        breaker.failed(breaker.enter(), ProviderFault("down"), bench.clock.monotonic())

    fail()
    fail()
    bench.scripts["a"] = [ProviderFault("down"), ANSWER]
    await count(bench)
    await count(bench)
    assert breaker.state == "closed"
    fail()
    assert breaker.state == "open"


async def test_a_request_that_the_vendor_calls_wrong_is_wrong(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    Counts(monkeypatch)
    bench.scripts["a"] = [ProviderRefused("no such field")]
    client = await count(bench)
    assert (client.status, error_of(client)["type"]) == (400, "invalid_request_error")


async def test_what_only_the_vendor_can_read_is_estimated_by_its_size(bench: Bench) -> None:
    client = await count(bench, body(messages=[{"role": "narrator", "content": "x" * 400}]))
    assert json.loads(client.body)["input_tokens"] > 100
    assert client.headers[b"x-llm-token-count"] == b"estimated"


async def test_counting_keeps_to_the_keys_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, limits=LimitSpec(requests_per_minute=1))
    assert (await count(bench)).status == 200
    client = await count(bench)
    assert (client.status, error_of(client)["type"]) == (429, "rate_limit_error")
    assert bench.settled_in_full()


async def test_counting_needs_a_key_its_scope_and_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await count(Bench(monkeypatch), headers=())).status == 401
    client = await count(Bench(monkeypatch, scopes=frozenset({"models"})))
    assert (client.status, error_of(client)["type"]) == (403, "permission_error")
    client = await count(Bench(monkeypatch), TO_COUNT.replace(b'"m"', b'"n"'))
    assert (client.status, error_of(client)["type"]) == (404, "not_found_error")
    client = await count(Bench(monkeypatch), b"{}")
    assert error_of(client)["details"]["param"] == "model"


# Models and the probe -----------------------------------------------------------------------------------------------


async def models(bench: Bench, alias: str | None = None, headers: tuple = (X_API_KEY, OLD)) -> Client:
    client = Client(b"", headers=headers, method="GET")
    client.scope["url_route"] = {"kwargs": {"alias": alias} if alias else {}}
    return await client.call(ModelsDoor(gateway(bench)))  # type: ignore[arg-type]


async def test_models_in_anthropics_shape(bench: Bench) -> None:
    client = await models(bench)
    model = {
        "type": "model",
        "id": "m",
        "display_name": "m",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": None,
        "max_tokens": None,
    }
    assert json.loads(client.body) == {"data": [model], "has_more": False, "first_id": "m", "last_id": "m"}
    assert client.headers[b"request-id"] == client.headers[b"x-request-id"]
    assert json.loads((await models(bench, "m")).body) == model


async def test_models_in_openais_shape_for_everybody_else(bench: Bench) -> None:
    client = await models(bench, headers=(X_API_KEY,))
    assert json.loads(client.body)["object"] == "list"
    assert b"request-id" not in client.headers
    client = await models(bench, "nope", headers=(X_API_KEY,))
    assert (client.status, set(json.loads(client.body))) == (404, {"error"})


async def test_an_unknown_model_in_anthropics_shape(bench: Bench) -> None:
    client = await models(bench, "nope")
    assert (client.status, error_of(client)["type"]) == (404, "not_found_error")
    client = await models(bench, headers=(OLD,))
    assert (client.status, error_of(client)["type"]) == (401, "authentication_error")


async def test_the_probe_of_claude_code(bench: Bench) -> None:
    seen = []

    async def site(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope["method"])
        await send({"type": "http.response.start", "status": 302, "headers": []})

    app = data_plane(gateway(bench), site, websocket=False)
    client = Client(b"", headers=(), method="HEAD")
    client.scope["path"] = "/"
    await client.call(app)  # type: ignore[arg-type]
    assert (client.status, client.body, seen) == (200, b"", [])
    client = Client(b"", headers=(), method="GET")
    client.scope["path"] = "/"
    await client.call(app)  # type: ignore[arg-type]
    assert (client.status, seen) == (302, ["GET"])


@pytest.mark.parametrize(("path", "status"), [("/v1/messages", 200), ("/v1/messages/count_tokens", 200), ("/v1/complete", 404)])
async def test_the_addresses(bench: Bench, path: str, status: int) -> None:
    bench.scripts["a"] = [ANSWER]
    client = Client(body(), headers=(X_API_KEY,))
    client.scope["path"] = path
    await client.call(data_plane(gateway(bench), health, websocket=False))  # type: ignore[arg-type]
    assert client.status == status
