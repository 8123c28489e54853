"""Notes at intervals how far the streams under way have come, so that not even kill -9 makes their tokens unknown."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from core.clock import Clock
from core.errors import AccountingUnavailable
from monitoring import metrics
from monitoring.journal import AttemptSettled

_log = logging.getLogger(__name__)
# Many streams take longer to note than few: then it is done less often, so that it never takes more than 1/50 of a core.
_REST_PER_WORK = 49.0
_MIN_INTERVAL_S = 0.005


class Stream(Protocol):
    """A stream under way; hashable by identity."""

    def has_grown(self) -> bool:
        """Whether more was received since `so_far` was asked for."""
        ...

    def so_far(self, now: float) -> AttemptSettled:
        """What would be settled if the stream ended now (`now`: monotonic seconds)."""
        ...


class Destination(Protocol):
    def write(self, so_far: Sequence[AttemptSettled]) -> None:
        """Replaces what was written before. Raises AccountingUnavailable."""
        ...


def _on_the_loop(delay_s: float, callback: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(delay_s, callback)


class ProgressNotes:
    """One per process, on one timer that runs only while streams are under way. Used from the event loop alone."""

    def __init__(
        self,
        destination: Destination,
        clock: Clock,
        interval_s: float,
        call_later: Callable[[float, Callable[[], None]], object] = _on_the_loop,
        worked_s: Callable[[], float] = time.thread_time,
    ) -> None:
        """`interval_s`: from one write to the next, where that is not too often for the number of streams.

        `worked_s`: processor time of this thread. The time that a busy machine keeps a write waiting is no work, and to rest for a
        multiple of it would leave streams unnoted for long just where a kill is likely.
        """
        self._destination = destination
        self._clock = clock
        self._interval_s = max(interval_s, _MIN_INTERVAL_S)
        self._call_later = call_later
        self._worked_s = worked_s
        self._streams: set[Stream] = set()
        self._timer_runs = False
        self._failing = False

    def add(self, stream: Stream) -> None:
        self._streams.add(stream)
        if not self._timer_runs:
            self._timer_runs = True
            self._call_later(self._interval_s, self._tick)

    def discard(self, stream: Stream) -> None:
        """Idempotent. What was noted stays until the next write; a settled attempt ignores it."""
        self._streams.discard(stream)

    def _tick(self) -> None:
        took_s, began_s = 0.0, self._worked_s()
        try:
            self._note(self._clock.monotonic())
            took_s = self._worked_s() - began_s
        finally:
            self._timer_runs = bool(self._streams)
            if self._timer_runs:
                self._call_later(max(self._interval_s, took_s * _REST_PER_WORK), self._tick)

    def _note(self, now: float) -> None:
        if not any(stream.has_grown() for stream in self._streams):
            return
        try:
            self._destination.write([stream.so_far(now) for stream in self._streams])
        except AccountingUnavailable as exc:
            metrics.PROGRESS_FAILURES.inc()
            if not self._failing:
                _log.error("%s After a kill the tokens of streams under way would be unknown. (%s)", exc.message, exc.detail)
            self._failing = True
        else:
            if self._failing:
                _log.warning("how far the streams have come can be written down again")
            self._failing = False
