"""Bodies on their way from the event loop to the table, in memory: what nobody waits for, and what a killed process loses."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

import msgspec

from monitoring import metrics

# Names, in lower case, and values; see `gateway.kept_headers` for what is left of them.
Pairs = list[tuple[str, str]]


class AttemptHeaders(msgspec.Struct, frozen=True):
    """Of a vendor's answer. `status`: 0 = there was none."""

    attempt: int
    status: int
    headers: Pairs


class Headers(msgspec.Struct, frozen=True):
    """Of what a client sent, of what it was sent, and of what vendors said to each attempt."""

    request: Pairs
    response: Pairs
    attempts: list[AttemptHeaders]


class Bodies(NamedTuple):
    """What a client sent and was sent. `started_at` in wall seconds; `request` and `response` are their first bytes, the two
    numbers what they had in all. `headers`: JSON of `Headers`, b"" = none were kept."""

    request_id: str
    started_at: float
    key_id: str
    request: bytes
    response: bytes
    request_bytes: int
    response_bytes: int
    headers: bytes = b""

    @property
    def size(self) -> int:
        return len(self.request) + len(self.response) + len(self.headers)


class BodyQueue:
    """Of each body at most `max_bytes` are kept, and `queue_bytes` of all that wait; what comes beyond is left out and counted."""

    def __init__(self, max_bytes: int, queue_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._queue_bytes = queue_bytes
        self._waiting: deque[Bodies] = deque()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def put(self, bodies: Bodies) -> None:
        size = bodies.size
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
                self._held_bytes -= self._waiting.popleft().size
