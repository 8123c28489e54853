"""Many deadlines that are hardly ever met, on one timer: adding one costs a tenth of what a timer of its own costs."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Due(Protocol):
    """Something that waits. `due_s` is loop time and may be moved; hashable by identity."""

    due_s: float

    def overdue(self) -> None:
        """Called in the loop, once per `Deadlines.add`, no sooner than `due_s` and at most one tick later."""
        ...


class Deadlines:
    """For one event loop at a time. While nothing waits, no timer runs."""

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._waiting: set[Due] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: Due, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            self._loop, self._timer = loop, None
            self._waiting.clear()
        self._waiting.add(item)
        if self._timer is None:
            self._timer = loop.call_later(self._tick_s, self._tick, loop)

    def discard(self, item: Due) -> None:
        """Idempotent."""
        self._waiting.discard(item)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        try:
            for item in [item for item in self._waiting if item.due_s <= now]:
                if item in self._waiting:  # not taken back by one before it
                    self._waiting.discard(item)
                    item.overdue()
        finally:  # what goes wrong with one must not leave all others without a timer for ever
            self._timer = loop.call_later(self._tick_s, self._tick, loop) if self._waiting else None
