"""What the WebSocket door reads of an adapter's pieces: every wire's, those that pass through untouched included."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.conversation import Reasoning, Text, ToolUse
from core.events import Begun, Ended, Result, told
from core.usage import Usage
from gateway.doors import openai_chat
from gateway.doors.ws import _chunks_of
from providers.adapters.openai_stream import OpenAIStreamReader

CHOICE: dict[str, Any] = {"index": 0, "delta": {"content": "hi"}, "finish_reason": None}


@pytest.mark.parametrize(
    "strange",
    [
        {"model": None},
        {"usage": []},
        {"usage": "none"},
        {"model": 3},
        {"choices": [{**CHOICE, "finish_reason": None, "index": 0, "logprobs": {}}]},
    ],
)
def test_what_the_strict_reader_passes_can_be_read(strange: dict[str, Any]) -> None:
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [CHOICE], **strange}
    piece = OpenAIStreamReader(wants_usage=True).feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    (read,) = _chunks_of(piece)
    assert read.choices[0].delta == {"content": "hi"}


def test_a_translated_stream_can_be_read() -> None:
    request = openai_chat.parse(b'{"model":"alias","messages":[{"role":"user","content":"x"}]}', force_stream=True)
    writer = openai_chat.stream_writer(request)
    result = Result(
        [Reasoning("hm", "seal"), Text("a\u2028b"), ToolUse("c", "f", "{}", "s")], Ended("tool_calls"), usage=Usage(1, output=2)
    )
    begun, *said = told(result)
    assert isinstance(begun, Begun)
    pieces = writer.begin(begun) + b"".join(writer.write(event) for event in said[:-2]) + writer.end(result.ended, result.usage)  # type: ignore[arg-type]
    chunks = _chunks_of(pieces)
    assert "".join(choice.delta.get("content") or "" for chunk in chunks for choice in chunk.choices) == "a\u2028b"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["tool_calls"]
    assert chunks[-1].usage is not None
