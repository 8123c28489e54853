"""The pure functions of Anthropic's wire, driven by small samples written from its documentation: no loop, no Django, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core import errors
from core.chat import ChatRequest
from core.config import ModelSpec
from core.conversation import Conversation
from core.events import ReasoningDelta, Result, TextDelta, ToolDelta
from core.plain import plain_request, result_of, result_of_stream
from core.secrets import Secret
from gateway.doors import anthropic_messages, embeddings
from providers.adapters.anthropic import Anthropic
from providers.adapters.anthropic_answer import result_from_wire
from providers.adapters.anthropic_stream import AnthropicWireStream
from providers.adapters.anthropic_wire import to_wire
from providers.adapters.translated import Leftovers
from tests.adapters.cast import KEY, SECRET, provider

HERE = Path(__file__).parent / "anthropic"


def samples(name: str) -> list[Any]:
    found = json.loads((HERE / f"{name}.json").read_text())
    return [pytest.param(sample, id=sample.get("name") or f"{position}") for position, sample in enumerate(found)]


def conversation(**asked: Any) -> Conversation:
    asked = {"messages": [{"role": "user", "parts": [{"type": "text", "text": "Hello"}]}], **asked}
    return msgspec.json.decode(json.dumps(asked), type=Conversation)


def model(**more: Any) -> ModelSpec:
    return ModelSpec("model-1", "alias", "claude-x", "provider-1", **more)


def adapter(**more: Any) -> Anthropic:
    return Anthropic(provider("anthropic", **{"base_url": "https://vendor.test", **more}))


def client_request(body: dict[str, Any], *headers: tuple[str, str]) -> ChatRequest:
    least = {"model": "alias", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    request = anthropic_messages.parse(json.dumps({**least, **body}).encode())
    request.headers = headers
    return request


def sent_events(events: list[dict[str, Any]]) -> bytes:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events).encode()


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)] if size else [body]


def expected(sample: dict[str, Any]) -> Result:
    return msgspec.convert(sample["result"], Result)


def with_ids_of(result: Result, made: Result) -> Result:
    """`result` with the ids that were made up, once they are seen to be ids."""
    for part, other in zip(result.parts, made.parts, strict=True):
        if getattr(part, "id", "") == "made up":
            part.id = other.id  # type: ignore[union-attr]
            assert part.id.startswith("call_")
            assert len(part.id) == 29
    return result


# Requests -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sample", samples("requests"))
def test_a_conversation_on_the_wire(sample: dict[str, Any]) -> None:
    asked, target = conversation(**sample["conversation"]), model(**{"capabilities": (), **sample.get("model", {})})
    leftovers = Leftovers(asked, target, "Anthropic")
    wire = json.loads(msgspec.json.encode(to_wire(asked, target, leftovers)))
    assert wire == sample["wire"]
    assert list(leftovers.names) == sample.get("dropped", [])


@pytest.mark.parametrize("sample", samples("refused"))
def test_what_the_wire_cannot_carry_is_refused_by_name_or_dropped_with_a_report(sample: dict[str, Any]) -> None:
    asked = conversation(**sample["asked"])
    with pytest.raises(errors.InvalidRequest, match="Anthropic") as refused:
        to_wire(asked, model(), Leftovers(asked, model(), "Anthropic"))
    assert refused.value.param == sample["param"]
    dropping = Leftovers(asked, model(drop_params=True), "Anthropic")
    wire = to_wire(asked, model(drop_params=True), dropping)
    assert dropping.names == (sample["param"],)
    assert wire["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    assert sample["param"] not in wire


def test_a_model_that_takes_no_temperature() -> None:
    target, told = model(capabilities=("fixed_sampling",)), conversation(temperature=1, top_p=1.0)
    wire = to_wire(told, target, Leftovers(told, target, "Anthropic"))
    assert wire.keys() == {"model", "max_tokens", "messages"}
    told = conversation(temperature=0.2)
    with pytest.raises(errors.InvalidRequest, match="temperature"):
        to_wire(told, target, Leftovers(told, target, "Anthropic"))


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"messages": [{"role": "assistant", "parts": [{"type": "tool_use", "id": "a", "name": "f", "arguments": "[1]"}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "parts": [{"type": "tool_use", "id": "a", "name": "f", "arguments": '{"a":'}]}]}, "messages"),
        ({"messages": [{"role": "user", "parts": [{"type": "file", "data": "//79", "media_type": "text/plain"}]}]}, "file"),
        ({"tools": [{"name": "f", "parameters": "none"}]}, "tools"),
    ],
)
def test_what_no_vendor_could_read_names_its_field(asked: dict[str, Any], param: str) -> None:
    told = conversation(**asked)
    with pytest.raises(errors.InvalidRequest) as refused:
        to_wire(told, model(drop_params=True), Leftovers(told, model(drop_params=True), "Anthropic"))
    assert refused.value.param == param


def test_a_client_of_the_same_dialect_passes_through() -> None:
    rest = b'"max_tokens":9,"messages":[{"role": "user", "content":"x"}],"new_field":{"b" :[1, 2.50]},"stream":true}'
    request = anthropic_messages.parse(b'{"model":"alias",' + rest)
    request.headers = (("anthropic-version", "2026-10-21"), ("anthropic-beta", "a-1"), ("anthropic-beta", "b-2"))
    call = adapter().chat_call(request, model(), SECRET)
    assert call.body == b'{"model":"claude-x",' + rest
    assert call.url == "https://vendor.test/v1/messages"
    assert call.headers == {
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "a-1,b-2",
        "x-api-key": KEY,
    }
    assert call.dropped == ()


def test_a_translated_call_is_of_the_version_that_takes_a_temperature() -> None:
    request = plain_request("alias", conversation(temperature=0.5, hints=["metadata"]), stream=True)
    request.headers = (("anthropic-version", "2026-10-21"),)
    call = adapter().chat_call(request, model(), SECRET)
    assert call.headers["anthropic-version"] == "2023-06-01"
    assert call.body is not None
    wire = json.loads(call.body)
    assert (wire["stream"], wire["temperature"]) == (True, 0.5)
    assert call.dropped == ("metadata",)


def test_without_a_stream_none_is_asked_for() -> None:
    call = adapter().chat_call(plain_request("alias", conversation(), stream=False), model(), None)
    assert call.headers["Accept"] == "application/json"
    assert "x-api-key" not in call.headers
    assert b"stream" not in (call.body or b"")


def test_options_of_the_form() -> None:
    fixed = adapter(options={"auth": "bearer", "version": "2023-06-01"})
    call = fixed.chat_call(client_request({}, ("anthropic-version", "2026-10-21")), model(), Secret(f" {KEY}\n"))
    assert call.headers["Authorization"] == f"Bearer {KEY}"
    assert "x-api-key" not in call.headers
    assert call.headers["anthropic-version"] == "2023-06-01"
    with pytest.raises(errors.ConfigurationError, match="x-api-key or bearer"):
        adapter(options={"auth": "basic"})


@pytest.mark.parametrize("base_url", ["https://vendor.test", "https://vendor.test/", "https://vendor.test/v1", "https://vendor.test/v1/"])
def test_the_base_url_with_and_without_its_version(base_url: str) -> None:
    made = adapter(base_url=base_url)
    assert made.chat_call(client_request({}), model(), None).url == "https://vendor.test/v1/messages"
    assert made.models_call(SECRET).url == "https://vendor.test/v1/models?limit=1000"


def test_embeddings_are_not_offered() -> None:
    request = client_request({})
    request.dialect = embeddings  # type: ignore[assignment]
    with pytest.raises(errors.InvalidRequest, match="type anthropic offers no embeddings"):
        adapter().chat_call(request, model(), SECRET)


# Answers --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sample", samples("answers"))
def test_a_whole_answer(sample: dict[str, Any]) -> None:
    body = json.dumps(sample["body"], ensure_ascii=False).encode()
    result = result_from_wire(body)
    assert result == with_ids_of(expected(sample), result)
    passed = adapter().read_answer(body, client_request({}))
    assert passed.body is body
    assert (passed.usage, passed.finish_reason, passed.output_bytes) == (result.usage, result.ended.reason, result.output_bytes)
    translated = adapter().read_answer(body, plain_request("alias", conversation(), stream=False))
    assert result_of(translated.body) == result


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("sample", samples("streams"))
def test_a_streamed_answer(sample: dict[str, Any], size: int) -> None:
    body = sent_events(sample["events"])
    request = plain_request("alias", conversation(), stream=True)
    reader = adapter().stream_reader(request)
    told = b"".join(reader.feed(piece) for piece in cut(body, size))
    result = result_of_stream(told + reader.tail)
    assert result == with_ids_of(expected(sample), result)
    assert reader.done
    assert (reader.usage, reader.finish_reason, reader.output_bytes) == (result.usage, result.ended.reason, result.output_bytes)


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("sample", samples("streams"))
def test_a_stream_that_passes_through(sample: dict[str, Any], size: int) -> None:
    """The same facts are taken from it, and the bytes are the vendor's; the last event waits in `tail`."""
    body = sent_events(sample["events"])
    reader = adapter().stream_reader(client_request({"stream": True}))
    passed = [reader.feed(piece) for piece in cut(body, size)]
    assert b"".join(passed) + reader.tail == body
    assert reader.tail == sent_events([{"type": "message_stop"}])
    result = expected(sample)
    assert reader.done
    assert (reader.usage, reader.finish_reason, reader.output_bytes) == (result.usage, result.ended.reason, result.output_bytes)
    assert reader.feed(b"event: ping\ndata: {}\n\n") == b""


BEGUN: dict[str, Any] = {"type": "message_start", "message": {"usage": {"input_tokens": 4, "output_tokens": 1}}}
TEXT: dict[str, Any] = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
SAID: dict[str, Any] = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
STOP: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}


def readers() -> list[Any]:
    return [
        adapter().stream_reader(client_request({"stream": True})),
        adapter().stream_reader(plain_request("alias", conversation(), stream=True)),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        b"event: x\ndata: not JSON\n\n",
        b'event: x\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\xff"}}\n\n',
        b'event: x\ndata: {"type":"ping","note":"\xff"}\n\n',
        b"event: x\ndata: " + b'{"a":' * 100_000 + b"\n\n",
        b'event: x\ndata: {"index":0}\n\n',
        b'event: x\ndata: {"choices":[]}\n\n',
        b"data: [DONE]\n\n",
        sent_events([{"type": "message_start"}]),
        sent_events([{"type": "content_block_start", "index": 1}]),
        sent_events([{"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": ""}}]),
        sent_events([{"type": "content_block_delta", "index": 0}]),
        sent_events([{**SAID, "index": 7}]),
        sent_events([{**SAID, "delta": {"type": "text_delta"}}]),
        sent_events([{**SAID, "delta": {"type": "input_json_delta", "text": "x"}}]),
        sent_events([{**SAID, "delta": {"type": "text_delta", "text": 5}}]),
        sent_events([{"type": "message_delta", "usage": {"output_tokens": 3}}]),
        sent_events([{"type": "message_stop"}]),
    ],
)
def test_an_event_that_is_no_part_of_an_answer_ends_it(bad: bytes) -> None:
    before = sent_events([BEGUN, TEXT, SAID])
    for reader in readers():
        with pytest.raises(errors.ProviderNonsense):
            reader.feed(before + bad)
        assert b"Hi" in reader.salvaged
        assert (reader.done, reader.output_bytes, reader.usage, reader.tail) == (False, 2, None, b"")


def test_what_the_reader_saved_is_what_came_before() -> None:
    reader = readers()[0]
    first = reader.feed(sent_events([BEGUN, TEXT]))
    with pytest.raises(errors.ProviderNonsense):
        reader.feed(sent_events([SAID]) + b"data: {}\n\n")
    assert first + reader.salvaged == sent_events([BEGUN, TEXT, SAID])


@pytest.mark.parametrize("events", [[], [BEGUN], [BEGUN, TEXT, SAID], [BEGUN, TEXT, SAID, STOP]])
def test_a_stream_without_its_last_event_is_not_whole(events: list[dict[str, Any]]) -> None:
    for reader in readers():
        reader.feed(sent_events(events))
        with pytest.raises(errors.ProviderNonsense, match="ended in the middle"):
            reader.finish()


def test_content_before_the_beginning_is_no_answer() -> None:
    for first in (TEXT, STOP):
        for reader in readers():
            with pytest.raises(errors.ProviderNonsense):
                reader.feed(sent_events([first]))


def test_a_type_that_would_break_the_stream_is_none() -> None:
    with pytest.raises(errors.ProviderNonsense):
        readers()[0].feed(b'data: {"type":"ping\\n\\ndata: more"}\n\n')


def test_an_event_over_the_limit_ends_the_answer() -> None:
    for reader in readers():
        with pytest.raises(errors.ProviderNonsense, match="longer than"):
            reader.feed(sent_events([BEGUN, TEXT, SAID]) + b"data: " + b"x" * (2**20 + 1))
        assert b"Hi" in reader.salvaged


def test_a_vendor_that_names_no_event_gets_its_events_named() -> None:
    """Anthropic's SDKs skip an event without a name."""
    nameless = b"".join(b"data: " + json.dumps(event).encode() + b"\r\n\r\n" for event in (BEGUN, TEXT, SAID))
    assert readers()[0].feed(b": hello\n\n" + nameless) == sent_events([BEGUN, TEXT, SAID])


def test_thought_and_its_signature_given_at_the_beginning_of_a_block() -> None:
    wire = AnthropicWireStream()
    wire.read(json.dumps(BEGUN).encode())
    block = {"type": "thinking", "thinking": "Hm", "signature": "s"}
    assert wire.read(json.dumps({"type": "content_block_start", "index": 0, "content_block": block}).encode()) == (ReasoningDelta("Hm"),)
    assert wire.read(b'{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"."}}') == (ReasoningDelta("."),)
    assert wire.read(b'{"type":"content_block_stop","index":0}') == (ReasoningDelta(signature="s"),)


def test_blocks_that_alternate_are_told_apart() -> None:
    wire = AnthropicWireStream()
    wire.read(json.dumps(BEGUN).encode())
    for index in (3, 8):
        block = {"type": "tool_use", "id": f"t{index}", "name": "f", "input": {}}
        wire.read(json.dumps({"type": "content_block_start", "index": index, "content_block": block}).encode())
    wire.read(json.dumps({**TEXT, "index": 9}).encode())
    assert wire.read(json.dumps({**SAID, "index": 9}).encode()) == (TextDelta("Hi"),)
    for index, position in ((8, 1), (3, 0)):
        delta = {"type": "input_json_delta", "partial_json": "{"}
        assert wire.read(json.dumps({**SAID, "index": index, "delta": delta}).encode()) == (ToolDelta(position, "{"),)


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b"<html>busy</html>", errors.ProviderNonsense, "not JSON"),
        (b'{"content":[],"stop_reason":"end_turn","x":"\xff"}', errors.ProviderNonsense, "not JSON"),
        (b'{"a":' * 100_000, errors.ProviderNonsense, "not JSON"),
        (b"{}", errors.ProviderNonsense, "not a chat answer"),
        (b'{"choices":[]}', errors.ProviderNonsense, "not a chat answer"),
        (b'{"content":"text","stop_reason":"end_turn"}', errors.ProviderNonsense, "not a chat answer"),
        (b'{"content":[{"type":"text","text":"a"}],"stop_reason":null}', errors.ProviderNonsense, "how it ended"),
        (b'{"content":[{"type":"tool_use","id":"a"}],"stop_reason":"tool_use"}', errors.ProviderNonsense, "without naming"),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}', errors.ProviderFault, "529"),
        (b'{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long"}}', errors.ContextTooLong, "too long"),
        (b'{"type":"error"}', errors.ProviderFault, "500"),
    ],
)
def test_a_success_that_is_none(body: bytes, error: type[errors.GatewayError], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        result_from_wire(body)
    assert type(raised.value) is error


# Errors ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sample", samples("errors"))
def test_an_error(sample: dict[str, Any]) -> None:
    problem = {name: sample[name] for name in ("type", "message", "details") if name in sample}
    body = json.dumps({"type": "error", "error": problem, "request_id": "req_1"}).encode()
    error = adapter().read_error(sample["status"], sample.get("headers", {}), body)
    assert type(error).__name__ == sample["is"]
    assert error.retry_after_s == sample.get("retry_after_s")
    assert str(sample["status"]) in (error.detail or "")
    inside = AnthropicWireStream()
    with pytest.raises(errors.GatewayError) as raised:
        inside.read(json.dumps({"type": "error", "error": problem}).encode())
    if sample["type"] != "an_error_of_next_year" and "headers" not in sample:  # nothing but the status tells, or a header
        assert type(raised.value).__name__ == sample["is"]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (502, b"<html>Bad gateway</html>", errors.ProviderFault),
        (403, b"<html>Blocked</html>", errors.ProviderRejectedOurKey),
        (429, b"", errors.ProviderLimited),
        (400, b'{"error":"no"}', errors.ProviderRefused),
        (404, b'{"error":{"code":"model_not_found","message":"no such model"}}', errors.ProviderLacksModel),
        (302, b"", errors.ProviderNonsense),
    ],
)
def test_an_error_that_is_not_anthropics(status: int, body: bytes, error: type[errors.GatewayError]) -> None:
    assert type(adapter().read_error(status, {}, body)) is error


def test_no_error_repeats_our_key() -> None:
    body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": f"prompt is too long, {KEY}"}}).encode()
    for error in (adapter().read_error(400, {}, body), error_of(adapter(), body)):
        assert KEY not in f"{error.message} {error.detail}"
        assert "****" in error.message


def error_of(made: Anthropic, body: bytes) -> errors.GatewayError:
    with pytest.raises(errors.GatewayError) as raised:
        made.read_answer(body, client_request({}))
    return raised.value


# Counting and listing -------------------------------------------------------------------------------------------------
def test_counting_tokens() -> None:
    request = anthropic_messages.parse_to_count(b'{"model":"alias","messages":[{"role":"user","content":"x"}],"thinking":{"a":1}}')
    request.headers = (("anthropic-beta", "a-1"),)
    call = adapter().count_call(request, model(), SECRET)
    assert call.url == "https://vendor.test/v1/messages/count_tokens"
    assert call.body == b'{"model":"claude-x","messages":[{"role":"user","content":"x"}],"thinking":{"a":1}}'
    assert call.headers["anthropic-beta"] == "a-1"
    assert call.headers["anthropic-version"] == "2023-06-01"
    assert adapter().read_count(b'{"input_tokens":669}') == 669


@pytest.mark.parametrize("body", [b"", b"{}", b'{"input_tokens":"7"}', b'{"input_tokens":-1}', b'{"input_tokens":1.5}'])
def test_a_count_that_is_none(body: bytes) -> None:
    with pytest.raises(errors.ProviderNonsense):
        adapter().read_count(body)


def test_listing_models() -> None:
    call = adapter().models_call(SECRET)
    assert (call.method, call.body, call.headers["x-api-key"]) == ("GET", None, KEY)
    assert adapter().read_models(b'{"data":[{"type":"model","id":"b"},{"id":"a"}],"has_more":false}') == ["a", "b"]
    for body in (b"<html>", b"{}", b'{"data":[{"name":"a"}]}'):
        with pytest.raises(errors.ProviderNonsense):
            adapter().read_models(body)
