"""The progress of streams is noted at intervals, where there is any."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from core.clock import FrozenClock
from core.errors import AccountingUnavailable
from gateway.progress import ProgressNotes
from monitoring import metrics
from tests.gateway.scripted import ANSWER, Bench, Stream
from tests.monitoring.records import settled


class Timer:
    def __init__(self) -> None:
        self.delays: list[float] = []
        self._due: list[Callable[[], None]] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.delays.append(delay_s)
        self._due.append(callback)

    def ring(self) -> None:
        self._due.pop()()

    @property
    def runs(self) -> bool:
        return bool(self._due)


class Destination:
    def __init__(self) -> None:
        self.written: list[dict[str, int]] = []
        self.full = False
        self.takes_s = self.works_s = self.worked_s = 0.0
        self.clock = FrozenClock()

    def write(self, so_far) -> None:
        self.clock.advance(self.takes_s)
        self.worked_s += self.works_s
        if self.full:
            raise AccountingUnavailable("It cannot be written.")
        self.written.append({record.request_id: record.output_tokens for record in so_far})


class FakeStream:
    def __init__(self, name: str) -> None:
        self.name, self.tokens, self.noted = name, 1, 0

    def has_grown(self) -> bool:
        return self.tokens > self.noted

    def so_far(self, now: float):
        self.noted = self.tokens
        return settled(self.name, output_tokens=self.tokens)


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def destination() -> Destination:
    return Destination()


@pytest.fixture
def notes(timer: Timer, destination: Destination) -> ProgressNotes:
    return ProgressNotes(destination, destination.clock, 0.1, timer.call_later, lambda: destination.worked_s)


def test_all_streams_are_in_one_write_and_only_where_one_has_grown(notes: ProgressNotes, timer: Timer, destination: Destination) -> None:
    one, other = FakeStream("a"), FakeStream("b")
    assert not timer.runs
    notes.add(one)
    notes.add(other)
    assert timer.delays == [0.1]
    timer.ring()
    timer.ring()
    assert destination.written == [{"a": 1, "b": 1}]
    other.tokens = 5
    timer.ring()
    assert destination.written[1:] == [{"a": 1, "b": 5}]
    notes.discard(one)
    notes.discard(one)
    other.tokens = 6
    timer.ring()
    assert destination.written[2:] == [{"b": 6}]


def test_without_streams_no_timer_runs_and_it_begins_again_with_the_next(notes: ProgressNotes, timer: Timer) -> None:
    stream = FakeStream("a")
    notes.add(stream)
    notes.discard(stream)
    timer.ring()
    assert not timer.runs
    notes.add(stream)
    assert timer.runs


def test_what_takes_long_is_done_less_often(notes: ProgressNotes, timer: Timer, destination: Destination) -> None:
    destination.works_s = 0.01
    notes.add(FakeStream("a"))
    timer.ring()
    assert timer.delays[-1] == pytest.approx(0.49)
    timer.ring()
    assert timer.delays[-1] == 0.1


def test_a_write_that_only_waited_for_the_processor_puts_nothing_off(notes: ProgressNotes, timer: Timer, destination: Destination) -> None:
    destination.takes_s = 0.05  # others had it meanwhile
    notes.add(FakeStream("a"))
    timer.ring()
    assert timer.delays[-1] == 0.1


def test_a_failure_is_counted_and_logged_once_and_the_next_is_tried(
    notes: ProgressNotes, timer: Timer, destination: Destination, caplog: pytest.LogCaptureFixture
) -> None:
    stream = FakeStream("a")
    notes.add(stream)
    before = metrics.PROGRESS_FAILURES._value.get()
    destination.full = True
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            stream.tokens += 1
            timer.ring()
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        destination.full = False
        stream.tokens += 1
        timer.ring()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert metrics.PROGRESS_FAILURES._value.get() == before + 3
    assert destination.written == [{"a": 5}]


def test_the_timer_goes_on_whatever_breaks(notes: ProgressNotes, timer: Timer, destination: Destination) -> None:
    stream = FakeStream("a")
    stream.so_far = lambda now: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    notes.add(stream)
    with pytest.raises(ZeroDivisionError):
        timer.ring()
    assert timer.runs


async def test_a_stream_is_noted_from_its_first_content_until_it_is_settled(
    monkeypatch: pytest.MonkeyPatch, notes: ProgressNotes, timer: Timer, destination: Destination
) -> None:
    bench = Bench(monkeypatch)
    bench.pipeline.progress = notes
    bench.scripts["a"] = [Stream(b"12345678", b"9abc", usage=None)]
    generation = bench.generation(stream=True)
    await generation.start()
    timer.ring()
    now = bench.clock.monotonic()
    assert destination.written == [{generation.request_id: 2}]
    record = generation.so_far(now)
    assert (record.usage_source, record.output_tokens) == ("estimated", 2)
    assert record.cost_micros is not None
    while await generation.next_piece():
        pass
    timer.ring()
    assert destination.written[1:] == [{generation.request_id: 3}]
    generation.end(None)
    timer.ring()
    assert not timer.runs


async def test_a_whole_answer_is_not_noted(monkeypatch: pytest.MonkeyPatch, notes: ProgressNotes, timer: Timer) -> None:
    bench = Bench(monkeypatch)
    bench.pipeline.progress = notes
    bench.scripts["a"] = [ANSWER]
    generation = bench.generation()
    await generation.start()
    generation.end(None)
    assert not timer.runs
