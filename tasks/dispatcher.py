"""The embedded engine: one per process, on the event loop that serves. Hundreds of tasks at once cost what waiting costs.

Processes share the queue without knowing of each other: each claims what it has room for, keeps its leases fresh, and takes
back what others left when they died.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from django.db import DatabaseError

from monitoring.threads import DatabaseThread, in_one_line
from tasks import queue
from tasks.models import Task
from tasks.queue import Claim, Ending
from tasks.states import Status

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
# A worker that is cancelled asks no vendor again: the next one does.
RENEWALS_PER_LEASE = 10


class Attempts(Protocol):
    async def run(self, task: Task) -> Ending: ...


class Dispatcher:
    """`concurrency`: tasks at once in this process. `poll_s`: how long a task that another process took in may lie unseen."""

    def __init__(self, attempts: Attempts, wall: Callable[[], float], *, concurrency: int, lease_s: float, poll_s: float) -> None:
        self._attempts = attempts
        self._wall = wall
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._name = secrets.token_hex(8)
        self._database = DatabaseThread("tasks")
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._running: dict[Claim, asyncio.Task[None]] = {}
        self._loops: list[asyncio.Task[None]] = []

    @property
    def running(self) -> int:
        return len(self._running)

    def start(self) -> None:
        self._loops = [asyncio.create_task(self._forever(work, every_s)) for work, every_s in self._chores()]

    def wake(self) -> None:
        """A task was submitted here: nobody need wait for the next look."""
        self._news.set()

    async def stop(self) -> None:
        """Begins nothing more; what runs goes back into the queue, and somebody else begins it anew."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for attempt in self._running.values():
            attempt.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._database.disconnect()

    def _chores(self) -> list[tuple[Callable[[], Awaitable[None]], float]]:
        renewal_s = self._lease_s / RENEWALS_PER_LEASE
        return [(self._fill, self._poll_s), (self._tend, renewal_s), (self._reap, self._lease_s / 4)]

    async def _forever(self, work: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            try:
                await work()
            except DatabaseError as exc:
                _log.warning("the task queue cannot be read (%s); trying again", in_one_line(exc))
            if work == self._fill:
                with suppress(TimeoutError):
                    async with asyncio.timeout(every_s):
                        await self._news.wait()
                self._news.clear()
            else:
                await asyncio.sleep(every_s)

    async def _fill(self) -> None:
        room = self._concurrency - len(self._running)
        if room <= 0:
            return
        for claimed in await self._ask(lambda: queue.claim(self._name, room, self._wall(), self._lease_s)):
            self._running[claimed] = asyncio.create_task(self._work(claimed))

    async def _tend(self) -> None:
        """Keeps leases, and stops what is no longer ours: cancelled, or given to another after a pause that was too long."""
        claims = list(self._running)
        if not claims:
            return
        ours = set(await self._ask(lambda: queue.renew(claims, self._wall(), self._lease_s)))
        for claimed in claims:
            if claimed not in ours and (attempt := self._running.get(claimed)) is not None:
                attempt.cancel()

    async def _reap(self) -> None:
        returned, _ = await self._ask(lambda: queue.reap(self._wall()))
        if returned:
            _log.warning("%d tasks of a worker that is gone are in the queue again", returned)
            self._news.set()

    async def _work(self, claimed: Claim) -> None:
        try:
            ending = await self._attempts.run(claimed.task)
        except asyncio.CancelledError:
            ending = Ending(Status.QUEUED, error_message="Its worker was stopped.", again_at=self._wall())
        finally:
            self._running.pop(claimed, None)
        await self._written(claimed, ending)
        self._news.set()

    async def _written(self, claimed: Claim, ending: Ending) -> None:
        """An ending that cannot be written now is tried until its lease is over; then another worker does the task again."""
        until = self._wall() + self._lease_s
        while True:
            try:
                await asyncio.shield(self._ask(lambda: queue.end(claimed, ending, self._wall())))
                return
            except DatabaseError as exc:
                if self._wall() >= until:
                    _log.error("what came of %s cannot be written (%s); it will be done again", claimed.task, in_one_line(exc))
                    return
                await asyncio.sleep(self._poll_s)

    async def _ask(self, work: Callable[[], _T]) -> _T:
        async with self._turn:
            return await self._database.run(work)
