"""Answers that are given again by any process: what an `Idempotency-Key` stands for while it is answered, and afterwards.

Who answers claims the key, lays down that it does, and does so again and again while it lasts; so a process that dies is known
by its silence. A whole success then takes the place of that, for whoever asks again anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from core.clock import Clock
from gateway.idempotency import Flight, KeyReused, StillRunning
from gateway.sharing.peers import Peers

# An answer of a process that has died stands in the way for so long; a busy event loop must renew it sooner.
LEASE_S, _RENEW_S = 10.0, 3.0
# So long between two looks at what another process makes: at first, and in the end.
FIRST_LOOK_S, LAST_LOOK_S = 0.02, 0.2
_NOTHING = b""


class _Laid(msgspec.Struct, array_like=True):
    """`bodies` are those of the messages after the head, in their order."""

    state: Literal["running", "whole", "too long"]
    fingerprint: bytes
    status: int = 200
    headers: list[tuple[bytes, bytes]] = []
    bodies: list[bytes] = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Laid).decode


class Answers:
    """`ttl_s`: how long a success is kept; `max_bytes`: the longest that is."""

    def __init__(
        self, peers: Peers, clock: Clock, *, ttl_s: float, max_bytes: int, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._peers = peers
        self._clock = clock
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._sleep = sleep

    async def find(self, flight: Flight, gives_up_at: float) -> Lead | list[Mapping[str, Any]]:
        """The messages of the answer, or what this process holds while it answers: to be ended by `finish`.

        While another process answers, its end is waited for until `gives_up_at` (monotonic seconds). Raises KeyReused, StillRunning.
        """
        name, pause_s = _name(flight), FIRST_LOOK_S
        while True:
            laid = await self._look(name)
            if laid is None and await self._peers.claim(name, LEASE_S):
                try:
                    laid = await self._look(name)  # it may have come meanwhile
                    if laid is None:
                        lead = Lead(self._peers, name, _encode(_Laid("running", flight.fingerprint)))
                        await lead.begin()
                        return lead
                except BaseException:
                    self._peers.release(name)
                    raise
                self._peers.release(name)
            if laid is not None and (messages := _messages(laid, flight)) is not None:
                return messages
            left_s = gives_up_at - self._clock.monotonic()
            if left_s <= 0:
                raise StillRunning(
                    "The first request with this Idempotency-Key is still being answered by another process; ask again later."
                )
            await self._sleep(min(pause_s, left_s))
            pause_s = min(LAST_LOOK_S, 2 * pause_s)

    async def finish(self, lead: Lead, flight: Flight, *, success: bool) -> None:
        """Lays down what `flight` has recorded; where that is no success, whoever asks next begins anew."""
        await lead.end(self._recorded(flight) if success else _NOTHING, self._ttl_s)

    def _recorded(self, flight: Flight) -> bytes:
        bodies = [message.get("body", b"") for message in flight.messages[1:]]
        if not flight.overflowed and flight.messages and sum(map(len, bodies)) <= self._max_bytes:
            head = flight.messages[0]
            value = _encode(_Laid("whole", flight.fingerprint, head["status"], list(head["headers"]), bodies))
            if len(value) <= self._max_bytes:
                return value
        return _encode(_Laid("too long", flight.fingerprint))

    async def _look(self, name: str) -> _Laid | None:
        value = await self._peers.look(name)
        if not value:
            return None
        try:
            return _decode(value)
        except msgspec.DecodeError:  # of another version
            return None


class Lead:
    """This process answers; until `end`, others see that it does."""

    def __init__(self, peers: Peers, name: str, running: bytes) -> None:
        self._peers = peers
        self._name = name
        self._running = running
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_RENEW_S, self._renew)
        try:
            await self._peers.lay(self._name, self._running, LEASE_S)
        except BaseException:
            await self.end(_NOTHING, LEASE_S)
            raise

    async def end(self, value: bytes, ttl_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._renewing is not None:
                await asyncio.wait({self._renewing})  # it must not come after what follows
            await self._peers.lay(self._name, value, ttl_s if value else LEASE_S)
        finally:
            self._peers.release(self._name)

    def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_RENEW_S, self._renew)
        if self._renewing is None or self._renewing.done():
            self._renewing = loop.create_task(self._peers.lay(self._name, self._running, LEASE_S))


def _name(flight: Flight) -> str:
    caller_id, key = flight.name
    return f"idempotency:{caller_id}:{key}"


def _messages(laid: _Laid, flight: Flight) -> list[Mapping[str, Any]] | None:
    """None while it is still being answered. Raises KeyReused, StillRunning."""
    if laid.fingerprint != flight.fingerprint:
        raise KeyReused("This Idempotency-Key was used for another request; use a new key for each request.", param="Idempotency-Key")
    if laid.state == "running":
        return None
    if laid.state == "too long":
        raise StillRunning(
            "This request was answered already, and the answer is too long to be given again; to ask anew, use another Idempotency-Key."
        )
    bodies: list[dict[str, Any]] = [{"type": "http.response.body", "body": body, "more_body": True} for body in laid.bodies]
    if bodies:
        bodies[-1]["more_body"] = False
    return [{"type": "http.response.start", "status": laid.status, "headers": laid.headers}, *bodies]
