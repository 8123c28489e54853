"""Deadlines on one timer, with a loop whose clock the test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.deadlines import Deadlines


class Loop:
    """What `Deadlines` uses of an event loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> object:
        self.timers.append((self.now + delay_s, call, arguments))
        return object()

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.timers and min(timer[0] for timer in self.timers) <= until:
            timer = min(self.timers, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1](*timer[2])
        self.now = until


class Waiting:
    def __init__(self, due_s: float, then: Callable[[], None] = lambda: None) -> None:
        self.due_s = due_s
        self.times = 0
        self._then = then

    def overdue(self) -> None:
        self.times += 1
        self._then()


def add(deadlines: Deadlines, loop: Loop, item: Waiting) -> Waiting:
    deadlines.add(item, loop)  # type: ignore[arg-type]
    return item


def test_what_is_due_is_told_once_within_a_tick() -> None:
    loop, deadlines = Loop(), Deadlines(0.25)
    first, second = add(deadlines, loop, Waiting(1.0)), add(deadlines, loop, Waiting(2.0))
    loop.pass_time(0.9)
    assert (first.times, second.times) == (0, 0)
    loop.pass_time(0.35)
    assert (first.times, second.times) == (1, 0)
    loop.pass_time(10)
    assert (first.times, second.times) == (1, 1)


def test_a_deadline_that_is_moved_is_met_later() -> None:
    loop, deadlines = Loop(), Deadlines(0.25)
    item = add(deadlines, loop, Waiting(1.0))
    loop.pass_time(0.8)
    item.due_s = 3.0
    loop.pass_time(2.0)
    assert item.times == 0
    loop.pass_time(0.5)
    assert item.times == 1


def test_what_is_taken_back_is_never_told_even_in_the_same_tick() -> None:
    loop, deadlines = Loop(), Deadlines(0.25)
    pair: list[Waiting] = []
    pair += [add(deadlines, loop, Waiting(1.0, lambda: deadlines.discard(pair[1]))) for _ in range(1)]
    pair.append(add(deadlines, loop, Waiting(1.0, lambda: deadlines.discard(pair[0]))))
    gone = add(deadlines, loop, Waiting(1.0))
    deadlines.discard(gone)
    deadlines.discard(gone)
    loop.pass_time(5)
    assert gone.times == 0
    assert pair[0].times + pair[1].times == 1


def test_no_timer_runs_while_nothing_waits_and_one_for_all_that_does() -> None:
    loop, deadlines = Loop(), Deadlines(0.25)
    for _ in range(100):
        deadlines.discard(add(deadlines, loop, Waiting(9.0)))
    assert len(loop.timers) == 1
    loop.pass_time(1)
    assert not loop.timers
    kept = add(deadlines, loop, Waiting(9.0))
    assert len(loop.timers) == 1
    loop.pass_time(20)
    assert kept.times == 1
    assert not loop.timers


def test_another_loop_begins_anew() -> None:
    old, new, deadlines = Loop(), Loop(), Deadlines(0.25)
    forgotten = add(deadlines, old, Waiting(1.0))
    item = add(deadlines, new, Waiting(1.0))
    new.pass_time(2)
    assert (forgotten.times, item.times) == (0, 1)


def test_one_that_fails_leaves_the_others_their_timer() -> None:
    def fail() -> None:
        raise RuntimeError("a defect")

    loop, deadlines = Loop(), Deadlines(0.25)
    first, second = add(deadlines, loop, Waiting(1.0, fail)), add(deadlines, loop, Waiting(1.1))
    with pytest.raises(RuntimeError):
        loop.pass_time(1.1)
    third = add(deadlines, loop, Waiting(2.0))
    loop.pass_time(5)
    assert (first.times, second.times, third.times) == (1, 1, 1)
