"""`Idempotency-Key`: the same request sent again, or many times at once, is one vendor call, one charge and one answer.

Kept in this process: the first request of a key records what it answers, the others are given the same as it comes. A whole
success is kept for a while; a failure is not, so that asking again helps. Bounded in bytes over all keys.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from typing import Any

from core.clock import Clock
from core.errors import GatewayError, InvalidRequest

MAX_KEY_CHARS = 255
_MESSAGE_BYTES = 256  # what a message weighs beside its body

Name = tuple[str, str]  # the caller's id, and the key it chose


class KeyReused(InvalidRequest):
    """The key stands for another request."""

    http_status = 422
    code = "idempotency_key_reused"


class StillRunning(InvalidRequest):
    """The first request of this key is still being answered, and its answer is too long to be shared."""

    http_status = 409
    code = "idempotency_conflict"


class Abandoned(Exception):
    """Whoever was answered first has left in the middle. Nobody else will finish this answer."""


class Flight:
    """One answer under way or kept: the messages that its first client was sent."""

    __slots__ = ("_changed", "abandoned", "done", "error", "expires_s", "fingerprint", "messages", "name", "overflowed", "size")

    def __init__(self, name: Name, fingerprint: bytes) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.messages: list[Mapping[str, Any]] = []
        self.size = 0
        self.done = self.abandoned = self.overflowed = False
        self.error: GatewayError | None = None
        self.expires_s = float("inf")
        self._changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[Mapping[str, Any]]:
        """Every message from the first on, as they come. Raises Abandoned, StillRunning."""
        at = 0
        while True:
            while at < len(self.messages):
                yield self.messages[at]
                at += 1
            if self.done:
                return
            if self.abandoned:
                raise Abandoned
            if self.overflowed:
                raise StillRunning(
                    "The first request with this Idempotency-Key is still being answered; wait for its end, or use another key."
                )
            await self._changed.wait()

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Flights:
    """All keys of all callers. `ttl_s`: how long a success is kept; `max_bytes`: of all answers together."""

    def __init__(self, clock: Clock, *, ttl_s: float, max_bytes: int) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._bytes = 0
        self._running: dict[Name, Flight] = {}
        self._kept: OrderedDict[Name, Flight] = OrderedDict()  # in the order in which they expire

    def board(self, caller_id: str, key: str, request: bytes) -> tuple[Flight, bool]:
        """(the flight of this key, whether it is new: then the caller answers it, records, and ends it with `land` or `abandon`).

        `request` is everything that makes it the same request. Raises KeyReused, InvalidRequest for a key that is none.
        """
        if not key or len(key) > MAX_KEY_CHARS or not key.isprintable():
            raise InvalidRequest(f"Idempotency-Key must be 1 to {MAX_KEY_CHARS} printable characters.", param="Idempotency-Key")
        self._drop_expired()
        name, fingerprint = (caller_id, key), hashlib.sha256(request).digest()
        flight = self._running.get(name) or self._kept.get(name)
        if flight is None:
            flight = self._running[name] = Flight(name, fingerprint)
            return flight, True
        if flight.fingerprint != fingerprint:
            raise KeyReused("This Idempotency-Key was used for another request; use a new key for each request.", param="Idempotency-Key")
        return flight, False

    def record(self, flight: Flight, message: Mapping[str, Any]) -> None:
        size = len(message.get("body", b"")) + _MESSAGE_BYTES
        if flight.overflowed or not self._make_room(size):
            flight.overflowed = True
            flight.messages.clear()  # nobody is given the rest, and what was kept so far would be held until the answer's end
            self._forget(flight)
        else:
            flight.messages.append(message)
            flight.size += size
            self._bytes += size
        flight.wake()

    def land(self, flight: Flight, error: GatewayError | None) -> None:
        """The answer is complete. A success is kept for whoever asks again, a failure is for those who are already waiting."""
        del self._running[flight.name]
        flight.done, flight.error = not flight.overflowed, error
        if error is None and flight.done:
            flight.expires_s = self._clock.monotonic() + self._ttl_s
            self._kept[flight.name] = flight
        else:
            self._forget(flight)
        flight.wake()

    def abandon(self, flight: Flight) -> None:
        """The first client left before its answer was complete: the next one to ask begins anew."""
        del self._running[flight.name]
        flight.abandoned = True
        self._forget(flight)
        flight.wake()

    def _make_room(self, size: int) -> bool:
        """Kept answers make way for new ones, the oldest first."""
        while self._bytes + size > self._max_bytes and self._kept:
            self._forget(self._kept.popitem(last=False)[1])
        return self._bytes + size <= self._max_bytes

    def _drop_expired(self) -> None:
        now = self._clock.monotonic()
        while self._kept and next(iter(self._kept.values())).expires_s <= now:
            self._forget(self._kept.popitem(last=False)[1])

    def _forget(self, flight: Flight) -> None:
        """Its bytes are free for others; who is still reading it keeps it alive until then."""
        self._bytes -= flight.size
        flight.size = 0
