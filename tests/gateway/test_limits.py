from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import LimitSpec
from core.errors import CallerLimited, ProviderLimited
from gateway.limits import Bucket, CallerGate, Slots


def test_bucket_gives_its_capacity_at_once_and_then_its_rate() -> None:
    bucket = Bucket(capacity=3, rate=1.0)
    assert [bucket.take(1, 100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take(1, 100.0) == pytest.approx(1.0)
    assert bucket.take(1, 101.0) == 0.0
    assert bucket.take(1, 101.0) > 0


@given(
    capacity=st.integers(1, 1000),
    rate=st.floats(0.01, 1000),
    taken=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    start=st.floats(0, 1e6),
)
def test_waiting_as_told_succeeds_and_a_tick_less_fails(capacity: int, rate: float, taken: list[int], start: float) -> None:
    bucket = Bucket(capacity, rate)
    now = start
    for amount in taken:
        wait_s = bucket.take(amount, now)
        if wait_s:
            tick = wait_s * 0.001 + 1e-6
            if wait_s > tick:
                assert bucket.take(amount, now + wait_s - tick) > 0
            now += wait_s
            assert bucket.take(amount, now) == 0.0


def test_more_than_the_bucket_holds_counts_as_all_of_it() -> None:
    bucket = Bucket(capacity=10, rate=1.0)
    assert bucket.take(1000, 0.0) == 0.0
    assert bucket.level(0.0) == pytest.approx(0.0)


def test_resizing_keeps_what_is_used() -> None:
    bucket = Bucket(capacity=10, rate=1.0)
    bucket.take(6, 0.0)
    bucket.resize(20, 2.0, 0.0)
    assert bucket.level(0.0) == pytest.approx(14)


def test_booking_is_first_come_first_served() -> None:
    bucket = Bucket(capacity=1, rate=2.0)
    assert [bucket.book(1, 0.0) for _ in range(4)] == pytest.approx([0.0, 0.5, 1.0, 1.5])
    bucket.give_back(1)
    assert bucket.book(1, 0.0) == pytest.approx(1.5)


def test_a_refused_request_takes_nothing_of_the_other_limit() -> None:
    gate = CallerGate(LimitSpec(requests_per_minute=10, tokens_per_minute=100))
    gate.enter(100, 0.0)
    with pytest.raises(CallerLimited, match="tokens per minute"):
        gate.enter(50, 0.0)
    assert dict(gate.headers(0.0))[b"x-ratelimit-remaining-requests"] == b"9"


def test_the_refusal_names_limit_use_and_true_wait() -> None:
    gate = CallerGate(LimitSpec(requests_per_minute=2))
    gate.enter(1, 0.0)
    gate.enter(1, 0.0)
    with pytest.raises(CallerLimited, match="used 2 of 2 requests per minute") as refused:
        gate.enter(1, 0.0)
    assert refused.value.retry_after_s == pytest.approx(30.0)
    gate.enter(1, refused.value.retry_after_s)


def test_tokens_are_corrected_when_the_true_number_is_known() -> None:
    gate = CallerGate(LimitSpec(tokens_per_minute=100))
    gate.enter(10, 0.0)
    gate.leave(10, 60)
    assert dict(gate.headers(0.0))[b"x-ratelimit-remaining-tokens"] == b"40"


def test_concurrency_is_freed_by_leaving() -> None:
    gate = CallerGate(LimitSpec(max_concurrency=1))
    gate.enter(1, 0.0)
    with pytest.raises(CallerLimited, match="concurrent"):
        gate.enter(1, 0.0)
    gate.leave(1, 1)
    gate.enter(1, 0.0)


def test_new_limits_apply_to_a_caller_that_has_used_some() -> None:
    gate = CallerGate(LimitSpec(requests_per_minute=100))
    for _ in range(90):
        gate.enter(1, 0.0)
    gate.apply(LimitSpec(requests_per_minute=10), 0.0)
    with pytest.raises(CallerLimited):
        gate.enter(1, 0.0)
    gate.apply(LimitSpec(), 0.0)
    gate.enter(1, 0.0)


async def test_slots_go_to_waiters_in_order() -> None:
    slots = Slots(1)
    assert slots.try_take()
    order: list[int] = []

    async def wait(number: int) -> None:
        await slots.wait(5, "p")
        order.append(number)
        slots.release()

    waiters = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert not slots.try_take()
    slots.release()
    await asyncio.gather(*waiters)
    assert order == [0, 1, 2]
    assert slots.in_flight == 0


async def test_a_waiter_that_gives_up_leaves_no_slot_behind() -> None:
    slots = Slots(1)
    slots.try_take()
    with pytest.raises(ProviderLimited, match="its limit"):
        await slots.wait(0.001, "p")
    cancelled = asyncio.create_task(slots.wait(5, "p"))
    await asyncio.sleep(0)
    slots.release()  # the slot is handed over and the waiter is cancelled in the same turn of the loop
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert slots.in_flight == 0
    assert slots.try_take()
