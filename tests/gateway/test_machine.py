"""Limits that workers share. Each `Machine` here has its own region open, as a worker has; their locks exclude each other."""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.config import LimitSpec, RateSpec
from core.errors import CallerLimited, GatewayError, ProviderLimited
from gateway.adaptive import Adaptive
from gateway.limits import Gate, Gates, Local, Slots, fresh_rate
from gateway.rates import Bucket
from gateway.sharing import machine_folder
from gateway.sharing.machine import Machine, SharedSlots, joined
from gateway.sharing.machine_directory import RegionFull
from gateway.sharing.machine_folder import FOLDER_VARIABLE, WORKERS_VARIABLE, shared_folder
from gateway.sharing.machine_region import Region, create
from gateway.sharing.machine_window import SharedWindow

Workers = Callable[..., list[Machine]]
SIZE_BYTES = 2**18


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    """Makes a machine anew, with so many workers."""
    opened: list[Machine] = []

    def end() -> None:
        while opened:
            dies(opened.pop())

    def make(count: int = 2, size_bytes: int = SIZE_BYTES, columns: int = 8) -> list[Machine]:
        end()
        (tmp_path / "limits").unlink(missing_ok=True)
        create(tmp_path / "limits", size_bytes, columns)
        opened.extend(Machine(one_more(tmp_path / "limits"), count) for _ in range(count))
        return list(opened)

    yield make
    end()


def one_more(path: Path) -> Region:
    region = Region(path)
    region.take_column()
    return region


def dies(worker: Machine) -> None:
    assert worker.region is not None
    worker.region.close()


def gates(machines: list[Machine], limits: LimitSpec, now: float = 0.0, name: str = "k") -> list[Gate]:
    return [machine.gate(name, "This key", limits, CallerLimited, now, 1) for machine in machines]


def outcome(gate: Gate | Gates, tokens: int, now: float) -> tuple[str, float]:
    """("", 0.0) = it is in."""
    try:
        gate.enter(tokens, now)
    except GatewayError as refused:
        return refused.message, round(refused.retry_after_s or 0.0, 6)
    return "", 0.0


LIMITS = st.builds(LimitSpec, st.none() | st.integers(1, 100), st.none() | st.integers(1, 5000), st.none() | st.integers(1, 3)).filter(
    lambda limits: limits.limits_something
)
SEVERAL = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@SEVERAL
@given(
    limits=LIMITS,
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2000), st.floats(0, 30), st.sampled_from(["enter", "enter", "leave", "undo", "note"])),
        max_size=40,
    ),
    start=st.floats(0, 1e6),
)
def test_a_gate_of_three_workers_does_as_one_worker_alone_would(workers: Workers, limits: LimitSpec, steps: list, start: float) -> None:
    shared, alone = gates(workers(3), limits, start), Gate("This key", limits)
    inside: list[tuple[int, int]] = []
    now = start
    for worker, tokens, pause_s, what in steps:
        now += pause_s
        if what in ("leave", "undo"):
            if inside:
                entered_by, tokens = inside.pop(0)
                for gate in (shared[entered_by], alone):
                    gate.undo(tokens) if what == "undo" else gate.leave(tokens, tokens // 2, now)
        elif what == "note":
            shared[worker].note(tokens, now)
            alone.note(tokens, now)
            inside.append((worker, tokens))
        else:
            found = outcome(shared[worker], tokens, now)
            assert found == outcome(alone, tokens, now)
            if not found[0]:
                inside.append((worker, tokens))
        assert all(gate.headers(now) == alone.headers(now) for gate in shared)
    assert sum(gate._cell.own for gate in shared) == len(inside) == alone.in_flight  # type: ignore[attr-defined]


RATES = st.sampled_from([RateSpec("token_bucket", 3, 0.5), RateSpec("sliding_window", 3, 0.5), RateSpec("sliding_window", 20, 4.0)])


@SEVERAL
@given(
    spec=RATES,
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.floats(0, 3), st.sampled_from(["book", "book", "book", "give back", "resize"])), max_size=120
    ),
)
def test_a_rate_of_three_workers_does_as_one_worker_alone_would(workers: Workers, spec: RateSpec, steps: list) -> None:
    shared, alone = [machine.rate("p", spec, 5.0, 1) for machine in workers(3)], fresh_rate(spec)
    booked: list[float] = []
    now = 5.0
    for worker, pause_s, what in steps:
        now += pause_s
        if what == "book":
            wait_s = shared[worker].book(1, now)
            assert wait_s == pytest.approx(alone.book(1, now))
            booked.append(now + wait_s)
        elif what == "resize":  # every worker hears of it; the numbers of the rate halve
            spec = RateSpec(spec.type, max(1.0, spec.capacity // 2), spec.refill_rate / 2)
            for one in (*shared, alone):
                one.resize(spec, now)
        elif booked:
            start_at = booked.pop()
            shared[worker].give_back(1, start_at)
            alone.give_back(1, start_at)
        assert [one.used(now) for one in shared] == [alone.used(now)] * 3
        assert shared[0].state(now) == alone.state(now)


def test_the_refusal_names_what_all_have_used_and_the_wait_is_exact(workers: Workers) -> None:
    first, second = gates(workers(), LimitSpec(requests_per_minute=2))
    first.enter(1, 0.0)
    second.enter(1, 0.0)
    for gate in (first, second):
        with pytest.raises(CallerLimited, match=r"This key has used 2 of 2 requests per minute; try again in 30\.000 s") as refused:
            gate.enter(1, 0.0)
        assert refused.value.retry_after_s == pytest.approx(30.0)
    assert outcome(first, 1, 29.999)[0]
    assert outcome(second, 1, 30.0)[0] == ""


def test_key_and_team_are_shared_each_and_a_refusal_takes_nothing(workers: Workers) -> None:
    machines = workers()
    both = [
        Gates(key, team)
        for key, team in zip(
            gates(machines, LimitSpec(requests_per_minute=10, tokens_per_minute=1000)),
            gates(machines, LimitSpec(requests_per_minute=1), name="team"),
            strict=True,
        )
    ]
    both[0].enter(100, 0.0)
    before = both[1].headers(0.0)
    assert "1 of 1 requests" in outcome(both[1], 100, 0.0)[0]
    assert both[1].headers(0.0) == before


def test_a_limit_that_was_freed_between_refusal_and_its_words_still_refuses(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    key, other = gates(workers(), LimitSpec(max_concurrency=1))
    other.enter(1, 0.0)
    team = Gate("Team growth", LimitSpec(requests_per_minute=1))
    undo = team.undo
    monkeypatch.setattr(Gate, "undo", lambda gate, tokens: (undo(tokens), other.leave(1, 1, 0.0)))
    with pytest.raises(CallerLimited, match="1 of 1 concurrent"):
        Gates(team, key).enter(1, 0.0)


def test_calls_of_a_worker_that_died_are_no_longer_in_flight(workers: Workers) -> None:
    machines = workers(3)
    first, second, third = gates(machines, LimitSpec(max_concurrency=3))
    for gate in (first, first, second):
        gate.enter(1, 0.0)
    assert "3 of 3 concurrent" in outcome(third, 1, 0.0)[0]
    dies(machines[0])
    assert outcome(third, 1, 0.0)[0] == ""
    assert third.in_flight == 2


def test_who_takes_the_column_of_a_dead_worker_begins_with_nothing_in_flight(workers: Workers, tmp_path: Path) -> None:
    machines = workers(2, columns=2)
    first, second = gates(machines, LimitSpec(max_concurrency=2))
    first.enter(1, 0.0)
    first.enter(1, 0.0)
    with pytest.raises(RegionFull, match="column"):
        one_more(tmp_path / "limits")
    dies(machines[0])
    next_one = one_more(tmp_path / "limits")  # has not met this key when the other one counts
    assert next_one.column == 0
    second.enter(1, 0.0)
    assert second.in_flight == 1


def test_a_holder_of_the_lock_that_does_not_go_on_stops_nobody(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    frozen, free = workers()
    stuck, gate = gates([frozen, free], LimitSpec(requests_per_minute=5))
    assert free.region is not None
    naps: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.sharing.machine_region.time.sleep", naps.append)
        with stuck._cell:  # type: ignore[attr-defined]
            gate.enter(1, 0.0)
            waited = len(naps)
            gate.enter(1, 0.0)
            assert 0 < waited == len(naps)  # it is waited for once
        assert free.region.unlocked == 2
        gate.leave(1, 1, 0.0)
    gate.enter(1, 0.0)
    assert free.region.unlocked == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert dict(gate.headers(0.0))[b"x-ratelimit-remaining-requests"] == b"2"


def test_new_numbers_are_taken_once_by_all_and_one_who_joins_later_changes_nothing(workers: Workers, tmp_path: Path) -> None:
    machines = workers()
    both = gates(machines, LimitSpec(requests_per_minute=100))
    for _ in range(30):
        both[0].enter(1, 0.0)
    for gate in both:
        gate.apply("This key", LimitSpec(requests_per_minute=40), 0.0)
    late = Machine(one_more(tmp_path / "limits"), 2)
    (joins,) = gates([late], LimitSpec(requests_per_minute=40))
    assert [dict(gate.headers(0.0))[b"x-ratelimit-remaining-requests"] for gate in (*both, joins)] == [b"10"] * 3


def test_a_bucket_booked_from_the_future_keeps_its_queue_when_another_worker_joins(workers: Workers, tmp_path: Path) -> None:
    spec = RateSpec("token_bucket", 1, 1.0)
    first = workers()[0].rate("p", spec, 0.0, 1)
    assert [first.book(1, 0.0) for _ in range(3)] == pytest.approx([0.0, 1.0, 2.0])
    assert Machine(one_more(tmp_path / "limits"), 2).rate("p", spec, 0.0, 1).book(1, 0.0) == pytest.approx(3.0)


def test_a_window_never_needs_more_room_than_it_has(workers: Workers) -> None:
    first, second = (machine.rate("p", RateSpec("sliding_window", 2, 1.0), 0.0, 1) for machine in workers())
    assert isinstance(first, SharedWindow)
    alone = fresh_rate(RateSpec("sliding_window", 2, 1.0))
    for index in range(3 * first.doubles):  # a queue far longer than the window
        assert (first, second)[index % 2].book(1, 0.0) == pytest.approx(alone.book(1, 0.0))


def test_more_places_given_back_than_there_is_room_for_stay_taken(workers: Workers) -> None:
    (limit,) = (machine.rate("p", RateSpec("sliding_window", 100, 100.0), 0.0, 1) for machine in workers(1))
    for _ in range(100):
        limit.book(1, 0.0)
    for _ in range(100):
        limit.give_back(1, 0.0)
    assert [limit.book(1, 0.0) for _ in range(65)] == [0.0] * 64 + [pytest.approx(1.0)]


def test_what_finds_no_room_is_shared_out_and_one_line_says_so(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    machine, _ = workers(2, size_bytes=2**13, columns=8)
    limits = LimitSpec(requests_per_minute=60, max_concurrency=1)
    made = [machine.gate(f"k{number}", "This key", limits, CallerLimited, 0.0, 1) for number in range(300)]
    assert (machine.parts(made[0]), machine.parts(made[-1])) == (1, 2)
    assert made[0].limits == limits
    assert made[-1].limits == LimitSpec(requests_per_minute=30, max_concurrency=1)
    window = machine.rate("p", RateSpec("sliding_window", 1000, 10.0), 0.0, 1)
    assert window.state(0.0) == "used 0 of 500 calls in 100 s"
    assert type(machine.slots("p")) is Slots
    (record,) = caplog.records
    assert "LLM_SHARED_LIMITS_BYTES" in record.message


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


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (FOLDER_VARIABLE, WORKERS_VARIABLE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(machine_folder, "_MEMORY", folder)
    return folder


def test_workers_join_the_folder_of_their_supervisor_which_is_gone_at_the_end(memory: Path, tmp_path: Path) -> None:
    with shared_folder(tmp_path / "state", 2, SIZE_BYTES):
        (folder,) = memory.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "limits").stat().st_mode) == 0o600
        machines = [joined(), joined()]
        first, second = gates(machines, LimitSpec(requests_per_minute=1))  # type: ignore[arg-type]
        first.enter(1, 0.0)
        assert "1 of 1" in outcome(second, 1, 0.0)[0]
        for machine in machines:
            dies(machine)  # type: ignore[arg-type]
    assert not list(memory.iterdir())


def test_what_a_killed_supervisor_left_is_removed_and_what_a_live_one_has_is_not(memory: Path, tmp_path: Path) -> None:
    with shared_folder(tmp_path / "state", 2, SIZE_BYTES):
        (live,) = memory.iterdir()
        orphan = live.with_name(live.name + "-orphan")
        orphan.mkdir()
        create(orphan / "limits", SIZE_BYTES, 2)
        with shared_folder(tmp_path / "state", 2, SIZE_BYTES):
            assert not orphan.exists()
            assert live in memory.iterdir()


def test_without_room_in_memory_the_state_folder_serves(memory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory.rmdir()
    (tmp_path / "state").mkdir()
    with shared_folder(tmp_path / "state", 2, SIZE_BYTES):
        assert len(list((tmp_path / "state").iterdir())) == 1
        assert not caplog.records
    assert not list((tmp_path / "state").iterdir())


def test_where_nothing_can_be_shared_each_worker_has_its_part_and_one_line_says_so(
    memory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory.rmdir()
    with shared_folder(tmp_path / "nowhere", 4, SIZE_BYTES):
        (gate,) = gates([joined()], LimitSpec(requests_per_minute=8))  # type: ignore[list-item]
    assert gate.limits == LimitSpec(requests_per_minute=2)
    assert ["limit ÷ 4" in record.message for record in caplog.records] == [True]


def test_a_worker_that_finds_no_folder_holds_its_part(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(WORKERS_VARIABLE, "4")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "gone"))
    assert joined().workers == 4
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_one_process_has_no_region(memory: Path) -> None:
    limits = joined()
    assert type(limits) is Local
    gate = limits.gate("k", "This key", LimitSpec(requests_per_minute=1), CallerLimited, 0.0, 1)
    assert (type(gate), type(gate.requests), type(limits.slots("p"))) == (Gate, Bucket, Slots)


def test_a_file_that_is_no_region_is_refused(tmp_path: Path) -> None:
    (tmp_path / "limits").write_bytes(bytes(2**14))
    with pytest.raises(ValueError, match="no region"):
        Region(tmp_path / "limits")
