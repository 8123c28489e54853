"""The room that shared limits have: what is full, what is freed, and windows that outgrow theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import LimitSpec, RateSpec
from core.errors import CallerLimited
from gateway.limits import Gate
from gateway.sharing.machine import Machine
from tests.gateway.test_machine import Workers, dies, gates, one_more, workers

__all__ = ["workers"]


def made(machine: Machine, name: str) -> Gate:
    return machine.gate(name, "This key", LimitSpec(requests_per_minute=60), CallerLimited, 0.0, 1)


def fill(machine: Machine) -> list[Gate]:
    """As many as there is room for."""
    found = [made(machine, f"k{number}") for number in range(300)]
    return [gate for gate in found if machine.parts(gate) == 1]


def test_the_room_of_keys_that_are_gone_serves_others(workers: Workers) -> None:
    first, second = workers(2, size_bytes=2**13, columns=8)
    full = len(fill(first))
    assert full > 10
    assert first.region is not None
    first.region._looks_again_at = 0.0  # time has passed
    for turn in range(3):  # what was freed is found again and again
        both = [made(first, f"turn {turn}"), made(second, f"turn {turn}")]
        assert [machine.parts(gate) for machine, gate in zip((first, second), both, strict=True)] == [1, 1]
        both[0].enter(0, 0.0)
        assert both[1].requests is not None
        assert both[1].requests.used(0.0) == 1
        del both
    assert len(fill(second)) == full


def test_what_anyone_holds_is_nobody_elses(workers: Workers) -> None:
    first, second = workers(2, size_bytes=2**13, columns=8)
    held = fill(first)
    held[0].enter(0, 0.0)
    assert second.parts(made(second, "another")) == 2
    again = made(second, "k0")  # the other worker's word is enough to find it
    assert again.requests is not None
    assert again.requests.used(0.0) == 1
    del held
    assert second.parts(made(second, "yet another")) == 2, "nothing was free a moment ago: no second look"
    assert second.region is not None
    second.region._looks_again_at = 0.0
    assert second.parts(made(second, "yet another")) == 1
    assert again.requests.used(0.0) == 1


def test_a_request_in_flight_keeps_the_numbers_of_a_key_that_is_gone(workers: Workers) -> None:
    first, second = workers(2, size_bytes=2**13, columns=8)
    leaving = made(first, "gone")
    leaving.enter(0, 0.0)
    others = fill(second)
    made(first, "new")
    leaving.leave(0, 0, 0.0)
    assert {gate.in_flight for gate in others} == {0}


def test_numbers_outlive_their_holders_while_there_is_room(workers: Workers) -> None:
    first, second = workers()
    gate = made(first, "k")
    gate.enter(0, 0.0)
    del gate
    again = made(second, "k")
    assert again.requests is not None
    assert again.requests.used(0.0) == 1


def test_what_a_dead_worker_held_is_free(workers: Workers, tmp_path: Path) -> None:
    first, second = workers(2, size_bytes=2**13, columns=8)
    held = fill(first)
    dies(first)
    assert second.parts(made(second, "another")) == 1
    next_one = Machine(one_more(tmp_path / "limits"), 2)
    assert next_one.parts(made(next_one, "and another")) == 1
    dies(next_one)
    del held


def test_blocks_of_other_sizes_change_places(workers: Workers) -> None:
    """A free entry that is in the way of a name may have room of another size, which is not lost."""
    machine, _ = workers(2, size_bytes=2**13, columns=8)
    slots = [machine.slots(f"s{number}") for number in range(4)]
    gates_ = fill(machine)
    del slots, gates_
    assert machine.region is not None
    for turn in range(5):
        machine.region._looks_again_at = 0.0  # time has passed
        gates_, slots = fill(machine), [machine.slots(f"turn {turn} {number}") for number in range(2)]
        assert len(gates_) > 5
        assert machine.parts(slots[0]) == 1
        del slots, gates_


def test_a_gate_without_limits_costs_nothing_and_is_replaced_when_it_gets_some(workers: Workers) -> None:
    machine, _ = workers()
    free = machine.gate("k", "This key", LimitSpec(), CallerLimited, 0.0, 1)
    assert type(free) is Gate
    assert machine.keeps(free, LimitSpec())
    assert not machine.keeps(free, LimitSpec(max_concurrency=1))
    (shared,) = gates([machine], LimitSpec(max_concurrency=1))
    assert machine.keeps(shared, LimitSpec())
    apart = Machine(None, 4).gate("k", "This key", LimitSpec(requests_per_minute=8), CallerLimited, 0.0, 2)
    assert apart.limits == LimitSpec(requests_per_minute=1)
    assert Machine(None, 4).keeps(apart, LimitSpec(requests_per_minute=8))


def test_a_window_is_replaced_when_it_outgrows_its_room(workers: Workers) -> None:
    machine, _ = workers()
    window = machine.rate("p", RateSpec("sliding_window", 20, 2.0), 0.0, 1)
    assert machine.keeps(window, RateSpec("sliding_window", 64, 2.0))
    assert not machine.keeps(window, RateSpec("sliding_window", 129, 2.0))


def test_a_worker_that_comes_later_finds_the_window_of_those_who_made_theirs_smaller(workers: Workers, tmp_path: Path) -> None:
    machine, large, small = workers()[0], RateSpec("sliding_window", 1000, 1000 / 60), RateSpec("sliding_window", 2, 2 / 60)
    window = machine.rate("p", large, 0.0, 1)
    if not machine.keeps(window, small):
        window = machine.rate("p", small, 0.0, 1)
    window.resize(small, 0.0)
    later = Machine(one_more(tmp_path / "limits"), 2)
    try:
        assert (window.book(1, 1.0), window.book(1, 1.0)) == (0.0, 0.0)
        assert later.rate("p", small, 1.0, 1).book(1, 1.0) == pytest.approx(60.0)
    finally:
        dies(later)


def test_nobody_starts_before_the_window_has_room_however_little_is_missing(workers: Workers) -> None:
    spec = RateSpec("sliding_window", 2, 2.0)
    one, other = (machine.rate("p", spec, 0.0, 1) for machine in workers())
    assert (one.book(1, 10.0), one.book(1, 10.0)) == (0.0, 0.0)
    assert one.book(1, 10.996) == pytest.approx(0.004)  # is no queue of calls that have begun
    assert other.book(1, 10.996) == pytest.approx(0.004)


def test_a_call_that_another_worker_began_a_moment_ago_is_no_queue(workers: Workers) -> None:
    one, other = (machine.rate("p", RateSpec("sliding_window", 5, 1.0), 0.0, 1) for machine in workers())
    assert one.book(1, 10.002) == 0.0
    assert other.book(1, 10.001) == 0.0
