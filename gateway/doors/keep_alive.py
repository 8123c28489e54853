"""What a stream says while it has nothing to say: proxies and clients give up on a connection that is silent for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from core.deadlines import Deadlines

DEFAULT_S = 15.0
# How much later than asked for it may be said, as a part of the interval; and never more than so much.
_TICK_SHARE, _MAX_TICK_S = 0.05, 1.0


def timer(interval_s: float) -> Deadlines:
    """For all streams of a process."""
    return Deadlines(min(_MAX_TICK_S, (interval_s or DEFAULT_S) * _TICK_SHARE))


class KeepAlive:
    """Of one stream: `say` is called whenever nothing was said for the interval. See `core.deadlines.Due`."""

    __slots__ = ("_interval_s", "_loop", "_say", "_saying", "_timer", "due_s")

    def __init__(self, say: Callable[[], Coroutine[Any, Any, None]], began_s: float, interval_s: float, timer: Deadlines) -> None:
        """`began_s`: loop time of the request's beginning."""
        self._say = say
        self._interval_s = interval_s
        self._timer = timer
        self._loop = asyncio.get_running_loop()
        self._saying: asyncio.Task[None] | None = None
        self.due_s = began_s + interval_s
        timer.add(self, self._loop)

    @property
    def busy(self) -> bool:
        return self._saying is not None

    def spoke(self) -> None:
        """The stream has said something itself."""
        self.due_s = self._loop.time() + self._interval_s

    def overdue(self) -> None:
        """A client that does not even read the last one is told no more."""
        if self._saying is None or self._saying.done():
            self._saying = self._loop.create_task(self._say())
        self.spoke()
        self._timer.add(self, self._loop)

    async def settled(self) -> None:
        """Returns once nothing is being said; raises what went wrong with it."""
        while (said := self._saying) is not None:
            await asyncio.wait({said})
            if said is self._saying:  # the timer may have come first, and more is being said
                self._saying = None
            if not said.cancelled():
                said.result()

    def stop(self) -> None:
        self._timer.discard(self)

    def abort(self) -> None:
        self.stop()
        if self._saying is not None:
            self._saying.cancel()
