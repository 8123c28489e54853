"""The distributed engine: procrastinate on PostgreSQL carries the ids of tasks, and wakes workers by LISTEN and NOTIFY.

A job says "this task waits", and lasts until the attempt has ended, so that a worker is handed no more than it has room for. What
befalls a job is of no account: one that comes twice finds its task taken, and a task whose job was lost is found by the sweep of
any dispatcher.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
import psycopg_pool
from procrastinate import App, PsycopgConnector, exceptions
from procrastinate.contrib.django import app as through_django
from procrastinate.contrib.django.utils import connector_params
from procrastinate.jobs import DeleteJobCondition, Status
from procrastinate.types import JSONDict

from monitoring.threads import in_one_line
from tasks.engine import Waiting

NAME, QUEUE = "tasks.attempt", "tasks"
# Priorities are 32 bits wide: seconds since September 2025, earlier ones first, reach beyond 2090.
_EPOCH_S = 1_757_000_000
_CONNECTIONS = 4
_GIVE_UP_S = 1.0
_CONNECTED_WITHIN_S = 5.0  # a worker that ends while the database is away waits for this some times in a row
_CHECKED_EVERY_S = 1.0
_FAILURES = (exceptions.ProcrastinateException, psycopg.Error, psycopg_pool.PoolTimeout, OSError)
_log = logging.getLogger(__name__)


def enqueue(waiting: Sequence[Waiting]) -> None:
    """Through Django's connection: the jobs are there when its transaction is committed, and not before."""
    alike: dict[tuple[int, float], list[JSONDict]] = {}
    for each in waiting:
        alike.setdefault((_EPOCH_S - int(each.rank), each.run_after), []).append({"task_id": each.task_id})
    for (priority, run_after), arguments in alike.items():
        job = through_django.configure_task(
            NAME,
            queue=QUEUE,
            priority=priority,
            schedule_at=datetime.fromtimestamp(run_after, UTC) if run_after else None,
        )
        job.batch_defer(*arguments)


class Feed:
    """A procrastinate worker on this event loop. `take` is given the id of each job's task, and returns when that was dealt with."""

    def __init__(self, take: Callable[[str], Awaitable[None]], *, concurrency: int, poll_s: float, silence_s: float) -> None:
        """`poll_s`: between looks where no notification came. `silence_s`: a worker that says nothing for so long is gone."""
        self._take = take
        self._concurrency = concurrency
        self._poll_s = poll_s
        self._silence_s = silence_s

    async def run(self) -> None:
        """Until cancelled; a database that goes away is tried again."""
        while True:
            try:
                await self._work()
                _log.warning("procrastinate's worker has ended; another begins in %.1f s", self._poll_s)
            except _FAILURES as exc:
                _log.warning("procrastinate cannot be used (%s); tried again in %.1f s", in_one_line(exc), self._poll_s)
            if _cancelled():  # a worker that is told to end may answer by what it could not do any more
                raise asyncio.CancelledError
            await asyncio.sleep(self._poll_s)

    async def _work(self) -> None:
        connector = PsycopgConnector(
            kwargs=connector_params(),
            min_size=1,
            max_size=_CONNECTIONS,
            timeout=_CONNECTED_WITHIN_S,
            reconnect_timeout=self._silence_s,
            pool_factory=_pool,
        )
        app = App(connector=connector)
        app.task(name=NAME, queue=QUEUE)(self._attempt)
        async with app.open_async():
            tidying = asyncio.create_task(self._tidy(app))
            try:
                await app.run_worker_async(
                    queues=[QUEUE],
                    concurrency=self._concurrency,
                    fetch_job_polling_interval=self._poll_s,
                    shutdown_graceful_timeout=_GIVE_UP_S,
                    delete_jobs=DeleteJobCondition.ALWAYS,
                    install_signal_handlers=False,
                    update_heartbeat_interval=self._silence_s / 3,
                    stalled_worker_timeout=self._silence_s,
                )
            finally:
                tidying.cancel()
                with suppress(asyncio.CancelledError):
                    await tidying

    async def _attempt(self, task_id: str) -> None:
        await self._take(task_id)

    async def _tidy(self, app: App) -> None:
        """Jobs of workers that are gone: their tasks are in the queue again, with jobs of their own, once their leases have run out."""
        while True:
            await asyncio.sleep(self._silence_s)
            try:
                for job in await app.job_manager.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=self._silence_s):
                    await app.job_manager.finish_job(job, Status.FAILED, delete_job=True)
                await app.job_manager.prune_stalled_workers(self._silence_s)
            except _FAILURES as exc:
                _log.warning("what workers that are gone have left behind stays for now (%s)", in_one_line(exc))


def _pool(**options: Any) -> psycopg_pool.AsyncConnectionPool:
    """procrastinate's, which would ask before each use of a connection whether it still works: half of what it asks in all."""
    checked_at: WeakKeyDictionary[psycopg.AsyncConnection, float] = WeakKeyDictionary()

    async def check(connection: psycopg.AsyncConnection) -> None:
        now = time.monotonic()
        if now - checked_at.get(connection, float("-inf")) >= _CHECKED_EVERY_S:
            await psycopg_pool.AsyncConnectionPool.check_connection(connection)
            checked_at[connection] = now

    return psycopg_pool.AsyncConnectionPool(**{**options, "check": check})


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
