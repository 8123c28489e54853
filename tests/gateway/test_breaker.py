from __future__ import annotations

import random

import pytest

from core.config import BreakerSpec
from core.errors import ProviderFault
from gateway.breaker import BreakerGate
from tests.gateway.scripted import Steady

FAULT = ProviderFault("it failed")


def gate_of(fail_max: int = 3, reset_timeout_s: float = 10.0, **spec: object) -> BreakerGate:
    return BreakerGate(BreakerSpec(fail_max, reset_timeout_s, **spec), Steady())


def fail(gate: BreakerGate, now: float, error: ProviderFault = FAULT) -> None:
    assert gate.wait_s(now) == 0.0
    gate.failed(gate.enter(), error, now)


def opened(now: float = 0.0, **spec: object) -> BreakerGate:
    gate = gate_of(**spec)
    for _ in range(3):
        fail(gate, now)
    return gate


def test_it_opens_after_failures_in_a_row_and_says_when_to_come_back() -> None:
    gate = opened()
    assert (gate.state, gate.reason) == ("open", "it failed")
    assert gate.wait_s(4.0) == pytest.approx(6.0)


def test_a_success_in_between_starts_the_count_again() -> None:
    gate = gate_of(2)
    for _ in range(5):
        fail(gate, 0.0)
        assert (gate.state, gate.failures, gate.failing, gate.calm) == ("closed", 1, True, False)
        gate.succeeded(gate.enter(), 0.0)
        assert (gate.failures, gate.failing, gate.calm) == (0, False, True)


def test_half_open_lets_exactly_one_of_many_calls_through() -> None:
    gate = opened()
    entered = 0
    for _ in range(500):
        if gate.wait_s(10.0) == 0.0:
            assert gate.enter() is True
            entered += 1
    assert entered == 1


def test_waiting_as_long_as_it_says_succeeds_and_a_tick_less_fails() -> None:
    for now in (0.1, 1234.567, 9e5 + 1 / 3):
        gate = opened(now)
        later = now + 0.7
        wait_s = gate.wait_s(later)
        assert gate.wait_s(later + wait_s - 1e-6) > 0
        assert gate.wait_s(later + wait_s) == 0.0
        assert gate.wait_s(later + wait_s + 99) == 0.0


def test_a_good_trial_closes_it() -> None:
    gate = opened()
    gate.succeeded(gate.enter(), 10.0)
    assert (gate.state, gate.calm, gate.reason) == ("closed", True, "")


def test_the_open_time_doubles_with_each_failed_trial_up_to_its_bound() -> None:
    gate, now, waits = opened(), 0.0, []
    for _ in range(5):
        waits.append(gate.wait_s(now))
        now += waits[-1]
        fail(gate, now)
    assert waits == pytest.approx([10, 20, 40, 60, 60])


def test_a_bound_below_the_first_wait_means_no_growth() -> None:
    gate = opened(reset_timeout_s=90.0)
    fail(gate, 90.0)
    assert gate.wait_s(90.0) == pytest.approx(90.0)


def test_the_open_time_goes_on_growing_until_it_has_stayed_closed_for_as_long() -> None:
    gate = opened()
    fail(gate, 10.0)
    gate.succeeded(gate.enter(), 30.0)
    for _ in range(3):
        fail(gate, 45.0)
    assert gate.wait_s(45.0) == pytest.approx(40.0)
    gate.succeeded(gate.enter(), 85.0)
    for _ in range(3):
        fail(gate, 126.0)
    assert gate.wait_s(126.0) == pytest.approx(10.0)


def test_open_times_are_spread_by_a_tenth() -> None:
    rng = random.Random(1)
    waits = []
    for _ in range(200):
        gate = BreakerGate(BreakerSpec(1, 10.0), rng)
        fail(gate, 0.0)
        waits.append(gate.wait_s(0.0))
    assert 9.0 <= min(waits) < 9.2
    assert 10.8 < max(waits) <= 11.0


@pytest.mark.parametrize(("asked_s", "wait_s"), [(2, 10), (25, 25), (9999, 60)])
def test_a_retry_after_is_respected_up_to_the_bound(asked_s: float, wait_s: float) -> None:
    gate = gate_of(1)
    fail(gate, 0.0, ProviderFault("503", retry_after_s=asked_s))
    assert gate.wait_s(0.0) == pytest.approx(wait_s)
    assert gate.wait_s(0.0, last=True) == pytest.approx(wait_s)


def test_the_only_target_left_is_tried_at_an_even_pace_unless_told_otherwise() -> None:
    for keep_last, waits in ((True, [10, 10, 10]), (False, [10, 20, 40])):
        gate, now, found = opened(keep_last=keep_last), 0.0, []
        for _ in waits:
            found.append(gate.wait_s(now, last=True))
            now += found[-1]
            gate.failed(gate.enter(), FAULT, now)
        assert found == pytest.approx(waits)


def test_a_trial_that_says_nothing_leaves_the_next_call_to_try() -> None:
    gate = opened()
    gate.neutral(gate.enter())
    assert gate.state != "closed"
    assert gate.wait_s(10.0) == 0.0


def test_calls_from_before_the_opening_change_nothing() -> None:
    gate = gate_of(1)
    slow_good, slow_bad = gate.enter(), gate.enter()
    fail(gate, 0.0)
    gate.succeeded(slow_good, 1.0)
    gate.failed(slow_bad, FAULT, 9.0)
    assert gate.state == "open"
    assert gate.wait_s(9.0) == pytest.approx(1.0)


def test_an_administrator_can_reset_it() -> None:
    gate = opened()
    gate.reset()
    assert gate.wait_s(0.0) == 0.0
    assert gate.enter() is False


RATE = {"fail_max": 1000, "failure_rate": 0.5, "window_s": 10.0, "min_calls": 6}


def judged(gate: BreakerGate, outcomes: str, now: float) -> None:
    for outcome in outcomes:
        if outcome == "x":
            fail(gate, now)
        else:
            gate.succeeded(gate.enter(), now)


def test_it_opens_at_a_share_of_failures_once_there_are_enough_calls() -> None:
    gate = gate_of(**RATE)
    judged(gate, "x.x.x", 0.0)
    assert gate.state == "closed"
    judged(gate, "x", 0.5)
    assert gate.state == "open"
    assert gate.wait_s(0.5) == pytest.approx(10.0)


def test_below_the_share_it_stays_closed() -> None:
    gate = gate_of(**RATE)
    judged(gate, "..x" * 50, 0.0)
    assert gate.state == "closed"
    assert not gate.calm


def test_the_window_forgets() -> None:
    gate = gate_of(**RATE)
    judged(gate, "xxxxx", 0.0)
    judged(gate, "....x", 10.5)
    assert gate.state == "closed"
    judged(gate, "xxx", 19.9)
    assert gate.state == "open"


def test_a_good_trial_empties_the_window() -> None:
    gate = gate_of(**RATE)
    judged(gate, "xxxxxx", 0.0)
    judged(gate, ".", 10.0)
    judged(gate, "xxxxx", 10.0)
    assert gate.state == "closed"


def test_the_window_is_switched_on_and_off_while_it_runs() -> None:
    gate = gate_of()
    assert gate.calm
    gate.apply(BreakerSpec(**RATE))
    assert not gate.calm
    judged(gate, ".", 0.0)
    gate.apply(BreakerSpec(3))
    assert gate.calm
