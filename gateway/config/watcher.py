"""Asks the database every second whether the configuration changed, and puts a changed one in force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from django.db import Error

from core.clock import Clock, SystemClock
from core.config import Snapshot
from monitoring.threads import DatabaseThread, NotAnswered, in_one_line

log = logging.getLogger(__name__)

# A server that stands still answers nothing, not even that its own time limits are over.
LOOK_TIMEOUT_S, LOAD_TIMEOUT_S = 5.0, 60.0
# After so long a snapshot is read again that lacks something because a service was away.
PARTIAL_S = 10.0
_AWAY = (Error, NotAnswered)


class Watcher:
    """Polls `current_version` every `poll_s` seconds; where it differs, calls `load` and hands the result to `apply`.

    `load` and `current_version` run in a thread, `apply` on the loop. Whatever fails, the last good snapshot stays in force:
    `stale_since` (wall seconds) then says since when we do not know better, and `alarm` why; both are None while all is well.
    `age_s` says the same without heed of a wall clock that is set.
    """

    def __init__(
        self,
        load: Callable[[Snapshot | None], Snapshot],
        current_version: Callable[[], int],
        apply: Callable[[Snapshot], None],
        poll_s: float,
        *,
        publish: Callable[[], Callable[[], None] | None] | None = None,
        aged: Callable[[float], None] | None = None,
        clock: Clock = SystemClock(),  # noqa: B008  (has no state)
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`publish` says at each look what else the thread must write down, if anything; whether that works changes nothing here.
        `aged` is told `age_s` after each look."""
        self.snapshot: Snapshot | None = None
        self.stale_since: float | None = None
        self.alarm: str | None = None
        self._load = load
        self._current_version = current_version
        self._apply = apply
        self._poll_s = poll_s
        self._publish = publish
        self._aged = aged
        self._clock = clock
        self._sleep = sleep
        self._read_at_s = self._loaded_at_s = clock.monotonic()
        self._thread = DatabaseThread("config")
        self._task: asyncio.Task[None] | None = None

    @property
    def age_s(self) -> float:
        """Seconds since the database last said what is in force; 0 while it does."""
        return 0.0 if self.stale_since is None else self._clock.monotonic() - self._read_at_s

    async def start(self) -> None:
        """Loads and applies the first snapshot, then watches. Raises whatever keeps the first one from being loaded."""
        await self._reload()
        self._read_at_s = self._clock.monotonic()
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
            version = await self._thread.run(self._current_version, LOOK_TIMEOUT_S)
            if self.snapshot is None or version != self.snapshot.version or self._may_do_better():
                await self._reload()
        except Exception as exc:
            self._failed(exc)
        else:
            self._succeeded()
        if self._aged is not None:
            self._aged(self.age_s)

    async def tell(self) -> None:
        """Has written down what `publish` says. Never raises."""
        try:
            if self._publish is not None and (work := self._publish()) is not None:
                await self._thread.run(work, LOOK_TIMEOUT_S)
        except Exception as exc:
            if self.alarm is None:  # otherwise it has been said why
                log.warning("what this process knows of its providers could not be written down (%s)", in_one_line(exc))

    async def _watch(self) -> None:
        while True:
            await self._sleep(self._poll_s)
            await self.look()
            await self.tell()

    def _may_do_better(self) -> bool:
        return self.snapshot is not None and self.snapshot.is_partial and self._clock.monotonic() >= self._loaded_at_s + PARTIAL_S

    async def _reload(self) -> None:
        self._loaded_at_s = self._clock.monotonic()
        snapshot = await self._thread.run(lambda: self._load(self.snapshot), LOAD_TIMEOUT_S)
        self._apply(snapshot)
        self.snapshot = snapshot
        log.info("configuration: version %d is in force", snapshot.version)

    def _failed(self, exc: Exception) -> None:
        alarm = f"The configuration cannot be read again ({in_one_line(exc)}); the last good one stays in force."
        if self.stale_since is None or not isinstance(exc, _AWAY):
            self._log_failure(alarm, exc)
        self.alarm = alarm
        if self.stale_since is None:
            self.stale_since = self._clock.wall()

    def _log_failure(self, alarm: str, exc: Exception) -> None:
        """One line, once, of a database that is away, however it says so; of a defect of ours also where it is."""
        if alarm != self.alarm:
            log.error("configuration: %s", alarm, exc_info=None if isinstance(exc, _AWAY) else exc)

    def _succeeded(self) -> None:
        if self.stale_since is not None:
            log.warning("configuration: read again after %.1f s", self._clock.wall() - self.stale_since)
        self.stale_since, self.alarm = None, None
        self._read_at_s = self._clock.monotonic()
