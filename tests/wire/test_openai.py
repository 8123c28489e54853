"""OpenAI's chat wire ↔ the event model. The samples are written after OpenAI's reference and the vendors' own pages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core import errors
from core.config import ModelSpec
from core.conversation import (
    Conversation,
    File,
    Image,
    JsonOutput,
    Message,
    Part,
    Reasoning,
    ReasoningWish,
    Text,
    ToolResult,
    ToolUse,
)
from core.events import ChatEvent, Result, TextDelta, gathered
from gateway.doors.openai_reading import conversation as read_conversation
from providers.adapters.openai_wire import OpenAIWireStream, result_from_wire, to_wire
from providers.adapters.quirks import Quirks
from providers.adapters.translated import Leftovers

SAMPLES = Path(__file__).parent / "openai"
KEY = "sk-live-4242abcd9999wxyz"
STRICT_MODEL = ModelSpec("model-1", "alias", "vendor-model", "provider-1")
DROPPING_MODEL = msgspec.structs.replace(STRICT_MODEL, drop_params=True)
HELLO = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hello"}}]}
END = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def samples(name: str) -> list[Any]:
    return [pytest.param(it, id=it["name"]) for it in json.loads((SAMPLES / f"{name}.json").read_text())]


def wire(conversation: Conversation, model: ModelSpec = STRICT_MODEL, **more: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body as a vendor decodes it, and what was dropped."""
    leftovers = Leftovers(conversation, model, "Vendor")
    body = to_wire(conversation, model, leftovers, Quirks(**more))
    return json.loads(msgspec.json.encode(body)), leftovers.names


def asked(*messages: Message, **more: Any) -> Conversation:
    return Conversation([Message("user", [Text("hi")]), *messages], **more)


def streamed(*chunks: Any) -> list[ChatEvent]:
    stream = OpenAIWireStream((KEY,))
    events = [event for chunk in chunks for event in stream.read(json.dumps(chunk).encode())]
    stream.finish()
    return events


def agree(result: Result, expected: dict[str, Any]) -> None:
    """`expected` is the JSON of a Result; an id `call_*` there stands for one that was made up."""
    ids = [part.id for part in result.parts if isinstance(part, ToolUse)]
    assert len(set(ids)) == len(ids)
    wanted = msgspec.convert(expected, Result)
    for part, said in zip(wanted.parts, result.parts, strict=True):
        if isinstance(part, ToolUse) and isinstance(said, ToolUse) and part.id == "call_*":
            assert re.fullmatch(r"call_[0-9a-f]{24}", said.id)
            part.id = said.id
    assert result == wanted


@pytest.mark.parametrize("sample", samples("requests"))
def test_what_both_can_say_comes_out_as_it_went_in(sample: dict[str, Any]) -> None:
    body = sample["body"]
    conversation = read_conversation(msgspec.json.decode(json.dumps(body), type=dict[str, msgspec.Raw]))
    assert wire(conversation) == (body, ())


@pytest.mark.parametrize("sample", samples("answers"))
def test_whole_answers(sample: dict[str, Any]) -> None:
    agree(result_from_wire(json.dumps(sample["body"]).encode()), sample["result"])


@pytest.mark.parametrize("sample", samples("streams"))
def test_streamed_answers(sample: dict[str, Any]) -> None:
    agree(gathered(streamed(*sample["chunks"])), sample["result"])


def test_ids_made_up_differ_from_answer_to_answer() -> None:
    def made(answer_id: str) -> str:
        call = {"function": {"name": "f", "arguments": "{}"}}
        body = {"id": answer_id, "choices": [{"message": {"tool_calls": [call]}, "finish_reason": "stop"}]}
        part = result_from_wire(json.dumps(body).encode()).parts[0]
        assert isinstance(part, ToolUse)
        return part.id

    assert made("one") == made("one")
    assert made("one") != made("two")


@pytest.mark.parametrize(("created", "seconds"), [("1700000000.9", 1_700_000_000), ("-5", 0), ("1e300", 0), ("null", 0)])
def test_a_time_that_is_none_is_left_out(created: str, seconds: int) -> None:
    body = b'{"created": %b, "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}' % created.encode()
    assert result_from_wire(body).created == seconds


@pytest.mark.parametrize(
    ("wish", "fields"),
    [
        (ReasoningWish(enabled=False), {"reasoning_effort": "none"}),
        (ReasoningWish(enabled=False, effort="high"), {"reasoning_effort": "none"}),
        (ReasoningWish(enabled=True), {"reasoning_effort": "medium"}),
        (ReasoningWish(effort="xhigh", budget_tokens=1), {"reasoning_effort": "xhigh"}),
        (ReasoningWish(budget_tokens=0), {"reasoning_effort": "none"}),
        (ReasoningWish(budget_tokens=4095), {"reasoning_effort": "low"}),
        (ReasoningWish(budget_tokens=4096), {"reasoning_effort": "medium"}),
        (ReasoningWish(budget_tokens=16384), {"reasoning_effort": "high"}),
    ],
)
def test_how_much_to_think(wish: ReasoningWish, fields: dict[str, Any]) -> None:
    body, dropped = wire(asked(reasoning=wish))
    assert {key: body[key] for key in body if key not in ("model", "messages")} == fields
    assert dropped == ()


@pytest.mark.parametrize(
    ("extension", "wish", "fields"),
    [
        ("thinking", ReasoningWish(effort="high"), {"thinking": {"type": "enabled"}}),
        ("thinking", ReasoningWish(enabled=False), {"thinking": {"type": "disabled"}}),
        ("enable_thinking", ReasoningWish(budget_tokens=500), {"enable_thinking": True, "thinking_budget": 500}),
        ("enable_thinking", ReasoningWish(enabled=False, budget_tokens=500), {"enable_thinking": False}),
    ],
)
def test_vendors_that_are_told_to_think_in_words_of_their_own(extension: str, wish: ReasoningWish, fields: dict[str, Any]) -> None:
    body, _ = wire(asked(reasoning=wish), extensions=frozenset({extension}))
    assert {key: body[key] for key in body if key not in ("model", "messages")} == fields


def test_the_limit_goes_by_the_name_that_the_vendor_knows() -> None:
    assert wire(asked(max_output_tokens=9), max_tokens_field="max_completion_tokens")[0]["max_completion_tokens"] == 9
    assert "max_tokens" not in wire(asked(max_output_tokens=9), max_tokens_field="max_completion_tokens")[0]


@pytest.mark.parametrize(
    ("conversation", "name"),
    [
        (asked(top_k=4), "top_k"),
        (asked(n=2), "n"),
        (asked(foreign=["logit_bias"]), "logit_bias"),
        (asked(Message("user", [Text("read"), File(url="https://documents.test/a.pdf")])), "file"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name_or_dropped_with_a_report(conversation: Conversation, name: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        wire(conversation)
    assert caught.value.param == name
    body, dropped = wire(conversation, DROPPING_MODEL)
    assert dropped == (name,)
    assert name not in body
    assert "documents.test" not in json.dumps(body)


def test_top_k_for_a_vendor_that_takes_it() -> None:
    assert wire(asked(top_k=4), extensions=frozenset({"top_k"}))[0]["top_k"] == 4


def test_hints_are_never_refused() -> None:
    assert wire(asked(hints=["metadata", "cache_control"]))[1] == ("metadata", "cache_control")


def said(*parts: Part) -> Message:
    return Message("assistant", list(parts))


def test_a_thought_that_nobody_may_read_stays_behind_with_a_report() -> None:
    body, dropped = wire(asked(said(Reasoning("plain", "seal"), Reasoning(redacted="opaque"), Text("a"))))
    assert body["messages"][1] == {"role": "assistant", "content": "a", "reasoning_content": "plain"}
    assert dropped == ("thinking_blocks", "reasoning_content")


def test_a_vendor_that_refuses_keys_it_does_not_know() -> None:
    body, dropped = wire(asked(said(Reasoning("plain"), ToolUse("1", "f", signature="s"))), strict_messages=True)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert body["messages"][1] == {"role": "assistant", "content": None, "tool_calls": [call]}
    assert dropped == ("reasoning_content", "thought_signature")


def test_images_of_tool_results_follow_once_all_results_are_told() -> None:
    shot = Image(data="AAAA", media_type="image/png")
    results = (
        Message("tool", [ToolResult("1", [Text("see"), shot]), ToolResult("2", [shot], is_error=True)]),
        Message("tool", [ToolResult("3", [Text("one"), Text("two")])]),
        Message("user", [Text("and?")]),
    )
    body, _ = wire(asked(said(ToolUse("1", "f"), ToolUse("2", "f"), ToolUse("3", "f")), *results))
    told = body["messages"][2:]
    assert [message["role"] for message in told] == ["tool", "tool", "tool", "user", "user"]
    assert [message["content"] for message in told[:3]] == ["see", "The tool's result is shown in the next message.", "one\ntwo"]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert told[3]["content"] == [picture, picture]
    assert wire(asked(*results[:1]))[0]["messages"][-1]["content"] == [picture, picture]


def test_several_texts_are_one_string() -> None:
    conversation = Conversation([Message("system", [Text("a"), Text("b")]), said(Text("c"), Text("d"))])
    assert [message["content"] for message in wire(conversation)[0]["messages"]] == ["a\nb", "cd"]


def test_an_unnamed_schema_has_a_name_on_the_wire() -> None:
    body, _ = wire(asked(json_output=JsonOutput(msgspec.Raw(b'{"type":"object"}'))))
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}


WHOLE = {"id": "c", "model": "m", "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>", errors.ProviderNonsense),
        (b"", errors.ProviderNonsense),
        (b"[" * 5000, errors.ProviderNonsense),
        (json.dumps(WHOLE).encode().replace(b'"m"', b'"\xff"'), errors.ProviderNonsense),
        (b"{}", errors.ProviderNonsense),
        (b'{"choices": []}', errors.ProviderNonsense),
        (b'{"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]}', errors.ProviderNonsense),
        (b'{"choices": [{"message": {"content": "x"}}]}', errors.ProviderNonsense),
        (b'{"choices": [{"message": {"tool_calls": [{"function": {}}]}, "finish_reason": "stop"}]}', errors.ProviderNonsense),
        (b'{"choices": [{"message": {"content": "x"}, "finish_reason": "network_error"}]}', errors.ProviderFault),
        (b'{"error": {"message": "m", "code": 429}}', errors.ProviderLimited),
        (b'{"error": {"message": "m", "code": "insufficient_quota"}, "choices": []}', errors.ProviderRejectedOurKey),
    ],
)
def test_what_is_no_answer(body: bytes, error: type) -> None:
    with pytest.raises(errors.GatewayError) as caught:
        result_from_wire(body)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (b"{oops", errors.ProviderNonsense),
        (b"[]", errors.ProviderNonsense),
        (b"[" * 5000, errors.ProviderNonsense),
        (json.dumps(HELLO).encode().replace(b'"m"', b'"\xff"'), errors.ProviderNonsense),
        (b'{"result": "ok"}', errors.ProviderNonsense),
        (b'{"choices": [{"delta": {"content": 7}}]}', errors.ProviderNonsense),
        (b'{"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "a"}]}, "finish_reason": "stop"}]}', errors.ProviderNonsense),
        (b"[DONE]", errors.ProviderNonsense),
        (b'{"choices": [{"delta": {}, "finish_reason": "insufficient_system_resource"}]}', errors.ProviderFault),
        (b'{"error": {"message": "m", "type": "overloaded_error"}}', errors.ProviderFault),
        (b'{"choices": [], "error": {"message": "m", "code": 502}}', errors.ProviderFault),
        (b'{"object": "error", "message": "m", "code": 400}', errors.ProviderRefused),
        (b'{"error": {"message": "m", "code": "context_length_exceeded"}}', errors.ContextTooLong),
    ],
)
def test_what_is_no_part_of_a_stream(event: bytes, error: type) -> None:
    stream = OpenAIWireStream((KEY,))
    assert TextDelta("Hello") in stream.read(json.dumps(HELLO).encode())
    with pytest.raises(errors.GatewayError) as caught:
        stream.read(event)
    assert type(caught.value) is error
    assert not stream.done


def test_an_error_is_told_without_our_key() -> None:
    told = json.dumps({"error": {"message": f"key {KEY} is odd", "type": "invalid_request_error"}}).encode()
    with pytest.raises(errors.ProviderRefused, match=r"key \*\*\*\* is odd"):
        OpenAIWireStream((KEY,)).read(told)
    with pytest.raises(errors.ProviderRefused, match=r"key \*\*\*\* is odd"):
        result_from_wire(told, (KEY,))


def test_the_end_mark_is_not_needed_but_the_end_is() -> None:
    assert streamed(HELLO, END)
    with pytest.raises(errors.ProviderNonsense, match="in the middle"):
        streamed(HELLO)
    stream = OpenAIWireStream()
    for chunk in (HELLO, END):
        stream.read(json.dumps(chunk).encode())
    assert not stream.done
    assert stream.read(b" [DONE]") == []
    assert stream.done
