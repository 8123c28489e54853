"""What an OpenAI-compatible vendor is sent, and how its whole answers and model lists are read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core import errors
from core.chat import Usage
from providers.adapters.openai import OpenAI
from providers.adapters.openai_compatible import OpenAICompatible
from tests.adapters.cast import KEY, SECRET, model, provider, request

ADAPTER = OpenAICompatible(provider("openai_compatible"))
MESSAGES = [{"role": "user", "content": "hi", "reasoning_content": "kept"}]


def sent(body: dict[str, Any]) -> Any:
    call = ADAPTER.chat_call(request({"messages": MESSAGES, **body}), model("vendor-model"), SECRET)
    assert call.body is not None
    return json.loads(call.body)


def test_a_call_changes_the_model_and_nothing_else() -> None:
    body = {"model": "alias", "temperature": 0.5, "future_field": {"model": "nested", "n": [1, 2]}, "stream": False}
    assert sent(body) == {**body, "messages": MESSAGES, "model": "vendor-model"}


def test_our_own_fields_stay_here() -> None:
    assert set(sent({"model": "alias", "task_type": "translation", "models": ["b"], "prompt": {"id": 1}, "cache": True})) == {
        "model",
        "messages",
    }


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        (None, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_obfuscation": False}, {"include_obfuscation": False, "include_usage": True}),
    ],
)
def test_a_stream_is_always_asked_for_its_usage(asked: Any, options: Any) -> None:
    assert sent({"model": "alias", "stream": True, "stream_options": asked})["stream_options"] == options
    assert sent({"model": "alias", "stream": True})["stream_options"] == {"include_usage": True}


def test_an_answer_in_one_piece_is_not() -> None:
    assert "stream_options" not in sent({"model": "alias"})


@pytest.mark.parametrize("asked", [[], "yes", 7])
def test_stream_options_of_another_type_are_refused_by_name(asked: Any) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        sent({"model": "alias", "stream": True, "stream_options": asked})
    assert caught.value.param == "stream_options"


def test_the_callers_request_is_left_as_it_was() -> None:
    asked = request({"model": "alias", "stream": True, "cache": False, "messages": []})
    before = dict(asked.fields)
    ADAPTER.chat_call(asked, model(), SECRET)
    assert asked.fields == before


def test_headers_and_address() -> None:
    call = ADAPTER.chat_call(request({"model": "a", "stream": True}), model(), SECRET)
    assert call.url == "https://vendor.test/v1/chat/completions"
    assert call.headers == {"Content-Type": "application/json", "Accept": "text/event-stream", "Authorization": f"Bearer {KEY}"}
    assert KEY not in repr(call)
    assert "Authorization" not in ADAPTER.chat_call(request({"model": "a"}), model(), None).headers


def test_openai_is_told_who_pays() -> None:
    adapter = OpenAI(provider("openai", options={"organization": "org-1", "project": "proj_1"}))
    headers = adapter.models_call(SECRET).headers
    assert (headers["OpenAI-Organization"], headers["OpenAI-Project"]) == ("org-1", "proj_1")
    assert "OpenAI-Project" not in OpenAI(provider("openai", options={"project": ""})).models_call(SECRET).headers


CHOICE = {"index": 0, "message": {"role": "assistant", "content": "你好", "refusal": None}, "logprobs": None, "finish_reason": "stop"}
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [CHOICE],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


def answer(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in {**ANSWER, **changes}.items() if value is not ...}, ensure_ascii=False).encode()


def test_a_whole_answer_passes_untouched() -> None:
    body = b"\n \n" + answer()
    read = ADAPTER.read_answer(body)
    assert read.body is body
    assert (read.usage, read.finish_reason, read.output_bytes) == (Usage(input=3, output=2), "stop", 6)


@pytest.mark.parametrize("key", ["refusal", "content", "role"])
def test_a_message_is_given_the_keys_it_must_have(key: str) -> None:
    message = {name: value for name, value in CHOICE["message"].items() if name != key} | {"reasoning_content": "hm"}  # type: ignore[attr-defined]
    read = json.loads(ADAPTER.read_answer(answer(choices=[{**CHOICE, "message": message}])).body)
    assert read["choices"][0]["message"] == {**message, key: "assistant" if key == "role" else None}


@pytest.mark.parametrize(("key", "value"), [("logprobs", None), ("index", 0)])
def test_a_choice_is_given_the_keys_it_must_have(key: str, value: Any) -> None:
    choice = {name: given for name, given in CHOICE.items() if name != key}
    assert json.loads(ADAPTER.read_answer(answer(choices=[choice])).body)["choices"] == [{**choice, key: value}]


@pytest.mark.parametrize(("key", "value"), [("object", "chat.completion"), ("created", 0), ("model", "unknown")])
@pytest.mark.parametrize("given", [..., ""])
def test_an_answer_is_given_the_keys_it_must_have(key: str, value: Any, given: Any) -> None:
    given = None if key == "created" and given == "" else given
    assert json.loads(ADAPTER.read_answer(answer(**{key: given})).body) == {**ANSWER, key: value}


def test_an_answer_without_an_id_gets_one_that_is_always_the_same() -> None:
    first, again, other = (json.loads(ADAPTER.read_answer(answer(id=..., created=n)).body)["id"] for n in (1, 1, 2))
    assert first == again != other
    assert first.startswith("chatcmpl-")


def test_a_filtered_choice_without_a_message_is_an_answer() -> None:
    read = ADAPTER.read_answer(answer(choices=[{"index": 0, "finish_reason": "content_filter", "logprobs": None}]))
    assert json.loads(read.body)["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": None}
    assert (read.finish_reason, read.output_bytes) == ("content_filter", 0)


def test_usage_may_sit_in_the_choice() -> None:
    assert ADAPTER.read_answer(answer(usage=..., choices=[{**CHOICE, "usage": ANSWER["usage"]}])).usage == Usage(input=3, output=2)
    assert ADAPTER.read_answer(answer(usage=...)).usage is None


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", errors.ProviderNonsense),
        (b"<html>", errors.ProviderNonsense),
        (answer()[:-9], errors.ProviderNonsense),
        (answer().replace("你".encode(), b"\xff"), errors.ProviderNonsense),
        (answer(id="MARK").replace(b"MARK", b"\xff"), errors.ProviderNonsense),
        (b"[" * 100_000, errors.ProviderNonsense),
        (b"[]", errors.ProviderNonsense),
        (b'"text"', errors.ProviderNonsense),
        (b"{}", errors.ProviderNonsense),
        (answer(choices=[]), errors.ProviderNonsense),
        (answer(choices=None), errors.ProviderNonsense),
        (answer(choices=[{**CHOICE, "finish_reason": None}]), errors.ProviderNonsense),
        (answer(choices=[{**CHOICE, "message": "hello"}]), errors.ProviderNonsense),
        (answer(choices=[{**CHOICE, "finish_reason": "insufficient_system_resource"}]), errors.ProviderFault),
        (b'{"error": {"message": "m", "type": "server_error"}}', errors.ProviderFault),
        (b'{"error": {"message": "m", "code": "rate_limit_exceeded"}}', errors.ProviderLimited),
        (b'{"error": "broken"}', errors.ProviderFault),
        (answer(error={"message": "m", "code": 401}), errors.ProviderRejectedOurKey),
        (b'{"object": "error", "message": "m", "code": 400}', errors.ProviderRefused),
    ],
)
def test_what_is_no_answer_is_a_typed_error(body: bytes, error: type) -> None:
    with pytest.raises(errors.GatewayError) as caught:
        ADAPTER.read_answer(body)
    assert type(caught.value) is error


def test_models() -> None:
    call = ADAPTER.models_call(SECRET)
    assert (call.method, call.url, call.body) == ("GET", "https://vendor.test/v1/models", None)
    assert ADAPTER.read_models(b'{"object": "list", "data": [{"id": "b"}, {"id": "a", "created": null}, {"id": "b"}]}') == ["a", "b"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'{"data": null}', b'{"data": [{"name": "x"}]}', b'{"data": ["x"]}'])
def test_what_is_no_list_of_models_is_nonsense(body: bytes) -> None:
    with pytest.raises(errors.ProviderNonsense):
        ADAPTER.read_models(body)
