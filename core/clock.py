"""Time as a value that can be handed in, so that tests hold it still."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back. For waits, limits, breakers, leases."""
        ...

    def wall(self) -> float:
        """Seconds since 1970 UTC. For records, prices and expiry dates only."""
        ...


class SystemClock:
    """The machine's clocks. The methods are the C functions themselves: no Python frame per call."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class FrozenClock:
    """A clock that moves only when told to."""

    def __init__(self, wall_s: float = 1_800_000_000.0) -> None:
        self._wall_s = wall_s
        self._monotonic_s = 1_000.0

    def monotonic(self) -> float:
        return self._monotonic_s

    def wall(self) -> float:
        return self._wall_s

    def advance(self, seconds: float) -> None:
        self._monotonic_s += seconds
        self._wall_s += seconds
