"""Bodies on their way from the event loop to the table, in memory: what nobody waits for, and what a killed process loses."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from monitoring import metrics


class Bodies(NamedTuple):
    """What a client sent and was sent. `started_at` in wall seconds; `request` and `response` are their first bytes, the two
    numbers what they had in all."""

    request_id: str
    started_at: float
    key_id: str
    request: bytes
    response: bytes
    request_bytes: int
    response_bytes: int


class BodyQueue:
    """Of each body at most `max_bytes` are kept, and `queue_bytes` of all that wait; what comes beyond is left out and counted."""

    def __init__(self, max_bytes: int, queue_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._queue_bytes = queue_bytes
        self._waiting: deque[Bodies] = deque()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def put(self, bodies: Bodies) -> None:
        size = len(bodies.request) + len(bodies.response)
        with self._lock:
            if self._held_bytes + size > self._queue_bytes:
                metrics.BODIES_DROPPED.inc()
                return
            self._held_bytes += size
            self._waiting.append(bodies)

    def first(self, most: int) -> list[Bodies]:
        """The oldest ones, which stay until `done`: there is one reader."""
        with self._lock:
            return [self._waiting[place] for place in range(min(most, len(self._waiting)))]

    def done(self, number: int) -> None:
        with self._lock:
            for _ in range(number):
                gone = self._waiting.popleft()
                self._held_bytes -= len(gone.request) + len(gone.response)
