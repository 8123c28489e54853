"""Tells the control plane what this process has learnt of its providers. Off the hot path: at the configuration poll, in its thread."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from core.clock import Clock, SystemClock
from gateway.config.breaker_events import record_breakers
from providers import states

_MIN_INTERVAL_S = 1.0
# What is said lapses (providers.states.STALE_AFTER) unless it is said again in time.
_REPEAT_AFTER_S = 10.0

Found = Mapping[str, Mapping[str, Any]]


class StatePublisher:
    """`collect` runs on the loop and gives what `providers.states.write` takes."""

    def __init__(
        self,
        collect: Callable[[], Found],
        *,
        write: Callable[[str, Found], None] = states.write,
        record: Callable[[str, Found, Found], None] = record_breakers,
        clock: Clock = SystemClock(),  # noqa: B008  (has no state)
    ) -> None:
        self._collect = collect
        self._write = write
        self._record = record
        self._clock = clock
        self._process = secrets.token_hex(8)
        self._written: Found = {}
        self._written_at = float("-inf")

    def due(self) -> Callable[[], None] | None:
        """What must be written down now, as work for a thread; None = nothing, for all is as it was. Call on the loop."""
        found, age_s = self._collect(), self._clock.monotonic() - self._written_at
        changed = found != self._written
        if age_s < _MIN_INTERVAL_S or not (changed or (found and age_s >= _REPEAT_AFTER_S)):
            return None
        return partial(self._write_down, found)

    def _write_down(self, found: Found) -> None:
        self._write(self._process, found)
        before, self._written, self._written_at = self._written, found, self._clock.monotonic()
        self._record(self._process, before, found)
