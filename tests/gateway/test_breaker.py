from __future__ import annotations

import pytest

from core.config import BreakerSpec
from core.errors import ProviderFault
from gateway.breaker import BreakerGate

FAULT = ProviderFault("it failed")


def opened(fail_max: int = 3, reset_timeout_s: float = 10.0, now: float = 0.0) -> BreakerGate:
    gate = BreakerGate(BreakerSpec(fail_max, reset_timeout_s))
    for _ in range(fail_max):
        assert gate.wait_s(now) == 0.0
        gate.failed(gate.enter(), FAULT, now)
    return gate


def test_it_opens_after_failures_in_a_row_and_says_when_to_come_back() -> None:
    gate = opened()
    assert gate.state == "open"
    assert gate.wait_s(4.0) == pytest.approx(6.0)


def test_a_success_in_between_starts_the_count_again() -> None:
    gate = BreakerGate(BreakerSpec(2, 10))
    for _ in range(5):
        gate.failed(gate.enter(), FAULT, 0.0)
        assert gate.state == "closed"
        assert not gate.calm
        gate.succeeded(gate.enter())
        assert gate.calm


def test_half_open_lets_exactly_one_call_through() -> None:
    gate = opened()
    entered = 0
    for _ in range(50):
        if gate.wait_s(10.0) == 0.0:
            assert gate.enter() is True
            entered += 1
    assert entered == 1


def test_a_good_trial_closes_and_a_bad_one_opens_again() -> None:
    gate = opened()
    gate.succeeded(gate.enter())
    assert gate.state == "closed"
    gate = opened()
    gate.failed(gate.enter(), FAULT, 10.0)
    assert gate.state == "open"
    assert gate.wait_s(10.0) == pytest.approx(10.0)


def test_a_trial_that_says_nothing_leaves_the_next_call_to_try() -> None:
    gate = opened()
    gate.neutral(gate.enter())
    assert gate.state != "closed"
    assert gate.wait_s(10.0) == 0.0


def test_calls_from_before_the_opening_change_nothing() -> None:
    gate = BreakerGate(BreakerSpec(1, 10))
    slow_good, slow_bad = gate.enter(), gate.enter()
    gate.failed(gate.enter(), FAULT, 0.0)
    gate.succeeded(slow_good)
    gate.failed(slow_bad, FAULT, 9.0)
    assert gate.state == "open"
    assert gate.wait_s(9.0) == pytest.approx(1.0)


def test_an_administrator_can_reset_it() -> None:
    gate = opened()
    gate.reset()
    assert gate.wait_s(0.0) == 0.0
    assert gate.enter() is False
