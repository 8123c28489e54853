"""Our own words as OpenAI's answers, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from core.conversation import (
    Reasoning,
    Text,
    ToolUse,
)
from core.events import Begun, Content, Ended, ReasoningDelta, RefusalDelta, Result, TextDelta, ToolBegun, ToolDelta
from core.usage import Usage
from gateway.doors import openai_chat, openai_writing
from providers.adapters.openai_wire import result_from_wire
from tests.e2e.schema import Schema
from tests.gateway.test_openai_reading import HI, read, request

# Answers ------------------------------------------------------------------------------------------------------------

USAGE = Usage(input=3, cached_input=4, cache_write=5, cache_write_1h=1, input_audio=2, output=6, reasoning=7, output_audio=1)
ANSWER = Result([Reasoning("hm"), Text("a"), Text("b")], Ended("stop", "end_turn"), "msg_1", "vendor-model", 7, usage=USAGE)


@pytest.fixture(autouse=True)
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_writing, "wall", lambda: 1_800_000_000.5)


def whole(result: Result) -> Any:
    return json.loads(openai_chat.whole(request({"model": "alias", "messages": [HI]}), result))


def test_a_whole_answer() -> None:
    assert whole(ANSWER) == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 7,
        "model": "vendor-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "ab", "refusal": None, "reasoning_content": "hm"},
                "logprobs": None,
                "finish_reason": "stop",
                "native_finish_reason": "end_turn",
            }
        ],
        "usage": {
            "prompt_tokens": 15,
            "completion_tokens": 14,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 6, "audio_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 7, "audio_tokens": 1},
        },
    }


def test_what_the_vendor_does_not_say_is_made_up() -> None:
    answer = whole(Result([Text("a")], Ended("stop")))
    assert answer["id"].startswith("chatcmpl-")
    assert answer["id"] != whole(Result([Text("a")], Ended("stop")))["id"]
    assert (answer["created"], answer["model"]) == (1_800_000_000, "alias")
    assert "usage" not in answer
    assert "native_finish_reason" not in answer["choices"][0]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Result([], Ended("stop")), {"content": "", "refusal": None}),
        (Result([], Ended("stop"), refusal="no"), {"content": None, "refusal": "no"}),
        (
            Result([ToolUse("1", "f", "{}", "seal")], Ended("tool_calls")),
            {
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}"},
                        "extra_content": {"google": {"thought_signature": "seal"}},
                    }
                ],
            },
        ),
        (
            Result([Reasoning("hm", "seal"), Reasoning(redacted="opaque"), Text("a")], Ended("stop")),
            {
                "content": "a",
                "refusal": None,
                "reasoning_content": "hm",
                "thinking_blocks": [
                    {"type": "thinking", "thinking": "hm", "signature": "seal"},
                    {"type": "redacted_thinking", "data": "opaque"},
                ],
            },
        ),
    ],
)
def test_messages(result: Result, message: dict[str, Any]) -> None:
    assert whole(result)["choices"][0]["message"] == {"role": "assistant", **message}


def streamed(wants_usage: bool, usage: Usage | None = USAGE, reason: str = "stop", native: str = "") -> list[Any]:
    asked = request({"model": "alias", "messages": [HI], "stream": True, "stream_options": {"include_usage": wants_usage}})
    writer = openai_chat.stream_writer(asked)
    body = writer.begin(Begun("msg_1", "vendor-model", 7))
    for event in (
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningDelta("", "seal"),
        ReasoningDelta(redacted="opaque"),
        TextDelta('"ä\u2028'),
        RefusalDelta("no"),
        ToolBegun(0, "1", "f", "seal"),
        ToolDelta(0, '{"a"'),
    ):
        body += writer.write(event)
    body += writer.end(Ended(reason, native), usage)
    assert writer.tail() == b"data: [DONE]\n\n"
    events = body.split(b"\n\n")
    assert events.pop() == b""
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


def test_the_chunks_of_a_stream() -> None:
    chunks = streamed(wants_usage=False)
    assert all({key: chunk[key] for key in chunk if key != "choices"} == HEAD for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "seal"}]},
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "opaque"}]},
        {"content": '"ä\u2028'},
        {"refusal": "no"},
        {"tool_calls": [CALL_BEGUN]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 9 + ["stop"]
    assert all(choice["index"] == 0 and choice["logprobs"] is None for choice in choices)


HEAD = {"id": "msg_1", "object": "chat.completion.chunk", "created": 7, "model": "vendor-model"}
CALL_BEGUN = {
    "index": 0,
    "id": "1",
    "type": "function",
    "function": {"name": "f", "arguments": ""},
    "extra_content": {"google": {"thought_signature": "seal"}},
}


def test_usage_for_a_client_that_asked() -> None:
    *chunks, last = streamed(wants_usage=True)
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
    assert last == {**HEAD, "choices": [], "usage": whole(ANSWER)["usage"]}
    assert all(chunk["choices"] for chunk in streamed(wants_usage=True, usage=None))


def test_the_vendors_own_word_for_the_end() -> None:
    assert streamed(False, reason="length", native="max_tokens")[-1]["choices"][0]["native_finish_reason"] == "max_tokens"
    assert "native_finish_reason" not in streamed(False, reason="length", native="length")[-1]["choices"][0]


@pytest.mark.parametrize("between", [TextDelta("a"), ToolBegun(0, "1", "f"), ReasoningDelta("", "other"), ReasoningDelta(redacted="x")])
def test_a_thought_that_something_followed_is_not_sealed_with_the_next(between: Content) -> None:
    writer = openai_chat.stream_writer(request({"model": "alias", "messages": [HI]}))
    writer.begin(Begun())
    for event in (ReasoningDelta("old"), between, ReasoningDelta("new")):
        writer.write(event)
    assert b'"thinking_blocks":[{"type":"thinking","thinking":"new","signature":"s"}]' in writer.write(ReasoningDelta("", "s"))
    assert writer.write(ReasoningDelta()) == b""


def test_openais_schema_and_sdk_take_what_is_written(shared_dir: Any) -> None:
    schema = Schema(shared_dir)
    for result in (ANSWER, Result([ToolUse("1", "f")], Ended("tool_calls"), refusal="no"), Result([], Ended("content_filter", "SAFETY"))):
        schema.check("CreateChatCompletionResponse", whole(result))
        ChatCompletion.model_validate(whole(result), strict=True)
    for chunk in streamed(wants_usage=True) + streamed(wants_usage=False):
        schema.check("CreateChatCompletionStreamResponse", chunk)
        ChatCompletionChunk.model_validate(chunk, strict=True)


words = st.text(min_size=1, max_size=12)
counts = st.integers(0, 10**6)


@settings(deadline=None)
@given(
    thoughts=st.lists(st.builds(Reasoning, words, words) | st.builds(Reasoning, redacted=words), max_size=3)
    | st.lists(st.builds(Reasoning, words), max_size=1),
    text=st.text(max_size=12),
    calls=st.lists(st.builds(ToolUse, words, words, st.text(max_size=12), st.text(max_size=3)), max_size=3),
    refusal=st.text(max_size=12),
    usage=st.none() | st.builds(Usage, counts, counts, counts, st.just(0), counts, counts, counts, counts, counts, counts),
)
def test_a_whole_answer_is_read_back(thoughts: list[Reasoning], text: str, calls: list[ToolUse], refusal: str, usage: Usage | None) -> None:
    said = [*thoughts, *([Text(text)] if text else []), *calls]
    result = Result(said, Ended("tool_calls" if calls else "stop", "native"), "id", "m", 7, refusal, usage)
    body = openai_chat.whole(request({"model": "alias", "messages": [HI]}), result)
    assert result_from_wire(body) == result


@settings(deadline=None)
@given(
    thoughts=st.lists(st.builds(Reasoning, words, words) | st.builds(Reasoning, redacted=words), max_size=3),
    text=st.text(max_size=12),
    calls=st.lists(st.builds(ToolUse, words, words, st.text(max_size=12), st.text(max_size=3)), max_size=3),
)
def test_an_answer_survives_into_the_next_turn(thoughts: list[Reasoning], text: str, calls: list[ToolUse]) -> None:
    said: list[Any] = [*thoughts, *([Text(text)] if text else []), *calls]
    message = whole(Result(said, Ended("stop")))["choices"][0]["message"]
    again = read(HI, message)
    assert again.messages[1].parts == said
    assert (again.foreign, again.hints) == ([], [])
