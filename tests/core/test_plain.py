"""The product's own dialect: what a caller inside gets back is what the vendor's answer said."""

from __future__ import annotations

import pytest

from core.conversation import Conversation, Message, Reasoning, Text, ToolUse
from core.errors import InvalidRequest
from core.events import Begun, ChatEvent, Counted, Ended, Result, told
from core.plain import PLAIN, plain_request, result_of, result_of_stream
from core.usage import Usage

CONVERSATION = Conversation([Message("user", [Text("Hi")])], max_output_tokens=5)
RESULT = Result(
    [Reasoning("hm", "seal"), Text("two\nlines\u2028"), ToolUse("1", "f", '{"a":1}')],
    Ended("tool_calls", "tool_use"),
    "id",
    "m",
    7,
    usage=Usage(input=3, reasoning=4),
)


def test_a_request_carries_its_conversation() -> None:
    request = plain_request("alias", CONVERSATION, stream=True)
    assert request.conversation() is CONVERSATION
    assert (request.model, request.stream, request.max_output_tokens) == ("alias", True, 5)
    assert request.body_bytes > len("Hi")


def test_a_body_is_no_conversation() -> None:
    with pytest.raises(InvalidRequest):
        PLAIN.conversation({})


def test_a_whole_answer_comes_back() -> None:
    assert result_of(PLAIN.whole(plain_request("m", CONVERSATION, stream=False), RESULT)) == RESULT


def written(events: list[ChatEvent]) -> bytes:
    writer, body, usage = PLAIN.stream_writer(plain_request("m", CONVERSATION, stream=True)), b"", None
    for event in events:
        match event:
            case Begun():
                body += writer.begin(event)
            case Counted():
                usage = event.usage
            case Ended():
                body += writer.end(event, usage)
            case _:
                body += writer.write(event)
    return body + writer.tail()


def test_a_streamed_answer_comes_back() -> None:
    assert result_of_stream(written(told(RESULT))) == RESULT
    assert result_of_stream(written([Ended("stop")])) == Result([], Ended("stop"))


def test_a_stream_cut_short_is_no_answer() -> None:
    with pytest.raises(ValueError, match="no end"):
        result_of_stream(written(told(RESULT)[:-1]))
