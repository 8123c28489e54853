"""Asks the database every second whether the configuration changed, and puts a changed one in force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from core.clock import Clock, SystemClock
from core.config import Snapshot
from monitoring.threads import DatabaseThread

log = logging.getLogger(__name__)


class Watcher:
    """Polls `current_version` every `poll_s` seconds; where it differs, calls `load` and hands the result to `apply`.

    `load` and `current_version` run in a thread, `apply` on the loop. Whatever fails, the last good snapshot stays in force:
    `stale_since` (wall seconds) then says since when we do not know better, and `alarm` why; both are None while all is well.
    """

    def __init__(
        self,
        load: Callable[[Snapshot | None], Snapshot],
        current_version: Callable[[], int],
        apply: Callable[[Snapshot], None],
        poll_s: float,
        *,
        publish: Callable[[], Callable[[], None] | None] | None = None,
        clock: Clock = SystemClock(),  # noqa: B008  (has no state)
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`publish` says at each look what else the thread must write down, if anything; whether that works changes nothing here."""
        self.snapshot: Snapshot | None = None
        self.stale_since: float | None = None
        self.alarm: str | None = None
        self._load = load
        self._current_version = current_version
        self._apply = apply
        self._poll_s = poll_s
        self._publish = publish
        self._clock = clock
        self._sleep = sleep
        self._thread = DatabaseThread("config")
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Loads and applies the first snapshot, then watches. Raises whatever keeps the first one from being loaded."""
        await self._reload()
        self._task = asyncio.create_task(self._watch(), name="config-watcher")

    async def stop(self) -> None:
        """Idempotent. The last snapshot stays in force."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._thread.disconnect()

    async def look(self) -> None:
        """One look for a change. Never raises."""
        try:
            version = await self._thread.run(self._current_version)
            if self.snapshot is None or version != self.snapshot.version:
                await self._reload()
        except Exception as exc:
            self._failed(exc)
        else:
            self._succeeded()

    async def tell(self) -> None:
        """Has written down what `publish` says. Never raises."""
        try:
            if self._publish is not None and (work := self._publish()) is not None:
                await self._thread.run(work)
        except Exception as exc:
            log.warning("what this process knows of its providers could not be written down (%s: %s)", type(exc).__name__, exc)

    async def _watch(self) -> None:
        while True:
            await self._sleep(self._poll_s)
            await self.look()
            await self.tell()

    async def _reload(self) -> None:
        snapshot = await self._thread.run(lambda: self._load(self.snapshot))
        self._apply(snapshot)
        self.snapshot = snapshot
        log.info("configuration: version %d is in force", snapshot.version)

    def _failed(self, exc: Exception) -> None:
        alarm = f"The configuration cannot be read again ({type(exc).__name__}: {exc}); the last good one stays in force."
        if alarm != self.alarm:
            log.error("configuration: %s", alarm, exc_info=exc)
        self.alarm = alarm
        if self.stale_since is None:
            self.stale_since = self._clock.wall()

    def _succeeded(self) -> None:
        if self.stale_since is not None:
            log.warning("configuration: read again after %.1f s", self._clock.wall() - self.stale_since)
        self.stale_since, self.alarm = None, None
