from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import LimitSpec
from core.errors import CallerLimited, ProviderLimited
from gateway.limits import Gate, Gates, Slots, one_of


def a_key(limits: LimitSpec) -> Gate:
    return Gate("This key", limits)


def left(gate: Gate | Gates, now: float = 0.0) -> dict[str, int]:
    """What the headers say is left, by "requests" and "tokens"."""
    found = dict(gate.headers(now))
    names = ("requests", "tokens")
    return {name: int(found[key]) for name in names if (key := f"x-ratelimit-remaining-{name}".encode()) in found}


def test_a_refused_request_takes_nothing_of_the_other_limit() -> None:
    gate = a_key(LimitSpec(requests_per_minute=10, tokens_per_minute=100))
    gate.enter(100, 0.0)
    with pytest.raises(CallerLimited, match="tokens per minute"):
        gate.enter(50, 0.0)
    assert dict(gate.headers(0.0))[b"x-ratelimit-remaining-requests"] == b"9"


def test_the_refusal_names_limit_use_and_true_wait() -> None:
    gate = a_key(LimitSpec(requests_per_minute=2))
    gate.enter(1, 0.0)
    gate.enter(1, 0.0)
    with pytest.raises(CallerLimited, match="used 2 of 2 requests per minute") as refused:
        gate.enter(1, 0.0)
    assert refused.value.retry_after_s == pytest.approx(30.0)
    gate.enter(1, refused.value.retry_after_s)


def test_tokens_are_corrected_when_the_true_number_is_known() -> None:
    gate = a_key(LimitSpec(tokens_per_minute=100))
    gate.enter(10, 0.0)
    gate.leave(10, 60, 0.0)
    assert dict(gate.headers(0.0))[b"x-ratelimit-remaining-tokens"] == b"40"


def test_concurrency_is_freed_by_leaving() -> None:
    gate = a_key(LimitSpec(max_concurrency=1))
    gate.enter(1, 0.0)
    with pytest.raises(CallerLimited, match="concurrent"):
        gate.enter(1, 0.0)
    gate.leave(1, 1, 0.0)
    gate.enter(1, 0.0)


def test_new_limits_apply_to_a_caller_that_has_used_some() -> None:
    gate = a_key(LimitSpec(requests_per_minute=100))
    for _ in range(90):
        gate.enter(1, 0.0)
    gate.apply("This key", LimitSpec(requests_per_minute=10), 0.0)
    with pytest.raises(CallerLimited):
        gate.enter(1, 0.0)
    gate.apply("This key", LimitSpec(), 0.0)
    gate.enter(1, 0.0)


def test_a_key_and_its_team_are_one_gate_and_a_refusal_takes_nothing_of_either() -> None:
    first, second = a_key(LimitSpec(requests_per_minute=10, tokens_per_minute=1000)), a_key(LimitSpec(requests_per_minute=10))
    team = Gate("Team growth", LimitSpec(requests_per_minute=3, max_concurrency=5))
    for key in (first, first, second):
        Gates(key, team).enter(100, 0.0)
    before = left(first)
    with pytest.raises(CallerLimited, match=r"Team growth has used 3 of 3 requests per minute; try again in 20\.000 s") as refused:
        Gates(first, team).enter(100, 0.0)
    assert left(first) == before == {"requests": 8, "tokens": 800}
    assert (first.in_flight, team.in_flight) == (2, 3)
    assert refused.value.retry_after_s == pytest.approx(20.0)
    Gates(first, team).leave(100, 50, 0.0)
    assert (first.in_flight, team.in_flight, left(first)["tokens"]) == (1, 2, 850)


def test_the_headers_show_the_tighter_of_key_and_team() -> None:
    gates = Gates(a_key(LimitSpec(requests_per_minute=10)), Gate("Team growth", LimitSpec(requests_per_minute=100, tokens_per_minute=50)))
    gates.enter(20, 0.0)
    assert left(gates) == {"requests": 9, "tokens": 30}
    assert dict(gates.headers(0.0))[b"x-ratelimit-limit-requests"] == b"10"


def test_a_refusal_names_the_limit_with_the_longest_wait() -> None:
    key = a_key(LimitSpec(requests_per_minute=60, tokens_per_minute=60))
    team = Gate("Team growth", LimitSpec(requests_per_minute=1))
    gates = Gates(key, team)
    gates.enter(60, 0.0)
    with pytest.raises(CallerLimited, match="Team growth has used 1 of 1 requests") as refused:
        gates.enter(30, 0.0)  # the key's tokens would be there after 30 s
    assert refused.value.retry_after_s == pytest.approx(60.0)
    with pytest.raises(CallerLimited, match="This key has used 60 of 60 tokens per minute, and this request needs about 60") as refused:
        gates.enter(60, 1e-9)
    assert refused.value.retry_after_s == pytest.approx(60.0)


LIMITS = st.builds(LimitSpec, st.none() | st.integers(1, 100), st.none() | st.integers(1, 5000), st.none() | st.integers(1, 3))


@given(
    levels=st.lists(LIMITS, min_size=1, max_size=3),
    steps=st.lists(st.tuples(st.integers(0, 2000), st.floats(0, 30), st.booleans()), min_size=1, max_size=40),
    start=st.floats(0, 1e7),
)
def test_waiting_as_told_succeeds_a_tick_less_fails_and_nothing_leaks(levels: list[LimitSpec], steps: list, start: float) -> None:
    held = [Gate(f"Level {number}", limits) for number, limits in enumerate(levels)]
    gates, now, inside = Gates(*held), start, []
    for tokens, pause_s, leaves in steps:
        now += pause_s
        if leaves and inside:
            estimated = inside.pop(0)
            gates.leave(estimated, estimated // 2, now)
        before = [(gate.in_flight, left(gate, now)) for gate in held]
        try:
            gates.enter(tokens, now)
        except CallerLimited as refused:
            assert [(gate.in_flight, left(gate, now)) for gate in held] == before
            if "concurrent" in refused.message:
                continue
            wait_s = refused.retry_after_s
            full = any(
                limits.max_concurrency and gate.in_flight >= limits.max_concurrency for gate, limits in zip(held, levels, strict=True)
            )
            if (tick := wait_s * 0.001 + 1e-5) < wait_s:
                with pytest.raises(CallerLimited):
                    gates.enter(tokens, now + wait_s - tick)
            now += wait_s
            if full:
                continue
            gates.enter(tokens, now)
        inside.append(tokens)
    for tokens in inside:
        gates.leave(tokens, tokens, now)
    assert [gate.in_flight for gate in held] == [0] * len(held)


def test_what_another_authority_admitted_is_counted_and_never_more_than_there_is() -> None:
    gate = a_key(LimitSpec(requests_per_minute=2, tokens_per_minute=100, max_concurrency=1))
    for _ in range(5):
        gate.note(30, 0.0)
    assert (gate.in_flight, left(gate)) == (5, {"requests": 0, "tokens": 0})
    assert gate.requests is not None
    assert gate.requests.wait_s(1, 0.0) == pytest.approx(30.0)  # no debt for the minutes to come
    gate.undo(30)
    gate.leave(30, 10, 0.0)
    assert (gate.in_flight, left(gate)) == (3, {"requests": 1, "tokens": 50})


def test_a_part_of_limits_is_at_least_one() -> None:
    assert one_of(LimitSpec(requests_per_minute=7, max_concurrency=1), 2) == LimitSpec(requests_per_minute=3, max_concurrency=1)
    assert one_of(LimitSpec(), 2) == LimitSpec()


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
