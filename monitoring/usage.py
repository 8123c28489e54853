"""From the journal into the ledger: a drainer for the living process, a replay for the dead ones."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from django.db import Error

from core.clock import Clock, SystemClock
from monitoring import accounts, metrics, open_requests
from monitoring.bodies import BodyStore
from monitoring.chain import Chain, Report
from monitoring.interruption import NEVER_ENDED, PROCESS_DIED
from monitoring.journal import Journal, Position, segment_numbers, segment_path, take_lock, tokens
from monitoring.reserve import written_bytes
from monitoring.retention import Pruner
from monitoring.threads import DatabaseThread, in_one_line

log = logging.getLogger(__name__)

ADOPT_INTERVAL_S = 5.0
MAX_BACKOFF_S = 5.0
# A provider's total timeout is at most a day: what has no end after that will not get one.
UNFINISHED_MAX_AGE_S = 90_000.0


def replay(directory: Path) -> Report:
    """Enters what dead processes left in `directory`, and clears it away. Journals in use are left alone.

    May be interrupted and repeated at any point, and run in several processes at once. Raises DatabaseError, OSError.
    """
    report = Report()
    for token in tokens(directory):
        lock = take_lock(directory, token)
        if lock is None:
            report.in_use += 1
            continue
        try:
            _adopt(directory, token, report)
        finally:
            os.close(lock)
    return report


def _adopt(directory: Path, token: str, report: Report) -> None:
    chain = Chain(directory, token, report, adopted=True)
    numbers = segment_numbers(directory, token)
    if numbers:
        last = Position(numbers[-1], written_bytes(segment_path(directory, token, numbers[-1])))
        while chain.advance(last):
            pass
        chain.give_up(PROCESS_DIED)
        report.journals += 1
    open_requests.forget(token)
    accounts.release(token)  # all that its requests used is charged by now
    chain.remove()


class Drainer:
    """Moves this process's journal into the ledger every `interval_s` seconds, adopts what dead siblings left, and lets rows go that
    are older than `retention_days` (0 = none). `bodies`: what is entered and deleted after all that. Whoever watches is told which
    requests are under way.

    `backlog_bytes` is what waits in our own journal; `failing_since` (wall seconds) is None while all is well, `report` what
    was done since the start.
    """

    def __init__(
        self,
        journal: Journal,
        interval_s: float,
        clock: Clock = SystemClock(),  # noqa: B008  (has no state)
        retention_days: int = 0,
        bodies: BodyStore | None = None,
    ) -> None:
        self.backlog_bytes = 0
        self.failing_since: float | None = None
        self._directory = journal.directory
        self._journal = journal
        self._interval_s = interval_s
        self._clock = clock
        self._adopt_at = clock.monotonic() + ADOPT_INTERVAL_S
        self._chain = Chain(journal.directory, journal.token)
        self._pruner = Pruner(retention_days, clock)
        self._bodies = bodies
        self._open = open_requests.Teller(journal.token, clock)
        self._failures = 0
        self._one_at_a_time = threading.Lock()
        self._thread = DatabaseThread("drainer")
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def report(self) -> Report:
        return self._chain.report

    async def run(self) -> None:
        """Until `stop`. A failure is logged and tried again, ever more slowly; it never ends the loop."""
        self._idle.clear()
        try:
            while not self._stopping.is_set():
                if not await self._thread.run(self.drain):
                    await self._thread.disconnect()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), self.pause_s())
        finally:
            self._idle.set()

    async def stop(self) -> None:
        """Ends `run` and drains once more. What cannot be drained now stays in the journal for the next start."""
        self._stopping.set()
        await self._idle.wait()
        await self._thread.run(self.drain)
        await self._thread.disconnect()

    def pause_s(self) -> float:
        """Until the next pass: the interval, doubled for each failure in a row."""
        if not self._failures:
            return self._interval_s
        return min(self._interval_s * 2.0 ** min(self._failures, 16), max(MAX_BACKOFF_S, self._interval_s))

    def drain(self) -> bool:
        """One pass over everything written so far. Never raises; False where it failed."""
        with self._one_at_a_time:
            try:
                self._drain_own()
                self._adopt_orphans()
                self._pruner.step()
                if self._bodies is not None:
                    self._bodies.step()
                self._open.step(self._chain.open_requests(open_requests.MOST))
            except Exception as exc:
                self._failed(exc)
            else:
                self._succeeded()
            self.backlog_bytes = self._chain.backlog_bytes(self._journal.committed())
            metrics.JOURNAL_BACKLOG.set(self.backlog_bytes)
            metrics.JOURNAL_FAILING.set(0 if self.failing_since is None else self._clock.wall() - self.failing_since)
            return not self._failures

    def _drain_own(self) -> None:
        last = self._journal.committed()
        while self._chain.advance(last):
            pass
        self._chain.give_up(NEVER_ENDED, self._clock.wall() - UNFINISHED_MAX_AGE_S)

    def _adopt_orphans(self) -> None:
        if self._clock.monotonic() < self._adopt_at:
            return
        self._adopt_at = self._clock.monotonic() + ADOPT_INTERVAL_S
        done = replay(self._directory)
        if done.journals:
            log.warning("journal: adopted %d journals of processes that died: %s", done.journals, done)

    def _failed(self, exc: Exception) -> None:
        self._failures += 1
        if self.failing_since is None:
            self.failing_since = self._clock.wall()
            defect = None if isinstance(exc, Error | OSError) else exc
            log.error("journal: the ledger cannot be written (%s); records stay in the journal", in_one_line(exc), exc_info=defect)

    def _succeeded(self) -> None:
        if self.failing_since is not None:
            log.warning("journal: the ledger can be written again after %.1f s", self._clock.wall() - self.failing_since)
        self._failures, self.failing_since = 0, None
