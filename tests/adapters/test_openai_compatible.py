"""What an OpenAI-compatible vendor is sent, and how its whole answers and model lists are read."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from core import errors
from core.chat import ChatRequest, Usage, WireCall
from core.conversation import Conversation, Message, Text
from core.plain import plain_request, result_of, result_of_stream
from gateway.doors import completions
from providers.adapters.openai_compatible import OpenAICompatible
from providers.adapters.quirks import Quirks
from providers.adapters.registry import adapter_for
from tests.adapters.cast import KEY, SECRET, model, provider, request

ADAPTER = OpenAICompatible(provider("openai_compatible"))
REQUEST = request()
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
    headers = adapter_for(provider("openai", options={"organization": "org-1", "project": "proj_1"})).models_call(SECRET).headers
    assert (headers["OpenAI-Organization"], headers["OpenAI-Project"]) == ("org-1", "proj_1")
    assert "OpenAI-Project" not in adapter_for(provider("openai", options={"project": ""})).models_call(SECRET).headers


def quirky(**quirks: Any) -> OpenAICompatible:
    return OpenAICompatible(provider("openai_compatible"), Quirks(**quirks))


def sent_by(adapter: OpenAICompatible, body: dict[str, Any], dialect: Any = None, **options: Any) -> tuple[Any, WireCall]:
    asked = request({"messages": MESSAGES, **body})
    asked.dialect = dialect or asked.dialect
    call = adapter.chat_call(asked, msgspec.structs.replace(model("vendor-model"), **options), SECRET)
    assert call.body is not None
    return json.loads(call.body), call


@pytest.mark.parametrize(
    ("header", "headers"),
    [
        ("Authorization", {"Authorization": f"Bearer {KEY}"}),
        ("api-key", {"api-key": KEY}),
        ("", {}),
    ],
)
def test_the_key_goes_where_the_server_wants_it(header: str, headers: dict[str, str]) -> None:
    call = quirky(key_header=header).models_call(SECRET)
    assert call.headers == {"Content-Type": "application/json", "Accept": "application/json", **headers}


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}),
        ({"max_completion_tokens": None, "max_tokens": 9}, {"max_tokens": 9}),
        ({"max_tokens": 9}, {"max_tokens": 9}),
        ({}, {}),
    ],
)
def test_a_field_that_the_server_knows_by_its_older_name(asked: dict[str, Any], given: dict[str, Any]) -> None:
    body, call = sent_by(quirky(renames=(("max_completion_tokens", "max_tokens"),)), asked)
    assert {name: value for name, value in body.items() if name.startswith("max")} == given
    assert call.dropped == ()


TALK = [{"role": "developer", "content": "be \u00e9xact"}, {"role": "user", "content": 'say "developer"', "name": "reasoning_content"}]


@pytest.mark.parametrize(("knows", "role"), [(False, "system"), (True, "developer")])
def test_a_role_that_the_server_does_not_know(knows: bool, role: str) -> None:
    body, _ = sent_by(quirky(developer_role=knows), {"messages": TALK})
    assert body["messages"] == [{**TALK[0], "role": role}, TALK[1]]


def test_messages_that_fit_keep_every_byte() -> None:
    asked = request()
    asked.fields["messages"] = msgspec.Raw(b'[ {"role" :"user","content":"h\\u00e9"} ]')
    call = quirky(strict_messages=True).chat_call(asked, model(), SECRET)
    assert b'"messages":[ {"role" :"user","content":"h\\u00e9"} ]' in (call.body or b"")


def test_a_strict_server_gets_no_earlier_thought_and_the_client_is_told() -> None:
    tool_call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    sealed = {**tool_call, "extra_content": {"google": {"thought_signature": "s"}}}
    told = {"role": "assistant", "content": "x", "reasoning_content": "hm", "thinking_blocks": [], "tool_calls": [sealed]}
    body, call = sent_by(quirky(strict_messages=True), {"messages": [told, *TALK[1:]]})
    assert body["messages"] == [{"role": "assistant", "content": "x", "tool_calls": [tool_call]}, *TALK[1:]]
    assert set(call.dropped) == {"reasoning_content", "thinking_blocks", "extra_content"}
    body, call = sent_by(quirky(), {"messages": [told]})
    assert (body["messages"], call.dropped) == ([told], ())


@pytest.mark.parametrize(
    "messages",
    ["developer", ["developer"], [{"role": "developer", "content": "x"}, 7], [{"reasoning_content": "x", "tool_calls": "y"}]],
)
def test_messages_that_cannot_be_read_are_refused_by_name(messages: Any) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        sent_by(quirky(strict_messages=True), {"messages": messages})
    assert caught.value.param == "messages"


def test_a_server_without_stream_options_gets_none() -> None:
    body, _ = sent_by(quirky(stream_usage=False), {"stream": True, "stream_options": {"include_usage": True}})
    assert body["stream"] is True
    assert "stream_options" not in body


def test_an_option_becomes_the_header_that_carries_it() -> None:
    spec = provider("openai_compatible", options={"appid": "app-1"})
    assert OpenAICompatible(spec, Quirks(option_headers=(("appid", "appid"),))).models_call(None).headers["appid"] == "app-1"


@pytest.mark.parametrize(("name", "path"), [("embeddings", "/embeddings"), ("completions", "/completions"), ("responses", "/responses")])
def test_an_endpoint_that_the_server_has_passes_through(name: str, path: str) -> None:
    adapter = quirky(endpoints=frozenset({"openai", name}), stream_usage=False)
    body, call = sent_by(adapter, {"input": ["a"], "prompt": "p", "stream": True, "x": [1]}, SimpleNamespace(NAME=name))
    assert call.url == f"https://vendor.test/v1{path}"
    assert (body["model"], body["input"], body["prompt"], body["x"]) == ("vendor-model", ["a"], "p", [1])
    assert "stream_options" not in body


def test_embeddings_that_the_server_has_not_are_refused_by_name() -> None:
    with pytest.raises(errors.InvalidRequest, match="type openai_compatible offers no embeddings"):
        sent_by(quirky(endpoints=frozenset({"openai"})), {"input": "a"}, SimpleNamespace(NAME="embeddings"))


def test_completions_that_the_server_has_not_become_a_chat() -> None:
    call = quirky(endpoints=frozenset({"openai"})).chat_call(completions.parse(b'{"model": "alias", "prompt": "hi"}'), model("m"), SECRET)
    assert call.url == "https://vendor.test/v1/chat/completions"
    assert json.loads(call.body or b"")["messages"] == [{"role": "user", "content": "hi"}]


def plain(stream: bool = False, **wishes: Any) -> ChatRequest:
    return plain_request("alias", Conversation([Message("user", [Text("hi")])], **wishes), stream=stream)


def test_another_dialect_is_translated() -> None:
    adapter = quirky(max_tokens_field="max_completion_tokens", extensions=frozenset({"top_k"}))
    call = adapter.chat_call(plain(max_output_tokens=7, top_k=3), model("vendor-model"), SECRET)
    assert json.loads(call.body or b"") == {
        "model": "vendor-model",
        "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": 7,
        "top_k": 3,
    }
    result = result_of(adapter.read_answer(answer(), plain()).body)
    assert (result.parts, result.ended.reason, result.usage) == ([Text("你好")], "stop", Usage(input=3, output=2))


@pytest.mark.parametrize(("knows", "options"), [(True, {"include_usage": True}), (False, None)])
def test_a_translated_stream(knows: bool, options: Any) -> None:
    adapter = quirky(stream_usage=knows)
    call = adapter.chat_call(plain(stream=True), model(), SECRET)
    body = json.loads(call.body or b"")
    assert (body["stream"], body.get("stream_options"), call.headers["Accept"]) == (True, options, "text/event-stream")
    reader = adapter.stream_reader(plain(stream=True))
    chunk = {**ANSWER, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "你好"}, "finish_reason": "stop"}]}
    out = reader.feed(b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n")
    assert result_of_stream(out).parts == [Text("你好")]
    assert (reader.done, reader.usage) == (True, Usage(input=3, output=2))


def test_what_a_translation_cannot_carry_is_refused_or_dropped_by_name() -> None:
    with pytest.raises(errors.InvalidRequest, match="'top_k' cannot be carried to openai_compatible"):
        quirky().chat_call(plain(top_k=3), model(), SECRET)
    lenient = msgspec.structs.replace(model(), drop_params=True)
    assert quirky().chat_call(plain(top_k=3), lenient, SECRET).dropped == ("top_k",)


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
    read = ADAPTER.read_answer(body, REQUEST)
    assert read.body is body
    assert (read.usage, read.finish_reason, read.output_bytes) == (Usage(input=3, output=2), "stop", 6)


@pytest.mark.parametrize("key", ["refusal", "content", "role"])
def test_a_message_is_given_the_keys_it_must_have(key: str) -> None:
    message = {name: value for name, value in CHOICE["message"].items() if name != key} | {"reasoning_content": "hm"}  # type: ignore[attr-defined]
    read = json.loads(ADAPTER.read_answer(answer(choices=[{**CHOICE, "message": message}]), REQUEST).body)
    assert read["choices"][0]["message"] == {**message, key: "assistant" if key == "role" else None}


@pytest.mark.parametrize(("key", "value"), [("logprobs", None), ("index", 0)])
def test_a_choice_is_given_the_keys_it_must_have(key: str, value: Any) -> None:
    choice = {name: given for name, given in CHOICE.items() if name != key}
    assert json.loads(ADAPTER.read_answer(answer(choices=[choice]), REQUEST).body)["choices"] == [{**choice, key: value}]


@pytest.mark.parametrize(("key", "value"), [("object", "chat.completion"), ("created", 0), ("model", "unknown")])
@pytest.mark.parametrize("given", [..., ""])
def test_an_answer_is_given_the_keys_it_must_have(key: str, value: Any, given: Any) -> None:
    given = None if key == "created" and given == "" else given
    assert json.loads(ADAPTER.read_answer(answer(**{key: given}), REQUEST).body) == {**ANSWER, key: value}


def test_an_answer_without_an_id_gets_one_that_is_always_the_same() -> None:
    first, again, other = (json.loads(ADAPTER.read_answer(answer(id=..., created=n), REQUEST).body)["id"] for n in (1, 1, 2))
    assert first == again != other
    assert first.startswith("chatcmpl-")


def test_a_filtered_choice_without_a_message_is_an_answer() -> None:
    read = ADAPTER.read_answer(answer(choices=[{"index": 0, "finish_reason": "content_filter", "logprobs": None}]), REQUEST)
    assert json.loads(read.body)["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": None}
    assert (read.finish_reason, read.output_bytes) == ("content_filter", 0)


@pytest.mark.parametrize("blank", [{"id": "", "type": ""}, {"id": None}, {}])
def test_a_call_without_an_id_is_given_one(blank: dict[str, Any]) -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}
    message = {**CHOICE["message"], "tool_calls": [{**call, **blank}, {**call, **blank}]}  # type: ignore[dict-item]
    read = json.loads(ADAPTER.read_answer(answer(choices=[{**CHOICE, "message": message}]), REQUEST).body)
    first, second = read["choices"][0]["message"]["tool_calls"]
    assert first["id"].startswith("call_")
    assert first["id"] != second["id"]
    assert first == {**call, "id": first["id"], "type": "function"}


@pytest.mark.parametrize(("theirs", "openais"), [("normal", "stop"), ("sensitive", "content_filter"), ("model_length", "length")])
def test_a_vendors_word_for_the_end_is_openais_to_the_client(theirs: str, openais: str) -> None:
    read = ADAPTER.read_answer(answer(choices=[{**CHOICE, "finish_reason": theirs}]), REQUEST)
    assert (read.finish_reason, json.loads(read.body)["choices"][0]["finish_reason"]) == (openais, openais)


def test_usage_may_sit_in_the_choice() -> None:
    assert ADAPTER.read_answer(answer(usage=..., choices=[{**CHOICE, "usage": ANSWER["usage"]}]), REQUEST).usage == Usage(input=3, output=2)
    assert ADAPTER.read_answer(answer(usage=...), REQUEST).usage is None


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
        ADAPTER.read_answer(body, REQUEST)
    assert type(caught.value) is error


def test_models() -> None:
    call = ADAPTER.models_call(SECRET)
    assert (call.method, call.url, call.body) == ("GET", "https://vendor.test/v1/models", None)
    assert ADAPTER.read_models(b'{"object": "list", "data": [{"id": "b"}, {"id": "a", "created": null}, {"id": "b"}]}') == ["a", "b"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'{"data": null}', b'{"data": [{"name": "x"}]}', b'{"data": ["x"]}'])
def test_what_is_no_list_of_models_is_nonsense(body: bytes) -> None:
    with pytest.raises(errors.ProviderNonsense):
        ADAPTER.read_models(body)
