"""What is learnt of vendors that do not tell their limits: simulated in virtual time, so that minutes cost milliseconds."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from core.config import RateSpec
from gateway.adaptive import Adaptive, Observed
from gateway.rates import Window

SPEC = RateSpec("adaptive", capacity=100, refill_rate=200)
PAUSE_S = 0.05
Latency = Callable[[random.Random], float]


class CallsPerSecond:
    """A vendor that takes so many calls in any second."""

    def __init__(self, limit: int) -> None:
        self._window = Window(RateSpec("sliding_window", limit, limit))

    def accepts(self, now: float) -> bool:
        wait_s = self._window.book(1, now)
        if wait_s:
            self._window.give_back(1, now + wait_s)
        return not wait_s

    def done(self) -> None:
        pass


class CallsAtOnce:
    """A vendor that works on so many calls at a time."""

    def __init__(self, limit: int) -> None:
        self.limit, self._busy = limit, 0

    def accepts(self, now: float) -> bool:
        if self._busy >= self.limit:
            return False
        self._busy += 1
        return True

    def done(self) -> None:
        self._busy -= 1


class Clients:
    """64 clients that call again as soon as they have an answer, through the slots and the rate of one provider."""

    def __init__(
        self, vendor: Any, latency: Latency, spec: RateSpec = SPEC, clients: int = 64, *, begins_at: float = 0.5, **refusals: float
    ) -> None:
        """`begins_at`: what part of a call is over when its answer begins. `refusals`: `rest_s`, what one asks for, and `after_s`,
        when it comes."""
        self.vendor, self.rate, self.now = vendor, Adaptive(spec), 0.0
        self._begins_at, self._rests_until = begins_at, 0.0
        self._rest_s, self._refused_after_s = refusals.get("rest_s", 0.0), refusals.get("after_s", 0.005)
        self.calls: list[tuple[float, bool, float, int]] = []
        self._latency, self._rng = latency, random.Random(1)
        self._due: list[Any] = []
        self._order = itertools.count()
        self._waiting: deque[int] = deque()
        self._taken = 0
        for number in range(clients):
            self._at(number * 0.001, self._arrive)

    def run(self, until_s: float) -> Clients:
        while self._due[0][0] <= until_s:
            self.now, _, step, arguments = heapq.heappop(self._due)
            step(*arguments)
        return self

    def goodput_per_s(self, since_s: float) -> float:
        return sum(accepted for at, accepted, *_ in self.calls if at > since_s) / (self.now - since_s)

    def refused_share(self, since_s: float) -> float:
        late = [accepted for at, accepted, *_ in self.calls if at > since_s]
        return late.count(False) / len(late)

    def mean_pace(self, since_s: float) -> float:
        paces = [pace for at, _, pace, _ in self.calls if at > since_s]
        return sum(paces) / len(paces)

    def mean_concurrency(self, since_s: float) -> float:
        levels = [level for at, _, _, level in self.calls if at > since_s]
        return sum(levels) / len(levels)

    def _at(self, delay_s: float, step: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._due, (self.now + delay_s, next(self._order), step, arguments))

    def _arrive(self) -> None:
        if self.now < self._rests_until:
            return self._at(PAUSE_S, self._arrive)
        self._waiting.append(1)
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._taken < self.rate.concurrency:
            self._waiting.popleft()
            self._taken += 1
            self._at(self.rate.book(1, self.now), self._call, self.now)

    def _call(self, booked_at: float) -> None:
        if self.now < self._rests_until:
            self._taken -= 1
            self.rate.give_back(1, self.now)
            return self._at(PAUSE_S, self._arrive)
        observed, accepted = Observed(self.rate, booked_at), self.vendor.accepts(self.now)
        self.calls.append((self.now, accepted, self.rate.calls_per_s, self.rate.concurrency))
        if not accepted:
            self._at(self._refused_after_s, self._end, observed, True)
            return
        latency_s = self._latency(self._rng)
        self._at(latency_s * self._begins_at, self._begin_answer, observed)
        self._at(latency_s, self.vendor.done)
        self._at(latency_s + 0.0005, self._end, observed, False)

    def _begin_answer(self, observed: Observed) -> None:
        observed.succeeded(self.now, "key", None)
        self._let_in()

    def _end(self, observed: Observed, refused: bool) -> None:
        observed.ended(self.now, refused=refused, rest_s=self._rest_s)
        if refused:
            self._rests_until = self.now + self._rest_s
        self._taken -= 1
        self._let_in()
        self._at(PAUSE_S if refused else 0.0, self._arrive)


def steady(rng: random.Random) -> float:
    return 0.2


def varying(rng: random.Random) -> float:
    return rng.expovariate(1 / 0.2)


@pytest.mark.parametrize("latency", [steady, varying])
def test_a_hidden_rate_is_found(latency: Latency) -> None:
    clients = Clients(CallsPerSecond(40), latency).run(70)
    assert clients.mean_pace(10) == pytest.approx(40, rel=0.1)
    assert clients.goodput_per_s(10) >= 36
    assert clients.refused_share(10) <= 0.02


@pytest.mark.parametrize("latency", [steady, varying])
def test_a_hidden_concurrency_is_found(latency: Latency) -> None:
    clients = Clients(CallsAtOnce(8), latency).run(70)
    assert clients.mean_concurrency(10) == pytest.approx(8, rel=0.1)
    assert clients.goodput_per_s(10) >= 36
    assert clients.refused_share(10) <= 0.02


@pytest.mark.parametrize("latency", [steady, varying])
def test_a_step_up_that_is_refused_is_not_blamed_on_the_pace(latency: Latency) -> None:
    """Where answers begin when they end, the vendor has a place free before we know: one call too many is then and when accepted."""
    clients = Clients(CallsAtOnce(8), latency, begins_at=1.0).run(120)
    assert clients.mean_pace(10) == SPEC.refill_rate
    assert clients.goodput_per_s(10) >= 36
    assert clients.refused_share(10) <= 0.01


@pytest.mark.parametrize("latency", [steady, varying])
def test_where_a_refusal_costs_a_rest_limits_are_tried_again_more_rarely(latency: Latency) -> None:
    clients = Clients(CallsAtOnce(8), latency, rest_s=1.0).run(120)
    assert clients.goodput_per_s(10) >= 37


@pytest.mark.parametrize("latency", [steady, varying])
def test_refusals_that_come_later_than_answers_are_not_blamed_on_the_pace(latency: Latency) -> None:
    """On a busy machine: what was refused and has not said so makes it look as if others were accepted among many."""
    clients = Clients(CallsAtOnce(8), latency, rest_s=1.0, after_s=0.4).run(60)
    assert clients.mean_pace(10) >= 0.9 * SPEC.refill_rate
    assert clients.goodput_per_s(10) >= 35


@pytest.mark.parametrize(("limit", "spec"), [(20, SPEC), (400, RateSpec("adaptive", 500, 1000))])
def test_smaller_and_larger_rates_are_found_alike(limit: int, spec: RateSpec) -> None:
    clients = Clients(CallsPerSecond(limit), steady, spec, clients=200).run(70)
    assert clients.goodput_per_s(10) == pytest.approx(limit, rel=0.1)
    assert clients.refused_share(10) <= 0.02


def test_a_limit_that_moves_is_found_again() -> None:
    clients = Clients(CallsPerSecond(40), steady).run(20)
    clients.vendor = CallsPerSecond(10)
    clients.run(60)
    assert clients.goodput_per_s(40) >= 9
    clients.vendor = CallsPerSecond(80)
    clients.run(160)
    assert clients.goodput_per_s(130) >= 72


def test_fewer_calls_at_once_than_before_are_found_too() -> None:
    clients = Clients(CallsAtOnce(8), varying).run(30)
    clients.vendor.limit = 3
    clients.run(70)
    assert clients.goodput_per_s(40) >= 0.9 * 3 / 0.2
    assert clients.refused_share(40) <= 0.02


def test_one_congestion_is_one_decrease() -> None:
    rate = Adaptive(SPEC)
    for _ in range(300):
        rate.succeeded(50, 0.0, 0.0)
    for number in range(5):
        rate.limited(1, booked_at=0.9, now=1.0 + number / 10)
    assert rate.calls_per_s == 180
    rate.limited(1, booked_at=1.15, now=1.2)
    assert rate.calls_per_s == 90


def test_a_limit_that_nobody_runs_into_does_not_grow() -> None:
    rate = Adaptive(SPEC)
    rate.limited(1, booked_at=0.0, now=1.0)
    before = rate.calls_per_s
    for second in range(1000):
        assert rate.book(1, 2.0 + second) == 0.0
        rate.succeeded(1, 2.0 + second, 2.0 + second)
    assert rate.calls_per_s == before < 200


def test_floor_and_ceiling_hold() -> None:
    rate = Adaptive(SPEC)
    for number in range(1, 200):
        rate.limited(100 if number % 2 else 1, booked_at=number, now=number + 0.5)
    assert (rate.calls_per_s, rate.concurrency) == (1, 1)
    for number in range(100_000):
        rate.book(5, 1000.0)
        rate.began()
        rate.succeeded(1, 1000.0, 1000.0)
        if number % 100 == 0:
            rate.in_flight = 0
    assert (rate.calls_per_s, rate.concurrency) == (200, 100)


def test_new_ceilings_keep_what_was_learnt() -> None:
    learnt, untouched = Adaptive(SPEC), Adaptive(SPEC)
    learnt.limited(1, booked_at=0.0, now=1.0)
    found = learnt.calls_per_s
    for rate in (learnt, untouched):
        rate.resize(RateSpec("adaptive", 300, 500), 2.0)
    assert (learnt.calls_per_s, learnt.concurrency) == (found, 300)
    assert (untouched.calls_per_s, untouched.concurrency) == (500, 300)
    learnt.resize(RateSpec("adaptive", 5, 3), 3.0)
    assert (learnt.calls_per_s, learnt.concurrency) == (3, 5)


def test_what_the_vendor_states_bounds_the_pace_until_it_states_more() -> None:
    rate = Adaptive(SPEC, parties=2)
    rate.succeeded(1, 0.0, 0.0, "one", 10.0)
    assert rate.calls_per_s == 20  # two keys, and the other is expected to have as much
    rate.succeeded(1, 0.0, 0.0, "two", 5.0)
    assert rate.calls_per_s == 15
    rate.succeeded(1, 0.0, 0.0, "two", 500.0)
    assert rate.calls_per_s == 200
