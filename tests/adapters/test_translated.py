"""Events between a wire and a client's dialect: what the reader writes, keeps, and salvages; what is left over."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import errors
from core.config import ModelSpec
from core.conversation import Conversation, Reasoning, Text, ToolUse
from core.events import (
    Begun,
    ChatEvent,
    Counted,
    Ended,
    ReasoningDelta,
    Result,
    TextDelta,
    ToolBegun,
    ToolDelta,
    gathered,
    told,
)
from core.plain import plain_request, result_of, result_of_stream
from core.usage import Usage
from gateway.doors.openai_writing import stream_writer
from providers.adapters.openai_wire import OpenAIWireStream
from providers.adapters.sse import SseDecoder, frame
from providers.adapters.translated import Leftovers, TranslatedReader, translated_answer
from tests.adapters import cast

DONE = b"[DONE]"
END = Ended("stop", "end")


class Wire:
    """A wire whose events are numbers: places in a script of what they say. An exception in it is raised."""

    def __init__(self, script: list[list[ChatEvent | Exception]]) -> None:
        self.done = False
        self.script = script
        self.whole = True

    def read(self, event: bytes) -> Iterator[ChatEvent]:
        if event == DONE:
            self.done = True
            return
        for said in self.script[int(event)]:
            if isinstance(said, Exception):
                raise said
            yield said

    def finish(self) -> None:
        if not self.whole:
            raise errors.ProviderNonsense("The provider's stream ended in the middle of the answer.")


def reader(*script: list[ChatEvent | Exception]) -> TranslatedReader:
    return TranslatedReader(Wire(list(script)), plain_request("m", Conversation([]), stream=True))


def fed(*events: object) -> bytes:
    return b"".join(frame(event if isinstance(event, bytes) else str(event).encode()) for event in events)


def lines(body: bytes) -> list[Any]:
    return [json.loads(line) for line in body.splitlines()]


def test_events_come_out_in_the_clients_dialect_and_their_facts_are_kept() -> None:
    it = reader(
        [Begun("id", "vendor-model", 7), TextDelta("")],
        [TextDelta("a"), ReasoningDelta("ä"), ToolBegun(0, "call", "tool"), ToolDelta(0, "{}")],
        [Counted(Usage(input=1)), END, Counted(Usage(input=2, output=3))],
    )
    out = it.feed(fed(0))
    assert (it.content_started, it.output_bytes) == (False, 0)
    out += it.feed(fed(1))
    assert (it.content_started, it.output_bytes) == (True, 1 + 2 + 4 + 2)
    out += it.feed(fed(2))
    assert (it.usage, it.finish_reason, it.done) == (Usage(input=2, output=3), "stop", False)
    out += it.feed(fed(DONE))
    assert it.done
    assert result_of_stream(out) == Result(
        [Text("a"), Reasoning("ä"), ToolUse("call", "tool", "{}")], END, "id", "vendor-model", 7, usage=Usage(input=2, output=3)
    )


def test_the_tail_is_kept_back_until_the_books_are_settled() -> None:
    it = TranslatedReader(Wire([[TextDelta("a"), END]]), cast.request())
    body = it.feed(fed(0, DONE))
    assert b"[DONE]" not in body
    assert it.tail == b"data: [DONE]\n\n"


def test_nothing_after_the_end_mark_is_told() -> None:
    it = reader([TextDelta("a"), END], [TextDelta("b")])
    body = it.feed(fed(0, DONE, 1))
    assert it.feed(fed(1)) == b""
    assert result_of_stream(body).parts == [Text("a")]
    assert it.output_bytes == 1


def test_a_second_beginning_is_not_told() -> None:
    it = reader([Begun("one"), Begun("two"), TextDelta("a")])
    assert [line["type"] for line in lines(it.feed(fed(0)))] == ["begun", "text"]


@pytest.mark.parametrize("script", [[TextDelta("a"), END], [END]])
def test_a_stream_that_does_not_say_how_it_begins_begins_empty(script: list[ChatEvent | Exception]) -> None:
    it = reader(script)
    assert lines(it.feed(fed(0)) + it.finish())[0] == {"type": "begun", "id": "", "model": "", "created": 0}


def test_an_end_without_an_end_mark() -> None:
    it = reader([TextDelta("a")], [END])
    out = it.feed(fed(0, 1))
    assert [line["type"] for line in lines(out)] == ["begun", "text"]
    assert [line["type"] for line in lines(it.finish())] == ["ended"]
    assert it.done


def test_a_stream_that_is_not_whole() -> None:
    it = reader([TextDelta("a")])
    it.feed(fed(0))
    it._wire.whole = False  # type: ignore[attr-defined]
    with pytest.raises(errors.ProviderNonsense):
        it.finish()
    assert not it.done
    assert it.tail == b""


def test_what_came_before_a_bad_event_is_salvaged_even_of_the_same_event() -> None:
    it = reader([TextDelta("a")], [TextDelta("b"), errors.ProviderFault("broke")], [TextDelta("c")])
    with pytest.raises(errors.ProviderFault):
        it.feed(fed(0, 1, 2))
    assert [line.get("text") for line in lines(it.salvaged)] == [None, "a", "b"]
    assert it.output_bytes == 2


def test_only_the_read_that_fails_is_salvaged() -> None:
    it = reader([TextDelta("a")], [errors.ProviderFault("broke")])
    it.feed(fed(0))
    with pytest.raises(errors.ProviderFault):
        it.feed(fed(1))
    assert it.salvaged == b""


def test_an_event_over_the_limit_keeps_what_came_before() -> None:
    it = reader([TextDelta("a")])
    with pytest.raises(errors.ProviderNonsense, match="longer than 1048576 bytes"):
        it.feed(fed(0) + b"data: " + b"x" * 2**20)
    assert [line["type"] for line in lines(it.salvaged)] == ["begun", "text"]


def test_a_bad_event_before_one_over_the_limit_is_what_is_told() -> None:
    it = reader([TextDelta("a")], [errors.ProviderFault("broke")])
    with pytest.raises(errors.ProviderFault):
        it.feed(fed(0, 1) + b"data: " + b"x" * 2**20)
    assert [line["type"] for line in lines(it.salvaged)] == ["begun", "text"]


def test_a_whole_answer_with_its_facts() -> None:
    result = Result([Text("ä")], END, "id", usage=Usage(output=1))
    answer = translated_answer(plain_request("m", Conversation([]), stream=False), result)
    assert (answer.usage, answer.finish_reason, answer.output_bytes) == (Usage(output=1), "stop", 2)
    assert result_of(answer.body) == result


STRICT = ModelSpec("model-1", "alias", "vendor-model", "provider-1")


def test_leftovers_are_refused_by_name() -> None:
    for leave in (
        lambda: Leftovers(Conversation([], foreign=["logit_bias"]), STRICT, "Vendor"),
        lambda: Leftovers(Conversation([]), STRICT, "Vendor").refuse("logit_bias"),
    ):
        with pytest.raises(errors.InvalidRequest, match="'logit_bias' cannot be carried to Vendor") as caught:
            leave()
        assert caught.value.param == "logit_bias"


def test_leftovers_are_dropped_once_each_where_the_model_says_so() -> None:
    conversation = Conversation([], foreign=["logit_bias"], hints=["metadata"])
    leftovers = Leftovers(conversation, msgspec.structs.replace(STRICT, drop_params=True), "Vendor")
    leftovers.refuse("top_k")
    leftovers.refuse("logit_bias")
    leftovers.drop("metadata")
    assert leftovers.names == ("logit_bias", "metadata", "top_k")


def test_hints_are_dropped_even_where_the_rest_is_refused() -> None:
    assert Leftovers(Conversation([], hints=["metadata"]), STRICT, "Vendor").names == ("metadata",)


# What OpenAI's writer tells and its wire reads ----------------------------------------------------------------------

words = st.text(min_size=1, max_size=12)
thoughts = st.builds(Reasoning, words, st.just("") | words) | st.builds(Reasoning, redacted=words)
calls = st.builds(ToolUse, words, words, st.text(max_size=12), st.just("") | words)
counts = st.integers(0, 10**6)
usages = st.builds(
    Usage,
    input=counts,
    cached_input=counts,
    cache_write=counts,
    input_audio=counts,
    input_image=counts,
    output=counts,
    reasoning=counts,
    output_audio=counts,
    output_image=counts,
)


@st.composite
def results(draw: st.DrawFn) -> Result:
    parts = draw(st.lists(st.builds(Text, words) | thoughts | calls, max_size=6))
    ordinary = "tool_calls" if any(isinstance(part, ToolUse) for part in parts) else "stop"
    reason = draw(st.sampled_from([ordinary, "length", "content_filter"]))
    ended = Ended(reason, draw(st.just(reason) | words))
    return Result(parts, ended, draw(words), draw(words), draw(st.integers(1, 2**40)), draw(st.text(max_size=12)), draw(usages | st.none()))


@st.composite
def streams(draw: st.DrawFn) -> list[ChatEvent]:
    """A result told in pieces of random size."""
    events: list[ChatEvent] = []
    for event in told(draw(results())):
        field = "arguments" if isinstance(event, ToolDelta) else "text"
        text = getattr(event, field, "")
        if isinstance(event, (TextDelta, ReasoningDelta, ToolDelta)) and len(text) > 1 and not getattr(event, "redacted", ""):
            cut = draw(st.integers(1, len(text) - 1))
            first = (
                ReasoningDelta(text[:cut]) if isinstance(event, ReasoningDelta) else msgspec.structs.replace(event, **{field: text[:cut]})
            )
            events.append(first)
            event = msgspec.structs.replace(event, **{field: text[cut:]})
        events.append(event)
    return events


def written(events: list[ChatEvent]) -> bytes:
    writer = stream_writer(cast.request(wants_usage=True))
    usage, body = None, b""
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


@settings(deadline=None)
@given(events=streams(), cuts=st.lists(st.integers(0, 4000), max_size=12))
def test_a_stream_told_to_a_client_of_openai_is_read_back_whatever_its_cuts(events: list[ChatEvent], cuts: list[int]) -> None:
    body = written(events)
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    sse, wire, read = SseDecoder(), OpenAIWireStream(), []
    for start, stop in itertools.pairwise(places):
        for event in sse.feed(body[start:stop]):
            read += wire.read(event)
    assert wire.done
    assert gathered(read) == gathered(events)
