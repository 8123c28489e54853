"""How fast and how busy a model is, from what callers sent."""

from __future__ import annotations

import pytest

from core.config import ModelSpec, RouteSpec, Snapshot
from core.usage import Usage
from gateway.vitals import STALE_S, Vitals, measured


def answered(vitals: Vitals, now: float, took_s: float, tokens: int, first_s: float | None = None) -> None:
    vitals.in_flight += 1
    first = None if first_s is None else now - took_s + first_s
    vitals.ended(now, now - took_s, first, Usage(input=1, output=tokens))


def test_nothing_is_known_before_an_answer_and_long_after_it() -> None:
    vitals = Vitals()
    assert vitals.expected_s(100, 50) is None
    answered(vitals, 100, took_s=2, tokens=20)
    assert vitals.expected_s(100, 50) == 5
    assert vitals.expected_s(100 + STALE_S, 50) == 5
    assert vitals.expected_s(101 + STALE_S, 50) is None


def test_a_stream_tells_its_first_token_and_its_pace() -> None:
    vitals = Vitals()
    answered(vitals, 100, took_s=3, tokens=20, first_s=1)
    assert vitals.expected_s(100, 50) == 1 + 50 / 10


def test_the_average_moves_by_a_fifth_and_by_half_after_a_minute() -> None:
    vitals = Vitals()
    answered(vitals, 100, took_s=1, tokens=10)
    answered(vitals, 100, took_s=1, tokens=60)
    assert vitals.expected_s(100, 20) == 1  # 20 a second
    answered(vitals, 160, took_s=1, tokens=60)
    assert vitals.expected_s(160, 40) == 1  # 40 a second


def test_what_failed_says_nothing_of_speed_and_is_over() -> None:
    vitals = Vitals()
    vitals.in_flight = 2
    vitals.ended(100, 99, None, None)
    assert (vitals.in_flight, vitals.expected_s(100, 1)) == (1, None)
    vitals.ended(100, 100, None, Usage(input=1, output=5))  # no time has passed: no pace
    assert (vitals.in_flight, vitals.expected_s(100, 1)) == (0, None)


@pytest.mark.parametrize(("strategy", "found"), [("speed", ["1", "2"]), ("least_busy", ["1", "2"]), ("cost", []), ("priority", [])])
def test_only_what_a_route_goes_by_is_measured(strategy: str, found: list[str]) -> None:
    models = {"a": (ModelSpec("1", "a", "x", "p"), ModelSpec("2", "a", "y", "p")), "b": (ModelSpec("3", "b", "z", "p"),)}
    snapshot = Snapshot(1, 0.0, models=models, routes={"r": RouteSpec("r", ("a", "gone"), strategy=strategy, fallbacks=("b",))})
    assert list(measured(snapshot)) == found
