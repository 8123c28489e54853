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

import msgspec
from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError

from core.clock import Clock
from core.secrets import CannotOpen
from monitoring.threads import DatabaseThread, in_one_line
from telling import deliveries, events, services, signing
from telling.alert_services import Receiver, receiver_of
from telling.callbacks import Allowed
from telling.carrier import MAX_AT_ONCE, Carrier
from telling.channels.base import Message
from telling.deliveries import Delivery
from telling.outcome import Outcome

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_LEASE_BEYOND_TIMEOUT_S = 20.0
_PRUNE_EVERY_S = 600.0


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
    """One try: signed or in the words of a chat, sent, and judged."""

    def __init__(self, allow: Allowed, timeout_s: float, wall: Callable[[], float]) -> None:
        self._carrier = Carrier(allow, timeout_s, wall)

    async def send(self, delivery: Delivery, keys: list[str]) -> Outcome:
        """Never raises but for cancellation."""
        try:
            signed = signing.headers(delivery.message_id, int(self._carrier.wall()), delivery.body, keys)
        except ValueError:
            return Outcome(error="There is no signing secret for it any more; make one, then send it again.", final=True)
        return await self._carrier.post(delivery.url, {"content-type": "application/json", **signed}, delivery.body)

    async def alert(self, delivery: Delivery, receiver: Receiver) -> Outcome:
        """Never raises but for cancellation."""
        message = msgspec.json.decode(delivery.body, type=Message)
        return await receiver.channel.send(receiver.target, message, delivery.message_id, self._carrier)

    async def close(self) -> None:
        await self._carrier.close()


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
                _log.warning("webhook %s to %s: %s", delivery.message_id, delivery.host, outcome.error)
        except DatabaseError as exc:
            # Its lease runs out, and it is sent once more: the receiver knows it by its id.
            _log.error("what came of webhook %s cannot be written (%s)", delivery.message_id, in_one_line(exc))
        finally:
            self._running.pop(delivery, None)
        self._news.set()

    async def _try(self, delivery: Delivery) -> Outcome:
        moment = datetime.fromtimestamp(self._clock.wall(), UTC)
        try:
            if delivery.channel_id is not None:
                return await self._sender.alert(delivery, await self._ask(lambda: receiver_of(delivery.channel_id)))
            keys = await self._ask(lambda: [secret.reveal() for secret in services.secrets_of(delivery.team_id, moment)])
        except CannotOpen:
            return Outcome(error="Its signing secret cannot be opened: a key-encryption key is missing or away.")
        except ObjectDoesNotExist:
            return Outcome(error="Its channel was deleted.", final=True)
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
