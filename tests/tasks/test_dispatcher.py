"""The dispatcher beside a queue that a test holds: what it begins, what it stops, and what it leaves behind when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import DatabaseError
from prometheus_client import generate_latest

from tasks import dispatcher as module
from tasks.dispatcher import Dispatcher
from tasks.models import Task
from tasks.queue import Claim, Ending
from tasks.states import Status


class Queue:
    """In place of `tasks.queue`."""

    def __init__(self, count: int) -> None:
        self.waiting = [Task(kind="custom", timeout_s=1, max_attempts=3, rank=number) for number in range(count)]
        self.ended: list[tuple[UUID, Ending]] = []
        self.lost: set[UUID] = set()
        self.told: list[str] = []
        self.at_once: list[int] = []
        self.poison: UUID | None = None
        self.asked: list[str] = []

    def claim(self, worker: str, most: int, now: float, lease_s: float, *, only: Sequence[str] | None = None) -> list[Claim]:
        taken = [task for task in self.waiting if only is None or str(task.pk) in only][:most]
        self.waiting = [task for task in self.waiting if task not in taken]
        return [Claim(task, 1) for task in taken]

    def renew(self, claims: Sequence[Claim], now: float, lease_s: float) -> list[Claim]:
        self.asked.append("renew")
        return [each for each in claims if each.task.pk not in self.lost]

    def end(self, claimed: Claim, outcome: Ending, now: float) -> bool:
        return bool(self.end_all({claimed: outcome}, now))

    def end_all(self, outcomes: Mapping[Claim, Ending], now: float) -> list[Task]:
        self.at_once.append(len(outcomes))
        if self.poison in [claimed.task.pk for claimed in outcomes]:
            raise DatabaseError("this result cannot be stored")
        self.ended += [(claimed.task.pk, outcome) for claimed, outcome in outcomes.items()]
        return [claimed.task for claimed in outcomes]

    def reap(self, now: float) -> tuple[int, int]:
        self.asked.append("reap")
        return 0, 0

    def standing(self, now: float) -> tuple[int, float]:
        return len(self.waiting), 7.0 if self.waiting else 0.0

    def tell_again(self, task_ids: Sequence[str]) -> None:
        self.told += task_ids


class Attempts:
    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.begun: list[UUID] = []

    async def run(self, task: Task) -> Ending:
        self.begun.append(task.pk)
        await self.open.wait()
        return Ending(Status.COMPLETED, result={})


class Here:
    """In place of a database's thread."""

    def __init__(self, name: str) -> None:
        pass

    async def run(self, work: Callable[[], Any]) -> Any:
        await asyncio.sleep(0)
        return work()

    async def disconnect(self) -> None:
        pass


class Quiet:
    """A feed that says nothing: the test calls `take`."""

    async def run(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[Queue], tuple[Dispatcher, Attempts]]:
    def make(rows: Queue) -> tuple[Dispatcher, Attempts]:
        monkeypatch.setattr(module, "queue", rows)
        monkeypatch.setattr(module, "DatabaseThread", Here)
        attempts = Attempts()
        return Dispatcher(attempts, lambda: 1000.0, concurrency=2, lease_s=0.2, poll_s=0.01), attempts

    return make


def many(rows: Queue, wall: Callable[[], float] = lambda: 1000.0) -> tuple[Dispatcher, Attempts]:
    attempts = Attempts()
    return Dispatcher(attempts, wall, concurrency=50, lease_s=0.2, poll_s=0.01), attempts


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not look():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_it_begins_what_it_has_room_for_and_goes_on(made: Any) -> None:
    rows = Queue(5)
    dispatcher, attempts = made(rows)
    dispatcher.start()
    await until(lambda: len(attempts.begun) == 2)
    await asyncio.sleep(0.05)
    assert (len(attempts.begun), dispatcher.running) == (2, 2)
    seen = generate_latest().decode()
    assert "llm_active_tasks 2.0" in seen
    assert "llm_queue_length 3.0" in seen
    assert "llm_queue_oldest_seconds 7.0" in seen
    attempts.open.set()
    await until(lambda: len(rows.ended) == 5)
    await dispatcher.done()
    await dispatcher.stop()
    assert {outcome.status for _, outcome in rows.ended} == {Status.COMPLETED}


async def test_what_ends_while_the_database_is_busy_is_written_together(made: Any) -> None:
    rows = Queue(20)
    made(rows)
    dispatcher, attempts = many(rows)
    dispatcher.start()
    await until(lambda: len(attempts.begun) == 20)
    rows.at_once.clear()
    attempts.open.set()
    await dispatcher.done()
    assert len(rows.ended) == len({task_id for task_id, _ in rows.ended}) == 20
    assert len(rows.at_once) < 5
    await dispatcher.stop()


async def test_an_ending_that_cannot_be_written_holds_up_no_other(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows, clock = Queue(5), iter(range(1000, 100_000))
    made(rows)
    dispatcher, attempts = many(rows, lambda: next(clock) / 50)
    dispatcher.start()
    await until(lambda: len(attempts.begun) == 5)
    rows.poison = attempts.begun[2]
    attempts.open.set()
    await dispatcher.done()
    assert {task_id for task_id, _ in rows.ended} == set(attempts.begun) - {rows.poison}
    assert "it will be done again" in caplog.text
    await dispatcher.stop()


async def test_leases_are_renewed_before_those_of_the_dead_are_looked_for(made: Any) -> None:
    """Whoever had no processor for longer than a lease finds its own tasks among them otherwise."""
    rows = Queue(1)
    dispatcher, _ = made(rows)
    await dispatcher._find()
    await dispatcher._reap()
    assert rows.asked == ["renew", "reap"]
    await dispatcher.stop()


async def test_leases_are_renewed_while_the_database_has_much_else_to_write(made: Any) -> None:
    rows = Queue(1)
    dispatcher, attempts = made(rows)
    dispatcher.start()
    await until(lambda: attempts.begun)
    async with dispatcher._turn:
        rows.asked.clear()
        await until(lambda: rows.asked.count("renew") >= 3)
    await dispatcher.stop()


async def test_what_is_no_longer_ours_is_stopped(made: Any) -> None:
    rows = Queue(1)
    dispatcher, attempts = made(rows)
    dispatcher.start()
    await until(lambda: attempts.begun)
    rows.lost.add(attempts.begun[0])
    await until(lambda: dispatcher.running == 0)
    await dispatcher.stop()


async def test_a_stop_puts_back_what_runs_and_a_rest_does_not(made: Any) -> None:
    rows = Queue(4)
    dispatcher, attempts = made(rows)
    dispatcher.start()
    await until(lambda: len(attempts.begun) == 2)
    await dispatcher.rest()
    attempts.open.set()
    await dispatcher.done()
    await asyncio.sleep(0.05)
    assert (len(rows.ended), len(rows.waiting)) == (2, 2), "it begins nothing more"
    await dispatcher.stop()

    rows = Queue(1)
    dispatcher, attempts = made(rows)
    dispatcher.start()
    await until(lambda: attempts.begun)
    await dispatcher.stop()
    ((_, outcome),) = rows.ended
    assert (outcome.status, outcome.again_at) == (Status.QUEUED, 1000.0)


async def test_fed_it_begins_what_it_is_told_and_says_when_that_has_ended(made: Any) -> None:
    rows = Queue(3)
    wanted = rows.waiting[2]
    rows.waiting = [wanted]
    dispatcher, attempts = made(rows)
    dispatcher.start(Quiet())
    twice = [asyncio.create_task(dispatcher.take(str(wanted.pk))) for _ in range(2)]
    gone = asyncio.create_task(dispatcher.take(str(uuid4())))
    await until(lambda: attempts.begun == [wanted.pk])
    await asyncio.wait_for(gone, 30)
    assert not any(each.done() for each in twice)
    attempts.open.set()
    await asyncio.wait_for(asyncio.gather(*twice), 30)
    assert len(rows.ended) == 1
    await dispatcher.stop()


async def test_fed_it_finds_tasks_whose_job_was_lost(made: Any) -> None:
    rows = Queue(2)
    dispatcher, attempts = made(rows)
    dispatcher.start(Quiet())
    await until(lambda: len(attempts.begun) == 2)
    await dispatcher.stop()


async def test_what_it_was_told_of_and_has_no_room_for_is_told_to_another(made: Any) -> None:
    rows = Queue(3)
    ids = [str(task.pk) for task in rows.waiting]
    dispatcher, attempts = made(rows)
    dispatcher.start(Quiet())
    taking = [asyncio.create_task(dispatcher.take(each)) for each in ids]
    await until(lambda: len(attempts.begun) == 2)
    await dispatcher.rest()
    assert set(rows.told) == set(ids) - {str(each) for each in attempts.begun}
    attempts.open.set()
    await dispatcher.done()
    await dispatcher.stop()
    for each in taking:
        each.cancel()
    await asyncio.gather(*taking, return_exceptions=True)
