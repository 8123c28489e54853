from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import RateSpec
from gateway.adaptive import Adaptive
from gateway.rates import Bucket, Rate, Window, shared_out

TYPES: dict[str, Callable[[RateSpec], Rate]] = {
    "token_bucket": lambda spec: Bucket(spec.capacity, spec.refill_rate),
    "sliding_window": Window,
    "adaptive": Adaptive,
}


def window(capacity: int, window_s: float) -> Window:
    return Window(RateSpec("sliding_window", capacity, capacity / window_s))


def test_bucket_gives_its_capacity_at_once_and_then_its_rate() -> None:
    bucket = Bucket(capacity=3, rate=1.0)
    assert [bucket.take(1, 100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s(1, 100.0) == pytest.approx(1.0)
    assert bucket.take(1, 101.0)
    assert not bucket.take(1, 101.0)


@given(
    capacity=st.integers(1, 1000),
    rate=st.floats(0.01, 1000),
    taken=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    start=st.floats(0, 1e7),
)
def test_a_bucket_tells_the_true_wait(capacity: int, rate: float, taken: list[int], start: float) -> None:
    bucket = Bucket(capacity, rate)
    now = start
    for amount in taken:
        if not bucket.take(amount, now):
            wait_s = bucket.wait_s(amount, now)
            tick = wait_s * 0.001 + 1e-5
            assert wait_s <= tick or not bucket.take(amount, now + wait_s - tick)
            now += wait_s
            assert bucket.take(amount, now)


def test_more_than_the_bucket_holds_counts_as_all_of_it() -> None:
    bucket = Bucket(capacity=10, rate=1.0)
    assert bucket.take(1000, 0.0)
    assert bucket.level(0.0) == pytest.approx(0.0)


def test_resizing_a_bucket_keeps_what_is_used() -> None:
    bucket = Bucket(capacity=10, rate=1.0)
    bucket.take(6, 0.0)
    bucket.fit(20, 2.0, 0.0)
    assert bucket.level(0.0) == pytest.approx(14)


@given(
    kind=st.sampled_from(sorted(TYPES)),
    capacity=st.integers(1, 30),
    rate=st.floats(0.05, 100),
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    start=st.floats(0, 1e7),
)
def test_waiting_as_told_starts_at_once_and_a_tick_less_does_not(
    kind: str, capacity: int, rate: float, pauses: list[float], start: float
) -> None:
    """As a caller without patience sees it: each refused booking is given back."""
    limit = TYPES[kind](RateSpec(kind, capacity, rate))
    now = start
    for pause_s in pauses:
        now += pause_s
        wait_s = limit.book(1, now)
        if wait_s:
            limit.give_back(1, now + wait_s)
            early = now + wait_s - wait_s * 0.001 - 1e-5
            if early > now:
                too_early_s = limit.book(1, early)
                assert too_early_s > 0
                limit.give_back(1, early + too_early_s)
            now += wait_s
            assert limit.book(1, now) == 0.0


@given(
    capacity=st.integers(1, 10),
    window_s=st.floats(0.1, 60),
    steps=st.lists(
        st.tuples(st.floats(0, 5), st.sampled_from(["use", "use", "use", "give up", "give up later"])), min_size=1, max_size=120
    ),
)
def test_no_window_ever_holds_more_starts_than_its_capacity(capacity: int, window_s: float, steps: list[tuple[float, str]]) -> None:
    limit = window(capacity, window_s)
    now, starts, leaving = 1000.0, [], []
    for pause_s, what in steps:
        now += pause_s
        for start_at in [one for one in leaving if one >= now]:
            limit.give_back(1, start_at)
        leaving.clear()
        start_at = now + limit.book(1, now)
        if what == "use":
            starts.append(start_at)
        elif what == "give up":
            limit.give_back(1, start_at)
        else:
            leaving.append(start_at)
        assert len(limit._starts) <= 2 * capacity + len(steps)
    starts.sort()
    for first, beyond in zip(starts, starts[capacity:], strict=False):
        assert beyond - first >= window_s - 1e-6


def test_a_window_forgets_old_starts() -> None:
    limit = window(20, 60)
    for second in range(10_000):
        limit.book(1, float(second * 4))
    assert len(limit._starts) <= 20
    assert limit.used(39_996.0) == 15


def test_a_window_refuses_until_the_first_start_leaves_it() -> None:
    limit = window(2, 10)
    assert [limit.book(1, now) for now in (0.0, 4.0, 5.0)] == [0.0, 0.0, pytest.approx(5.0)]
    assert limit.state(5.0) == "used 2 of 2 calls in 10 s"


@pytest.mark.parametrize("limit", [Bucket(capacity=1, rate=2.0), window(1, 0.5)])
def test_booking_is_first_come_first_served(limit: Rate) -> None:
    waits = [limit.book(1, 0.0) for _ in range(4)]
    assert waits == pytest.approx([0.0, 0.5, 1.0, 1.5])
    limit.give_back(1, waits[3])
    assert limit.book(1, 0.0) == pytest.approx(1.5)


def test_a_place_given_back_in_a_window_goes_to_the_next_and_one_that_passed_is_no_use() -> None:
    limit = window(1, 10)
    waits = [limit.book(1, 0.0) for _ in range(3)]
    limit.give_back(1, waits[1])
    assert limit.book(1, 1.0) == pytest.approx(9.0)
    limit.give_back(1, 10.0)
    assert limit.book(1, 15.0) == pytest.approx(15.0)


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_new_numbers_keep_what_is_used_and_booked(kind: str) -> None:
    limit = TYPES[kind](RateSpec(kind, 1, 1.0))
    waits = [limit.book(1, 0.0) for _ in range(3)]
    assert waits == pytest.approx([0.0, 1.0, 2.0])
    limit.resize(RateSpec(kind, 1, 0.5), 0.0)
    assert limit.book(1, 0.0) == pytest.approx(4.0)


def test_a_smaller_window_counts_the_starts_of_the_larger_one() -> None:
    limit = window(5, 10)
    for _ in range(5):
        limit.book(1, 0.0)
    limit.resize(RateSpec("sliding_window", 2, 0.2), 1.0)
    assert limit.book(1, 1.0) == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (RateSpec(), set()),
        (RateSpec("token_bucket", 5, 1), set()),
        (RateSpec("sliding_window", 20, 20 / 60), set()),
        (RateSpec("adaptive", 1, 0.5), set()),
        (RateSpec("leaky", 1, 1), {"type"}),
        (RateSpec("token_bucket", -1, 1), {"capacity"}),
        (RateSpec("token_bucket", 1, -1), {"refill_rate"}),
        (RateSpec("token_bucket", float("nan"), float("inf")), {"capacity", "refill_rate"}),
        (RateSpec("token_bucket", 5, 0), {"refill_rate"}),
        (RateSpec("sliding_window", 2.5, 1), {"capacity"}),
        (RateSpec("adaptive", 0.5, 1), {"capacity"}),
        (RateSpec("adaptive", None, "1"), {"capacity", "refill_rate"}),  # type: ignore[arg-type]
    ],
)
def test_a_rate_that_cannot_work_says_which_number(spec: RateSpec, fields: set[str]) -> None:
    assert set(spec.refusals()) == fields


@pytest.mark.parametrize(
    ("whole", "part"),
    [
        (RateSpec(), RateSpec()),
        (RateSpec("token_bucket", 9, 4.0), RateSpec("token_bucket", 2.25, 1.0)),
        (RateSpec("token_bucket", 2, 4.0), RateSpec("token_bucket", 1, 1.0)),
        (RateSpec("sliding_window", 9, 0.9), RateSpec("sliding_window", 2, 0.2)),
        (RateSpec("sliding_window", 1, 0.1), RateSpec("sliding_window", 1, 0.1)),
        (RateSpec("adaptive", 8, 50.0), RateSpec("adaptive", 2, 12.5)),
    ],
)
def test_a_part_of_a_rate_has_room_for_a_call_and_a_window_its_length(whole: RateSpec, part: RateSpec) -> None:
    assert shared_out(whole, 4) == part
    assert shared_out(whole, 1) is whole


def test_jittered_bookings_of_many_keep_the_order_of_arrival() -> None:
    limit, rng, now = window(3, 1.0), random.Random(7), 0.0
    starts = []
    for _ in range(200):
        now += rng.random() * 0.2
        starts.append(now + limit.book(1, now))
    assert all(earlier <= later + 1e-9 for earlier, later in itertools.pairwise(starts))
