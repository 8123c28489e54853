"""The dispatcher beside a queue that a test holds: what it begins, what it stops, and what it leaves behind when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
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

    def claim(self, worker: str, most: int, now: float, lease_s: float, *, only: Sequence[str] | None = None) -> list[Claim]:
        taken = [task for task in self.waiting if only is None or str(task.pk) in only][:most]
        self.waiting = [task for task in self.waiting if task not in taken]
        return [Claim(task, 1) for task in taken]

    def renew(self, claims: Sequence[Claim], now: float, lease_s: float) -> list[Claim]:
        return [each for each in claims if each.task.pk not in self.lost]

    def end(self, claimed: Claim, outcome: Ending, now: float) -> bool:
        self.ended.append((claimed.task.pk, outcome))
        return True

    def reap(self, now: float) -> tuple[int, int]:
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
