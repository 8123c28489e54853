"""Answers that are broken, on every wire, told to a client of every dialect.

A broken answer is one of our typed errors, or it turned out whole all the same; never another exception, never a success that
says nothing, never anything after an error. The samples beside this file are the same small answer on each wire.
"""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core import errors
from core.usage import Usage
from providers.adapters.registry import adapter_for
from providers.adapters.sse import MAX_EVENT_BYTES
from tests.adapters.cast import provider
from tests.wire.clients_cast import FINISHES, Told, asked, told_in_stream, told_whole

SAMPLES = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "faults").glob("*.json")}
# (kind of provider, the wire it answers in, the client's dialect); where the last two agree, bytes pass through.
WAYS = [
    *(("openai_compatible", "openai", dialect) for dialect in ("openai", "anthropic", "responses")),
    *(("azure", "openai", dialect) for dialect in ("openai", "anthropic")),
    ("openai", "responses", "responses"),
    *((kind, kind, dialect) for kind in ("anthropic", "gemini", "dashscope") for dialect in ("openai", "anthropic", "responses")),
]
NO_END_MARK = ("gemini", "dashscope")  # these wires are at their end where the vendor closes


def ways(*without: str) -> pytest.MarkDecorator:
    """A test for each way whose wire is not among `without`."""
    return pytest.mark.parametrize(
        "way", [pytest.param(way, id=f"{way[0]} to a client of {way[2]}") for way in WAYS if way[1] not in without]
    )


every_way = ways()
FACTS = ("Héllo", "hm", [["f", {"a": 1}]])
DEEP = "\N{PILE OF POO}"  # stands in for what no Python object can hold
NESTED = b"[" * 5000 + b"]" * 5000
VALUES: dict[str, Any] = {
    "null": None, "list": [], "object": {}, "text": "x", "empty text": "", "true": True,
    "-1": -1, "1e300": 1e300, "2**80": 2**80, "deep": DEEP,
}  # fmt: skip


def adapter_of(way: tuple[str, str, str]) -> Any:
    return adapter_for(provider(way[0], "https://vendor.test"))


def written(content: Any) -> bytes:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.encode().replace(json.dumps(DEEP, ensure_ascii=False).encode(), NESTED)


def framed(events: list[Any]) -> list[bytes]:
    return [b"data: " + written(event) + b"\n\n" for event in events]


def whole(way: tuple[str, str, str], body: bytes) -> Told:
    """What the client hears of a whole answer. Raises as the adapter does."""
    return told_whole(way[2], adapter_of(way).read_answer(body, asked(way[2])).body)


class Stream:
    """One stream on its way to a client."""

    def __init__(self, way: tuple[str, str, str]) -> None:
        self.dialect = way[2]
        self.reader = adapter_of(way).stream_reader(asked(way[2], stream=True))
        self.given = b""

    def feed(self, data: bytes) -> None:
        """Raises as the reader does. What was whole before is given."""
        try:
            self.given += self.reader.feed(data)
        except errors.GatewayError:
            self.given += self.reader.salvaged
            raise

    def feed_again(self, data: bytes, times: int) -> None:
        for _ in range(times):
            self.feed(data)

    def end(self) -> Told:
        """The vendor closes. Raises as the reader does."""
        if not self.reader.done:
            self.given += self.reader.finish()
        return told_in_stream(self.dialect, self.given + self.reader.tail)

    def run(self, events: list[Any]) -> Told:
        """From the first event to the end. Raises as the reader does."""
        self.feed(b"".join(framed(events)))
        return self.end()

    @property
    def so_far(self) -> Told:
        return told_in_stream(self.dialect, self.given)


def streamed(way: tuple[str, str, str], body: bytes) -> Told:
    stream = Stream(way)
    stream.feed(body)
    return stream.end()


def facts_of(told: Told) -> tuple[Any, ...]:
    return told.text, told.thought, [[name, json.loads(arguments)] for _, name, arguments in told.calls]


@every_way
def test_the_samples_are_whole(way: tuple[str, str, str]) -> None:
    """And tell the same on every wire, whole, streamed, and streamed byte by byte."""
    sample = SAMPLES[way[1]]
    heard = whole(way, written(sample["whole"]))
    assert facts_of(heard) == FACTS
    assert heard.finish in FINISHES[way[2]]
    body = b"".join(framed(sample["events"]))
    once, stream = streamed(way, body), Stream(way)
    for byte in body:
        stream.feed(bytes([byte]))
    bytewise = stream.end()
    for told in (once, bytewise):
        assert facts_of(told) == FACTS
        assert (told.finish, told.end) == (heard.finish, True)
        assert told.usage


HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
NO_ANSWERS = {
    "nothing": b"", "blank lines": b"\n\n \n", "a page": HTML, "text": b"upstream connect error", "null": b"null", "a list": b"[]",
    "a number": b"7", "a text": b'"ok"', "an empty object": b"{}", "another shape": b'{"result":"ok","status":"success"}',
    "two answers": b"{}{}", "too deep": NESTED, "too deep inside": b'{"choices":' + NESTED + b"}", "no UTF-8": b'{"id":"\xff"}',
    "UTF-16": '{"id":"x"}'.encode("utf-16"), "a NUL": b"\x00", "half of JSON": b'{"id":"x","choices":[{"ind',
}  # fmt: skip


@every_way
@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_is_nonsense(way: tuple[str, str, str], name: str) -> None:
    """With status 200, as the body, as the one event of a stream, as a stream without any event, and in the middle of one."""
    body = NO_ANSWERS[name]
    with pytest.raises(errors.ProviderNonsense):
        whole(way, body)
    with pytest.raises(errors.ProviderNonsense):
        streamed(way, body)
    with pytest.raises(errors.ProviderNonsense):
        streamed(way, b"data: " + body.strip() + b"\n\n")
    if body.strip():
        stream = Stream(way)
        events = framed(SAMPLES[way[1]]["events"])
        stream.feed(b"".join(events[:-2]))
        before = stream.given
        with pytest.raises(errors.ProviderNonsense):
            stream.feed(b"data: " + body.strip() + b"\n\n")
        assert stream.given == before


@every_way
def test_an_answer_cut_at_any_byte_is_nonsense(way: tuple[str, str, str]) -> None:
    body = written(SAMPLES[way[1]]["whole"])
    for end in range(len(body)):
        with pytest.raises(errors.ProviderNonsense):
            whole(way, body[:end])


@every_way
def test_a_byte_that_is_no_utf8_is_never_passed_on(way: tuple[str, str, str]) -> None:
    """Wherever it stands, in a text or in something that nobody reads."""
    body = written({**SAMPLES[way[1]]["whole"], "unread": {"x": ["y"]}})
    for place in range(len(body)):
        with pytest.raises(errors.ProviderNonsense):
            whole(way, body[:place] + b"\xff" + body[place + 1 :])
    for position, event in enumerate(events := framed(SAMPLES[way[1]]["events"])):
        for place in range(len(b"data: "), len(event) - 2, 3):
            with pytest.raises(errors.ProviderNonsense):
                streamed(way, b"".join(events[:position]) + event[:place] + b"\xff" + event[place + 1 :])


@every_way
def test_a_stream_cut_at_any_byte_never_ends_well_too_early(way: tuple[str, str, str]) -> None:
    """It is whole once the event that says so is; the end mark stays in `tail` until then, and an end that fails tells nothing more."""
    sample = SAMPLES[way[1]]
    events = framed(sample["events"])
    body = b"".join(events)
    whole_at = sum(map(len, events[: sample["whole_after"] + 1]))
    said = ("", "")
    for end in range(len(body)):
        stream = Stream(way)
        stream.feed(body[:end])
        assert not stream.so_far.end
        told = stream.so_far
        assert FACTS[0].startswith(told.text)
        assert FACTS[1].startswith(told.thought)
        assert (len(told.text), len(told.thought)) >= (len(said[0]), len(said[1]))
        said = (told.text, told.thought)
        if end < whole_at:
            assert not stream.reader.done
            given = stream.given
            with pytest.raises(errors.ProviderNonsense, match="ended in the middle"):
                stream.end()
            assert stream.given == given
        else:
            ended = stream.end()
            assert ended.end
            assert facts_of(ended) == FACTS


@ways(*NO_END_MARK)
def test_what_follows_the_end_is_not_passed_on(way: tuple[str, str, str]) -> None:
    """In the same read and in the next."""
    sample = SAMPLES[way[1]]
    body = b"".join(framed(sample["events"]))
    late = b"".join(framed([*sample["events"][:3], sample["error"]["event"], "not JSON"]))
    stream = Stream(way)
    stream.feed(body + late)
    assert stream.reader.done
    given = stream.given
    for _ in range(2):
        stream.feed(late)
    assert stream.given == given
    assert facts_of(stream.end()) == FACTS


@every_way
def test_an_error_event_is_the_typed_error_wherever_it_comes(way: tuple[str, str, str]) -> None:
    """What came before it is given, and not its end."""
    sample = SAMPLES[way[1]]
    events = framed(sample["events"])
    (error,) = framed([sample["error"]["event"]])
    last = len(events) if way[1] in NO_END_MARK else len(events) - 1
    for position in range(last + 1):
        for in_one_read in (False, True):
            stream, before = Stream(way), Stream(way)
            before.feed(b"".join(events[:position]))
            if not in_one_read:
                stream.feed(b"".join(events[:position]))
            with pytest.raises(errors.GatewayError) as caught:
                stream.feed(b"".join([*events[:position], error, *events[position:]]) if in_one_read else error)
            assert type(caught.value).__name__ == sample["error"]["is"]
            assert stream.so_far.facts == before.so_far.facts
            assert not stream.so_far.end
            assert not stream.reader.done


@every_way
def test_an_error_in_place_of_an_answer_is_the_typed_error(way: tuple[str, str, str]) -> None:
    sample = SAMPLES[way[1]]
    error = sample["error"]["event"]
    body = {"error": error} if way[1] == "responses" else error
    with pytest.raises(errors.GatewayError) as caught:
        whole(way, written(body))
    assert type(caught.value).__name__ == sample["error"]["is"]


@every_way
@pytest.mark.parametrize("in_lines", [False, True], ids=["one line", "many lines"])
def test_an_event_over_the_limit_is_refused_before_it_piles_up(way: tuple[str, str, str], in_lines: bool) -> None:
    events = framed(SAMPLES[way[1]]["events"])
    stream = Stream(way)
    piece = (b"data: " + b"x" * 1000 + b"\n") * 64 if in_lines else b"x" * 2**16
    tracemalloc.start()
    try:
        stream.feed(b"".join(events[:-2]) + b"data: ")
        given = stream.given
        with pytest.raises(errors.ProviderNonsense, match="longer than"):
            stream.feed_again(piece, 64 * MAX_EVENT_BYTES // len(piece))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stream.given == given
    assert peak < 6 * MAX_EVENT_BYTES


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside, the content itself included."""
    yield path
    for key, value in content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ():
        yield from places(value, (*path, key))


def put(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of `content` with another value there."""
    if not path:
        return value
    changed = copy.deepcopy(content)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return changed


def without(content: Any, path: tuple[Any, ...]) -> Any:
    changed = put(content, path, None)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    del holder[path[-1]]
    return changed


def mutants(content: Any) -> Iterator[tuple[str, Any]]:
    """Every value in turn replaced by each that it is not meant to be, and left out."""
    for path in places(content):
        for name, value in VALUES.items():
            yield f"{path} = {name}", put(content, path, value)
        if path:
            yield f"without {path}", without(content, path)


@every_way
def test_a_whole_answer_of_any_wrong_shape_is_an_error_or_whole(way: tuple[str, str, str]) -> None:
    refused = 0
    for name, mutant in mutants(SAMPLES[way[1]]["whole"]):
        try:
            told = whole(way, written(mutant))
        except errors.GatewayError:
            refused += 1
            continue
        except Exception as exc:
            raise AssertionError(name) from exc
        # Gemini does end answers without a word: its models are known for it, and its own word for the end is there.
        assert not told.says_nothing or way[1] == "gemini", name
    assert refused > 50


@every_way
def test_a_stream_of_any_wrong_shape_is_an_error_or_whole(way: tuple[str, str, str]) -> None:
    refused = 0
    for position, event in enumerate(events := SAMPLES[way[1]]["events"]):
        if isinstance(event, str):
            continue
        head, tail = b"".join(framed(events[:position])), b"".join(framed(events[position + 1 :]))
        for name, mutant in mutants(event):
            stream = Stream(way)
            try:
                stream.feed(head + framed([mutant])[0] + tail)
                told = stream.end()
            except errors.GatewayError:
                refused += 1
                assert not stream.so_far.end
                continue
            except Exception as exc:
                raise AssertionError(f"event {position}: {name}") from exc
            assert told.end, (position, name)
            assert told.finish, (position, name)
            assert all(function for _, function, _ in told.calls), (position, name)
            assert not told.says_nothing, (position, name)
    assert refused > 50


@ways("gemini", "responses")
def test_an_end_that_promises_calls_where_nothing_was_said_is_nonsense(way: tuple[str, str, str]) -> None:
    """The calls were lost on the way: a client would wait for them in vain."""
    events = SAMPLES[way[1]]["events"]
    end = {"openai": events[-3:], "anthropic": events[-2:], "dashscope": events[-1:]}[way[1]]
    stream = Stream(way)
    with pytest.raises(errors.ProviderNonsense, match="holds nothing"):
        stream.run([*(events[:1] if way[1] != "dashscope" else []), *end])
    assert not stream.so_far.end
    empty = {"openai": ("choices", 0, "message"), "anthropic": ("content",), "dashscope": ("output", "choices", 0, "message")}[way[1]]
    with pytest.raises(errors.ProviderNonsense, match="holds nothing"):
        whole(way, written(put(SAMPLES[way[1]]["whole"], empty, [] if way[1] == "anthropic" else {})))


@ways("gemini", "responses", "anthropic")
@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls"])
def test_an_answer_without_a_message_is_none_whatever_it_says_of_its_end(way: tuple[str, str, str], finish: str) -> None:
    choice = ("choices", 0) if way[1] == "openai" else ("output", "choices", 0)
    ended = put(SAMPLES[way[1]]["whole"], (*choice, "finish_reason"), finish)
    for body in (put(ended, (*choice, "message"), None), without(ended, (*choice, "message"))):
        with pytest.raises(errors.ProviderNonsense):
            whole(way, written(body))


@ways("gemini", "dashscope", "anthropic", "responses")
def test_a_call_without_a_name_is_none(way: tuple[str, str, str]) -> None:
    """Whole or streamed; a call of another type has its name elsewhere and passes to clients of the same dialect."""
    events = SAMPLES["openai"]["events"]
    stream = Stream(way)
    with pytest.raises(errors.ProviderNonsense, match="without naming it"):
        stream.run([*events[:4], *events[5:]])
    assert not stream.so_far.end
    with pytest.raises(errors.ProviderNonsense, match="without naming it"):
        whole(way, written(put(SAMPLES["openai"]["whole"], ("choices", 0, "message", "tool_calls", 0, "function"), {"arguments": "{}"})))


def test_a_custom_call_passes_as_it_is() -> None:
    call = {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    events = put(SAMPLES["openai"]["events"][:5] + SAMPLES["openai"]["events"][6:], (4, "choices", 0, "delta", "tool_calls", 0), call)
    reader = adapter_of(WAYS[0]).stream_reader(asked("openai", stream=True))
    assert written(call) in reader.feed(b"".join(framed(events)))
    assert reader.done


ABSURD = {
    "negative": -1,
    "absurd": 10**12,
    "beyond 64 bits": 2**80,
    "a fraction": 1.5,
    "1e300": 1e300,
    "a text": "7",
    "true": True,
    "null": None,
}


def counts(content: Any) -> Iterator[tuple[Any, ...]]:
    """The paths of the token counts."""
    for path in places(content):
        if any(str(step).startswith("usage") for step in path) and type(at(content, path)) is int:
            yield path


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        content = content[step]
    return content


def makes_sense(usage: Usage | None) -> bool:
    """What is told twice over may be told twice over, and no more."""
    if usage is None:
        return True
    numbers = [value for name, value in msgspec.structs.asdict(usage).items() if name not in ("estimated", "service_tier", "refused")]
    return all(type(number) is int and 0 <= number <= 10 for number in numbers)


@every_way
@pytest.mark.parametrize("name", ABSURD)
def test_counts_that_make_no_sense_are_none_and_break_no_answer(way: tuple[str, str, str], name: str) -> None:
    sample = SAMPLES[way[1]]
    adapter = adapter_of(way)
    for path in counts(sample["whole"]):
        body = written(put(sample["whole"], path, ABSURD[name]))
        answer = adapter.read_answer(body, asked(way[2]))
        assert makes_sense(answer.usage), path
        assert answer.usage is not None or answer.refused_counts, path
        assert facts_of(told_whole(way[2], answer.body)) == FACTS
    for path in counts(sample["events"]):
        stream = Stream(way)
        stream.feed(b"".join(framed(put(sample["events"], path, ABSURD[name]))))
        assert facts_of(stream.end()) == FACTS
        assert makes_sense(stream.reader.usage), path
        assert stream.reader.usage is not None or stream.reader.refused_counts, path
