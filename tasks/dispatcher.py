"""What works on tasks: one per process, on an event loop. Hundreds at once cost what waiting costs.

Embedded, it looks for tasks itself; on the distributed engine it is fed with their ids (`tasks.jobs`), and looks for itself only now
and then, for tasks whose job was lost. Either way processes share the queue without knowing of each other: each claims what it has
room for, keeps its leases fresh, and takes back what others left when they died.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol, TypeVar

from django.db import DatabaseError

from monitoring import metrics
from monitoring.threads import DatabaseThread, in_one_line
from tasks import queue
from tasks.models import Task
from tasks.queue import Claim, Ending
from tasks.states import Status

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
# A worker that is cancelled asks no vendor again: the next one does.
RENEWALS_PER_LEASE = 10
# A feed brings ids one by one: those of such a moment are claimed together. Who comes after a quiet one does not wait.
_GATHERED_S = 0.02


class Attempts(Protocol):
    async def run(self, task: Task) -> Ending: ...


class Feed(Protocol):
    async def run(self) -> None:
        """Hands ids to `Dispatcher.take` until it is cancelled."""
        ...


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
        # Leases wait for nothing else that this process has to say to the database: they would run out in the queue.
        self._lease_keeper = DatabaseThread("task-leases")
        self._turn, self._filling, self._renewing = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._news = asyncio.Event()
        self._resting = self._stopping = False
        self._running: dict[Claim, asyncio.Task[None]] = {}
        # Of those, the ones whose attempt is over and is being written down: they are not to be cancelled.
        self._over: set[Claim] = set()
        # What came of those that wait to be written down, and those that were written down with another's.
        self._endings: dict[Claim, Ending] = {}
        self._written_with: set[Claim] = set()
        # Ids that a feed has brought, and who waits for what comes of them.
        self._offers: dict[str, asyncio.Future[None]] = {}
        self._feed: asyncio.Task[None] | None = None
        self._filled_at = float("-inf")
        self._loops: list[asyncio.Task[None]] = []

    @property
    def running(self) -> int:
        return len(self._running)

    def start(self, feed: Feed | None = None) -> None:
        """With a feed, it begins what it is fed; without one, what it finds."""
        renewal_s, now_and_then_s = self._lease_s / RENEWALS_PER_LEASE, self._lease_s / 4
        chores: list[tuple[Callable[[], Awaitable[None]], float]] = [(self._tend, renewal_s), (self._reap, now_and_then_s)]
        if feed is not None:
            self._feed = asyncio.create_task(feed.run())
            chores.append((self._find, now_and_then_s))
        self._loops = [asyncio.create_task(self._forever(work, every_s)) for work, every_s in chores]
        self._loops.append(asyncio.create_task(self._forever(self._fill, self._poll_s, news=self._news)))

    def wake(self) -> None:
        """A task was submitted here: nobody need wait for the next look."""
        self._news.set()

    async def take(self, task_id: str) -> None:
        """For a feed: begins this one if it still waits, and returns when the attempt has ended."""
        waiting = self._offers.setdefault(task_id, asyncio.get_running_loop().create_future())
        self._news.set()
        await asyncio.shield(waiting)

    async def rest(self) -> None:
        """Begins nothing more; what runs goes on."""
        self._resting = True
        if self._feed is None:
            return
        self._feed.cancel()
        await asyncio.gather(self._feed, return_exceptions=True)
        self._feed = None
        left = list(set(self._offers) - {str(claimed.task.pk) for claimed in self._running})
        try:
            await self._ask(lambda: queue.tell_again(left))
        except DatabaseError as exc:  # others look for themselves now and then
            _log.warning("other workers are not told of %d tasks (%s)", len(left), in_one_line(exc))

    async def done(self) -> None:
        """Once nothing runs."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    async def stop(self) -> None:
        """Begins nothing more; what runs goes back into the queue, and somebody else begins it anew."""
        await self.rest()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._stopping = True
        left = dict(self._running)
        for claimed, attempt in left.items():
            if claimed not in self._over:
                attempt.cancel()
        await asyncio.gather(*left.values(), return_exceptions=True)
        await self._database.disconnect()
        await self._lease_keeper.disconnect()

    async def _forever(self, work: Callable[[], Awaitable[None]], every_s: float, news: asyncio.Event | None = None) -> None:
        while True:
            try:
                await work()
            except DatabaseError as exc:
                _log.warning("the task queue cannot be read (%s); trying again", in_one_line(exc))
            if news is None:
                await asyncio.sleep(every_s)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await news.wait()
            news.clear()

    async def _fill(self) -> None:
        if self._feed is None:
            await self._find()
            return
        await asyncio.sleep(max(0.0, self._filled_at + _GATHERED_S - asyncio.get_running_loop().time()))
        async with self._filling:
            running = self._begun()
            offered = list(islice((each for each in self._offers if each not in running), self._room))
            if not offered:
                return
            begun = await self._claimed(len(offered), only=offered)
            self._filled_at = asyncio.get_running_loop().time()
        for task_id in set(offered) - begun:
            self._dealt_with(task_id)

    async def _find(self) -> None:
        """Whatever is due: all there is to it without a feed, and with one what has escaped it."""
        async with self._filling:
            if self._room > 0:
                await self._claimed(self._room)

    @property
    def _room(self) -> int:
        return 0 if self._resting else max(0, self._concurrency - len(self._running))

    def _begun(self) -> set[str]:
        return {str(claimed.task.pk) for claimed in self._running}

    async def _claimed(self, most: int, only: Sequence[str] | None = None) -> set[str]:
        """Ids of those that have begun."""
        claims = await self._ask(lambda: queue.claim(self._name, most, self._wall(), self._lease_s, only=only))
        for claimed in claims:
            self._running[claimed] = asyncio.create_task(self._work(claimed))
        metrics.ACTIVE_TASKS.set(len(self._running))
        return {str(claimed.task.pk) for claimed in claims}

    def _dealt_with(self, task_id: str) -> None:
        waiting = self._offers.pop(task_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def _tend(self) -> None:
        """Keeps leases, and stops what is no longer ours: cancelled, or given to another after a pause that was too long."""
        claims = list(self._running)
        if not claims:
            return
        async with self._renewing:
            ours = set(await self._lease_keeper.run(lambda: queue.renew(claims, self._wall(), self._lease_s)))
        for claimed in claims:
            if claimed not in ours and claimed not in self._over and (attempt := self._running.get(claimed)) is not None:
                attempt.cancel()

    async def _reap(self) -> None:
        await self._tend()  # whoever had no processor for a while is not to take its own tasks for those of the dead
        returned, _ = await self._ask(lambda: queue.reap(self._wall()))
        waiting, oldest_s = await self._ask(lambda: queue.standing(self._wall()))
        metrics.QUEUE_LENGTH.set(waiting)
        metrics.QUEUE_OLDEST.set(oldest_s)
        if returned:
            _log.warning("%d tasks of a worker that is gone are in the queue again", returned)
            self._news.set()

    async def _work(self, claimed: Claim) -> None:
        try:
            outcome = await self._attempts.run(claimed.task)
        except asyncio.CancelledError:
            outcome = Ending(Status.QUEUED, error_message="Its worker was stopped.", again_at=self._wall())
        self._over.add(claimed)
        try:
            await self._written(claimed, outcome)
        finally:
            self._over.discard(claimed)
            del self._running[claimed]
            metrics.ACTIVE_TASKS.set(len(self._running))
            self._dealt_with(str(claimed.task.pk))
            self._news.set()

    async def _written(self, claimed: Claim, outcome: Ending) -> None:
        """An ending that cannot be written now is tried until its lease is over; then another worker does the task again."""
        until = self._wall() + self._lease_s
        write = self._end
        while True:
            try:
                await asyncio.shield(write(claimed, outcome))
                return
            except DatabaseError as exc:
                if self._wall() >= until or self._stopping:
                    _log.error("what came of %s cannot be written (%s); it will be done again", claimed.task, in_one_line(exc))
                    return
                write = self._end_alone
                await asyncio.sleep(self._poll_s)

    async def _end(self, claimed: Claim, outcome: Ending) -> None:
        """Whose turn it is writes for all that wait by then. Where that fails, each of the others writes its own."""
        self._endings[claimed] = outcome
        async with self._turn:
            if claimed in self._written_with:
                self._written_with.discard(claimed)
                return
            together = {claimed: outcome}
            if claimed in self._endings:
                together, self._endings = self._endings, {}
            await self._database.run(lambda: queue.end_all(together, self._wall()))
            self._written_with.update(together.keys() - {claimed})

    async def _end_alone(self, claimed: Claim, outcome: Ending) -> None:
        await self._ask(lambda: queue.end(claimed, outcome, self._wall()))

    async def _ask(self, work: Callable[[], _T]) -> _T:
        async with self._turn:
            return await self._database.run(work)
