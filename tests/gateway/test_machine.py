"""Limits that workers share. Each `Machine` here has its own region open, as a worker has; their locks exclude each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.config import LimitSpec, RateSpec
from core.errors import CallerLimited, GatewayError
from gateway.limits import Gate, Gates, Slots, fresh_rate
from gateway.sharing.machine import Machine
from gateway.sharing.machine_directory import RegionFull
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
