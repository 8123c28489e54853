"""Sends webhooks: one per process, on the event loop that serves. Processes share the outbox through leases in the database."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit

from django.db import DatabaseError

from core.chat import WireCall
from core.clock import Clock
from core.config import TimeoutSpec
from core.errors import GatewayError, OutboundRefused, ProviderNonsense, ProviderTimeout, ProviderTlsFailed
from core.outbound import GuardedTransport, Transport
from core.secrets import CannotOpen
from monitoring.threads import DatabaseThread, in_one_line
from telling import callbacks, deliveries, events, services, signing
from telling.callbacks import Allowed
from telling.deliveries import Delivery, Outcome

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
MAX_AT_ONCE = 100
_LEASE_BEYOND_TIMEOUT_S = 20.0
_PRUNE_EVERY_S = 600.0
_GONE = 410


class Bounds:
    """Of sending. `per_host`: tries at once at one host, over all processes; `keep_days`, `keep_events_s`: how long what has ended is
    kept, and what sockets were told."""

    def __init__(self, *, per_host: int, timeout_s: float, max_tries: int, poll_s: float, keep_days: int, keep_events_s: float) -> None:
        self.per_host = per_host
        self.timeout_s = timeout_s
        self.max_tries = max_tries
        self.poll_s = poll_s
        self.keep_days = keep_days
        self.keep_events_s = keep_events_s
        self.lease_s = timeout_s + _LEASE_BEYOND_TIMEOUT_S


class Sender:
    """One try: signed, sent, and judged by the status alone. No redirect is followed, no answer is read."""

    def __init__(self, allow: Allowed, timeout_s: float, wall: Callable[[], float]) -> None:
        self._transports: dict[str, Transport] = {
            scheme: GuardedTransport(guard, max_per_host=MAX_AT_ONCE) for scheme, guard in callbacks.guards(allow).items()
        }
        self._timeouts = TimeoutSpec(connect_s=min(3.0, timeout_s), first_byte_s=timeout_s, idle_s=timeout_s, total_s=timeout_s)
        self._wall = wall

    async def send(self, delivery: Delivery, keys: list[str]) -> Outcome:
        """Never raises but for cancellation."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            signed = signing.headers(delivery.message_id, int(self._wall()), delivery.body, keys)
        except ValueError:
            return Outcome(error="There is no signing secret for it any more; make one, then send it again.", final=True)
        try:
            headers = {"content-type": "application/json", "user-agent": "llmcontrol-webhooks/1", **signed}
            transport = self._transports[urlsplit(delivery.url).scheme.lower()]
            response = await transport.open(WireCall(delivery.url, headers, delivery.body), self._timeouts)
            status, retry_after = response.status, response.headers.get("retry-after", "")
            response.close()
        except GatewayError as error:
            final = isinstance(error, OutboundRefused)
            return Outcome(error=_sentence(error, self._timeouts.total_s), final=final, duration_s=loop.time() - began)
        return _judged(status, retry_after, loop.time() - began)

    async def close(self) -> None:
        for transport in self._transports.values():
            await transport.close()


def _judged(status: int, retry_after: str, duration_s: float) -> Outcome:
    if 200 <= status < 300:
        return Outcome(status, duration_s=duration_s)
    if 300 <= status < 400:
        return Outcome(status, f"It answered {status}, a redirect: these are not followed.", duration_s=duration_s)
    wait_s = float(retry_after) if retry_after.isascii() and retry_after.isdecimal() and len(retry_after) < 9 else 0.0
    return Outcome(status, f"It answered {status}.", final=status == _GONE, wait_s=wait_s, duration_s=duration_s)


def _sentence(error: GatewayError, timeout_s: float) -> str:
    """The transport speaks of providers."""
    if isinstance(error, OutboundRefused):
        return "Its address may not be called: it must be https at a public address, or be listed in WEBHOOK_ALLOW."
    if isinstance(error, ProviderTimeout):
        return f"No answer within {timeout_s:g} s."
    if isinstance(error, ProviderTlsFailed):
        return "No trusted TLS connection: its certificate is not valid for its name."
    if isinstance(error, ProviderNonsense):
        return "What it answered is not HTTP."
    return "It cannot be reached."


class Deliverer:
    """Looks for what is due every `poll_s`, and at once when this process has added something."""

    def __init__(self, sender: Sender, clock: Clock, bounds: Bounds) -> None:
        self._sender = sender
        self._clock = clock
        self._bounds = bounds
        self._rng = random.Random(secrets.randbits(64))
        self._database = DatabaseThread("webhooks")
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._running: dict[Delivery, asyncio.Task[None]] = {}
        self._loop: asyncio.Task[None] | None = None
        self._pruned_at = float("-inf")

    def start(self) -> None:
        self._loop = asyncio.create_task(self._forever())

    def wake(self) -> None:
        self._news.set()

    async def stop(self) -> None:
        """Begins nothing more; what is under way is sent again by somebody else."""
        if self._loop is None:
            return
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        unfinished = list(self._running)
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        if unfinished:
            with suppress(DatabaseError):
                await self._ask(lambda: deliveries.release(unfinished))
        await self._sender.close()
        await self._database.disconnect()

    async def _forever(self) -> None:
        while True:
            try:
                await self.look()
                await self._prune()
            except DatabaseError as exc:
                _log.warning("webhooks that are due cannot be read (%s); trying again", in_one_line(exc))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._bounds.poll_s):
                    await self._news.wait()
            self._news.clear()

    async def look(self) -> None:
        """Begins what is due and finds room. Raises DatabaseError."""
        room, bounds = MAX_AT_ONCE - len(self._running), self._bounds
        if room <= 0:
            return
        for delivery in await self._ask(lambda: deliveries.claim(room, bounds.per_host, self._clock.wall(), bounds.lease_s)):
            self._running[delivery] = asyncio.create_task(self._deliver(delivery))

    async def settled(self) -> None:
        """Returns when nothing is under way. For tests."""
        await asyncio.gather(*self._running.values())

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            outcome = await self._try(delivery)
            await self._ask(lambda: deliveries.settle(delivery, outcome, self._clock.wall(), self._bounds.max_tries, self._rng))
            if outcome.error:
                _log.warning("webhook %s to %s: %s", delivery.message_id, callbacks.host_of(delivery.url), outcome.error)
        except DatabaseError as exc:
            # Its lease runs out, and it is sent once more: the receiver knows it by its id.
            _log.error("what came of webhook %s cannot be written (%s)", delivery.message_id, in_one_line(exc))
        finally:
            self._running.pop(delivery, None)
        self._news.set()

    async def _try(self, delivery: Delivery) -> Outcome:
        moment = datetime.fromtimestamp(self._clock.wall(), UTC)
        try:
            keys = await self._ask(lambda: [secret.reveal() for secret in services.secrets_of(delivery.team_id, moment)])
        except CannotOpen:
            return Outcome(error="Its signing secret cannot be opened: a key-encryption key is missing or away.")
        return await self._sender.send(delivery, keys)

    async def _prune(self) -> None:
        if self._clock.monotonic() - self._pruned_at < _PRUNE_EVERY_S:
            return
        now, bounds = self._clock.wall(), self._bounds
        webhooks = await self._ask(lambda: deliveries.prune(now, bounds.keep_days))
        told = await self._ask(lambda: events.prune(datetime.fromtimestamp(now, UTC), bounds.keep_events_s))
        if not (webhooks or told):
            self._pruned_at = self._clock.monotonic()

    async def _ask(self, work: Callable[[], _T]) -> _T:
        async with self._turn:
            return await self._database.run(work)
