"""A whole answer and the stream that tells it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.conversation import Reasoning, Text, ToolUse
from core.events import (
    Begun,
    ChatEvent,
    Counted,
    Ended,
    ReasoningDelta,
    RefusalDelta,
    Result,
    TextDelta,
    ToolBegun,
    ToolDelta,
    gathered,
    said_bytes,
    told,
)
from core.usage import Usage

END = Ended("stop", "end_turn", "\n")


def test_pieces_are_put_together_in_the_order_of_their_parts() -> None:
    events: list[ChatEvent] = [
        Begun("id", "m", 7),
        ReasoningDelta("h"),
        ReasoningDelta("m", signature="seal"),
        ReasoningDelta("new"),
        ReasoningDelta(redacted="opaque"),
        TextDelta("a"),
        TextDelta("b"),
        ToolBegun(0, "1", "f", "s"),
        ToolDelta(0, "{"),
        ToolBegun(1, "2", "g"),
        ToolDelta(1, "[]"),
        ToolDelta(0, "}"),
        RefusalDelta("n"),
        RefusalDelta("o"),
        TextDelta("c"),
        Counted(Usage(input=9)),
        END,
        Counted(Usage(input=1)),
    ]
    parts = [
        Reasoning("hm", "seal"),
        Reasoning("new"),
        Reasoning(redacted="opaque"),
        Text("ab"),
        ToolUse("1", "f", "{}", "s"),
        ToolUse("2", "g", "[]"),
        Text("c"),
    ]
    assert gathered(events) == Result(parts, END, "id", "m", 7, "no", Usage(input=1))


def test_a_stream_without_an_end_is_no_answer() -> None:
    with pytest.raises(ValueError, match="no end"):
        gathered([Begun(), TextDelta("a")])


def test_empty_pieces_make_no_part() -> None:
    assert gathered([TextDelta(""), ReasoningDelta(""), TextDelta("a"), ReasoningDelta(""), TextDelta("b"), END]).parts == [Text("ab")]


def test_gathering_twice_gives_the_same() -> None:
    events = [TextDelta("a"), TextDelta("b"), ToolBegun(0, "1", "f"), ToolDelta(0, "{}"), END]
    assert gathered(events) == gathered(events)


words = st.text(min_size=1, max_size=8)


@settings(deadline=None)
@given(
    texts=st.lists(words, max_size=4),
    calls=st.lists(st.builds(ToolUse, words, words, st.text(max_size=8), st.text(max_size=3)), max_size=3),
    seals=st.lists(words, max_size=3),
    refusal=st.text(max_size=5),
    usage=st.builds(Usage, input=st.integers(0, 99)) | st.none(),
)
def test_a_result_that_is_told_is_gathered_again(
    texts: list[str], calls: list[ToolUse], seals: list[str], refusal: str, usage: Usage | None
) -> None:
    parts = [Reasoning(seal, seal) for seal in seals] + [part for text in texts for part in (Text(text), Reasoning(redacted=text))] + calls
    result = Result(list(parts), END, "id", "m", 7, refusal, usage)
    assert gathered(told(result)) == result


@settings(deadline=None)
@given(pieces=st.lists(st.builds(TextDelta, words) | st.builds(ReasoningDelta, words) | st.builds(RefusalDelta, words), max_size=6))
def test_a_stream_says_as_much_as_its_result(pieces: list[ChatEvent]) -> None:
    call = [ToolBegun(0, "1", "tööl"), ToolDelta(0, '{"å":1}')]
    said = sum(map(said_bytes, [*pieces, *call]))  # type: ignore[arg-type]
    assert gathered([*pieces, *call, END]).output_bytes == said


def test_bytes_are_those_of_utf_8() -> None:
    assert [said_bytes(event) for event in (TextDelta("a你"), ToolBegun(0, "id", "ö"), ToolDelta(0, "{}"), ReasoningDelta("", "seal"))] == [
        4,
        2,
        2,
        0,
    ]
