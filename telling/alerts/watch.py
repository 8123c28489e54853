"""Looks at the rules every so often: one per process, beside the event loop that serves, and off its hot path. The database says whose
turn it is (`evaluation`)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from django.db import DatabaseError

from core.clock import Clock
from monitoring.threads import DatabaseThread, in_one_line
from telling.alerts import evaluation

_log = logging.getLogger(__name__)
# Below this a journal is as it should be, whatever a rule says.
_SAID_FROM_BYTES = 2**16


class Watch:
    """`backlog_bytes`: what waits in this process' journal. `interval_s` 0: it never looks."""

    def __init__(self, backlog_bytes: Callable[[], int], clock: Clock, *, interval_s: float, keep_days: int) -> None:
        self._backlog_bytes = backlog_bytes
        self._clock = clock
        self._interval_s = interval_s
        self._keep_days = keep_days
        self._process = f"{socket.gethostname()[:60]}:{os.getpid()}"
        self._said_bytes = 0
        self._database = DatabaseThread("alerts")
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._interval_s:
            self._loop = asyncio.create_task(self._forever())

    async def stop(self) -> None:
        if self._loop is None:
            return
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        await self._database.disconnect()

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._database.run(self.step)
            except DatabaseError as exc:
                _log.warning("alerts cannot be looked at (%s); trying again", in_one_line(exc))
            except Exception:
                _log.exception("a look at the alerts failed; trying again")

    def step(self) -> bool:
        """One look, in a database's thread. Whether it was this process' turn. Raises DatabaseError."""
        now = self._clock.wall()
        self._say_backlog(now)
        if not evaluation.take_turn(now, self._interval_s):
            return False
        evaluation.look(now)
        evaluation.prune(now, self._keep_days)
        return True

    def _say_backlog(self, now: float) -> None:
        waiting = self._backlog_bytes()
        waiting = waiting if waiting >= _SAID_FROM_BYTES else 0
        if waiting or self._said_bytes:
            evaluation.say_backlog(self._process, waiting, now)
            self._said_bytes = waiting
