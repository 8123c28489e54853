"""A request with an `Idempotency-Key`: answered where nobody does yet, and otherwise given what the first one is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from math import isinf
from typing import Any

import msgspec

from core.clock import Clock, SystemClock
from core.errors import ClientGone, GatewayError, ServerBusy
from gateway.doors.answer import DoorDialect, Send, refuse, server_down
from gateway.doors.body import Receive
from gateway.idempotency import Abandoned, Flight, Flights, StillRunning
from gateway.pipeline import Generation
from gateway.sharing.answers import Answers, Lead

_REPLAYED = (b"x-llm-idempotent-replay", b"true")
_TTL_S, _MAX_BYTES = 600.0, 32 * 2**20
_WAIT_S = 60.0
# Answers, and how the first client's ends: None = it has the whole of it.
Answering = Callable[[Send], Awaitable[GatewayError | None]]


class Idempotency(msgspec.Struct, eq=False):
    """Of a process. `answers` None = nobody else serves. `wait_s`: how long the end of an answer at another process is waited for."""

    clock: Clock = msgspec.field(default_factory=SystemClock)
    flights: Flights = msgspec.field(default_factory=lambda: Flights(SystemClock(), ttl_s=_TTL_S, max_bytes=_MAX_BYTES))
    answers: Answers | None = None
    wait_s: float = _WAIT_S


class IdempotentExchange:
    """`identity`: the caller's id, the key, and all that makes it the same request. `patience_s`: the client's own."""

    def __init__(
        self, shared: Idempotency, generation: Generation, dialect: DoorDialect, identity: tuple[str, str, bytes], patience_s: float
    ) -> None:
        self._shared = shared
        self._generation = generation
        self._dialect = dialect
        self._identity = identity
        self._patience_s = patience_s
        self._gives_up_at = shared.clock.monotonic() + min(shared.wait_s, patience_s)
        self._leaves_at_s = None if isinf(patience_s) else asyncio.get_running_loop().time() + patience_s

    async def run(self, answering: Answering, receive: Receive, send: Send) -> None:
        try:
            while True:
                flight, new = self._shared.flights.board(*self._identity)
                if new:
                    lead = await self._sought(flight)
                    if lead is not None or not (flight.done or flight.overflowed):
                        return await self._lead(flight, lead, answering, send)
                if await self._follow(flight, send):
                    return None
                await _require_client(receive)
        except GatewayError as error:
            self._generation.end(error)
            await refuse(receive, send, error, self._generation.request_id, self._dialect)

    async def _sought(self, flight: Flight) -> Lead | None:
        """Asks the other processes: the answer, if there is one, lands in `flight`. Raises KeyReused, StillRunning."""
        if self._shared.answers is None:
            return None
        flights = self._shared.flights
        try:
            found = await self._shared.answers.find(flight, self._gives_up_at)
        except BaseException as exc:
            flights.abandon(flight)  # who waits for it here asks for himself
            raise server_down() if isinstance(exc, asyncio.CancelledError) else exc from None
        if isinstance(found, Lead):
            return found
        for message in found:
            flights.record(flight, message)
        flights.land(flight, None)
        return None

    async def _lead(self, flight: Flight, lead: Lead | None, answering: Answering, send: Send) -> None:
        flights, answers = self._shared.flights, self._shared.answers

        async def recorded(message: MutableMapping[str, Any]) -> None:
            flights.record(flight, message)
            await send(message)

        ended: GatewayError | None = ClientGone("Nobody finished this answer.")
        try:
            ended = await answering(recorded)
        finally:
            if isinstance(ended, ClientGone):
                flights.abandon(flight)
            else:
                flights.land(flight, ended)
            if lead is not None and answers is not None:
                await answers.finish(lead, flight, success=ended is None)

    async def _follow(self, flight: Flight, send: Send) -> bool:
        """False where the first client left before anything was sent here: then somebody must begin anew."""
        passed_on = _HeadWithBody(send)
        try:
            async with asyncio.timeout_at(self._leaves_at_s):
                async for message in flight.follow():
                    await passed_on(message)
        except (TimeoutError, asyncio.CancelledError, Abandoned, StillRunning) as exc:
            if passed_on.begun:
                await self._break_off(self._error_of(exc), send)
                return True
            if isinstance(exc, Abandoned):
                return False
            raise (exc if isinstance(exc, StillRunning) else self._error_of(exc)) from None
        self._generation.end(flight.error, replayed=True)
        return True

    def _error_of(self, exc: BaseException) -> GatewayError:
        """What ends the following of an answer, as this client is told."""
        if isinstance(exc, TimeoutError):
            waited = f"The first request with this Idempotency-Key was not answered within {self._patience_s:g} s"
            return StillRunning(f"{waited}; ask again later.")
        if isinstance(exc, asyncio.CancelledError):
            return server_down()
        return ServerBusy("The answer that is shared under this Idempotency-Key broke off; send the request again.")

    async def _break_off(self, error: GatewayError, send: Send) -> None:
        self._generation.end(error)
        await send({"type": "http.response.body", "body": self._dialect.stream_error(error)})


class _HeadWithBody:
    """Passes an answer on, its head with the first of its body: until then another answer is possible."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: MutableMapping[str, Any] | None = None
        self.begun = False

    async def __call__(self, message: Mapping[str, Any]) -> None:
        if self._head is None:
            self._head = {**message, "headers": [*message["headers"], _REPLAYED]}
            return
        if not self.begun:
            self.begun = True
            await self._send(self._head)
        await self._send({**message})


async def _require_client(receive: Receive) -> None:
    """Nobody watches a client that only waits: before a vendor is called for it, it is seen to. Raises ClientGone, ServerBusy."""
    try:
        async with asyncio.timeout(0):
            message = await receive()
    except TimeoutError:  # nothing to hear: it waits
        return
    except asyncio.CancelledError:
        raise server_down() from None
    if message["type"] == "http.disconnect":
        raise ClientGone("The client closed the connection.")
