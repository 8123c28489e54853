"""Slots, and rates that are learnt, by all workers of one machine."""

from __future__ import annotations

import asyncio

import pytest

from core.config import RateSpec
from core.errors import ProviderLimited
from gateway.adaptive import Adaptive
from gateway.limits import Slots
from gateway.sharing.machine import Machine, SharedSlots
from tests.gateway.test_machine import Workers, dies, workers

__all__ = ["workers"]


LEARNT = RateSpec("adaptive", 8, 50.0)


def learners(machines: list[Machine]) -> list[Adaptive]:
    found = [machine.rate("p", LEARNT, 0.0, 1) for machine in machines]
    assert all(isinstance(rate, Adaptive) for rate in found)
    return found  # type: ignore[return-value]


def test_workers_learn_together(workers: Workers) -> None:
    machines = workers()
    first, second = learners(machines)
    assert [machine.parts(rate) for machine, rate in zip(machines, (first, second), strict=True)] == [1, 1]
    assert [second.began(), second.began(), second.began(), first.began()] == [1, 2, 3, 4]
    first.limited(4, booked_at=0.0, now=1.0)
    assert first.concurrency == second.concurrency == 2
    second.limited(3, booked_at=0.9, now=1.1)  # it was let in before that cut
    assert second.concurrency == 2
    for _ in range(10):
        second.succeeded(1, 2.0, 2.0)
    assert first.concurrency == second.concurrency == 2
    first.began()
    for _ in range(10):
        second.succeeded(1, 2.0, 2.0)
    assert first.concurrency == second.concurrency == 3
    assert not first.book(5, 3.0)
    assert second.book(1, 3.0) > 0


def test_a_worker_that_comes_later_goes_on_with_what_was_learnt(workers: Workers) -> None:
    machines = workers()
    (first,) = learners(machines[:1])
    first.began()
    first.limited(5, booked_at=0.0, now=1.0)
    first.limited(1, booked_at=2.0, now=3.0)
    (second,) = learners(machines[1:])
    assert (second.concurrency, second.calls_per_s, second.in_flight) == (first.concurrency, first.calls_per_s, 1)
    dies(machines[0])
    assert [second.began() for _ in range(second.concurrency)][-1] == second.concurrency


def test_where_nothing_can_be_shared_what_is_learnt_is_each_workers_own_part() -> None:
    machine = Machine(None, 2)
    rate = machine.rate("p", LEARNT, 0.0, 1)
    assert (machine.parts(rate), rate.concurrency, rate.calls_per_s) == (2, 4, 25.0)  # type: ignore[attr-defined]


def slots_of(machines: list[Machine], limit: int) -> list[Slots]:
    found = [machine.slots("p") for machine in machines]
    for slots in found:
        slots.resize(limit)
    return found


async def test_slots_are_those_of_all_workers_and_a_waiter_hears_of_an_end_elsewhere(workers: Workers) -> None:
    first, second = slots_of(workers(), 2)
    assert (first.try_take(), first.try_take(), second.try_take()) == (True, True, False)
    with pytest.raises(ProviderLimited, match="Provider p has 2 calls in flight, its limit"):
        await second.wait(0.03, "p")
    waiting = asyncio.create_task(second.wait(5, "p"))
    await asyncio.sleep(0)
    first.release()
    await asyncio.wait_for(waiting, 5)
    assert (first.in_flight, first.try_take()) == (2, False)
    second.release()
    first.release()
    assert (first.in_flight, second.in_flight) == (0, 0)


async def test_waiters_of_one_worker_are_served_in_order(workers: Workers) -> None:
    first, second = slots_of(workers(), 1)
    assert first.try_take()
    order: list[int] = []

    async def wait(number: int) -> None:
        await second.wait(5, "p")
        order.append(number)
        second.release()

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    first.release()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2]
    assert first.try_take()


async def test_a_dead_workers_slots_are_found_by_those_who_wait(workers: Workers) -> None:
    machines = workers()
    first, second = slots_of(machines, 1)
    assert first.try_take()
    waiting = asyncio.create_task(second.wait(5, "p"))
    await asyncio.sleep(0)
    dies(machines[0])
    await asyncio.wait_for(waiting, 5)
    assert second.in_flight == 1


def test_slots_with_a_limit_that_is_learnt_are_each_workers_own(workers: Workers) -> None:
    first, second = slots_of(workers(), 0)
    for slots in (first, second):
        slots.apart = True
        slots.resize(1)
    assert (first.try_take(), first.try_take(), second.try_take()) == (True, False, True)
    first.apart = second.apart = False
    second.resize(2)
    assert (second.in_flight, second.try_take()) == (2, False)


def test_a_limit_of_slots_is_everybodys_and_a_worker_that_comes_later_leaves_it(workers: Workers) -> None:
    machines = workers()
    first, _ = slots_of(machines, 3)
    first.resize(2)
    assert machines[1].slots("p").limit == 2


def test_slots_without_a_limit_are_counted_for_when_there_is_one(workers: Workers) -> None:
    first, second = slots_of(workers(), 0)
    assert isinstance(first, SharedSlots)
    assert all(first.try_take() for _ in range(3))
    second.resize(3)
    assert not second.try_take()


# The folder ---------------------------------------------------------------------------------------------------------
