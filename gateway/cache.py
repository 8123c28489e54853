"""Answers that are given again: to the same request of the same team, for as long as the model's or route's row says.

The store of one process, least recently used first out, and who makes an answer while others wait for it: of requests that
are the same, one asks and the rest are given what it gets. Where it fails or its client leaves, the next one asks.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

import msgspec

from core.clock import Clock
from core.config import RouteSpec
from core.errors import ProviderTimeout
from core.usage import Usage
from gateway.router import Link
from monitoring import metrics

_WEIGHT_BYTES = 1024  # of an entry beside its body


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One whole answer, as a client of the dialect that is in its key was given it: `body`, and of a stream its `tail`.

    `with_usage`: the stream told its usage. `target_id` is the row of the model that made it, at `made_at` (wall seconds).
    `cost_micros` of `currency` is what it had cost; None = its price is not known. `dropped`: see `WireCall`.
    """

    body: bytes
    tail: bytes
    streamed: bool
    with_usage: bool
    finish_reason: str
    output_bytes: int
    usage: Usage | None
    target_id: str
    made_at: float
    cost_micros: int | None
    currency: str
    dropped: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.body) + len(self.tail) + _WEIGHT_BYTES


class Making(Protocol):
    """Says to the other processes that this one makes an answer."""

    async def end(self, entry: Entry | None, ttl_s: float) -> None:
        """`entry` None: there is none, and another one may make it."""
        ...


class Shared(Protocol):
    """What other processes keep, see `gateway.sharing.entries`."""

    async def find(self, key: bytes, max_age_s: float, gives_up_at: float) -> tuple[Entry, bool] | Making:
        """(the entry, whether it was waited for), or this process is to make it. Raises TimeoutError."""
        ...

    async def lay(self, key: bytes, entry: Entry, ttl_s: float) -> None: ...


class _Kept(msgspec.Struct, frozen=True):
    entry: Entry
    born_s: float
    expires_s: float


class Lead(msgspec.Struct, eq=False):
    """Of the request that asks; to be ended once, by `land`, `fail` or `release` of the cache."""

    key: bytes
    followers: deque[asyncio.Future[Entry | Lead | None]]
    making: Making | None = None


class Cache:
    """Of a process. `shared` None = nobody else keeps anything."""

    def __init__(self, clock: Clock, *, max_bytes: int, max_entry_bytes: int, shared: Shared | None = None) -> None:
        self.clock = clock
        self.max_entry_bytes = min(max_entry_bytes, max_bytes)
        self.shared = shared
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._leads: dict[bytes, Lead] = {}
        self._telling: set[asyncio.Task[None]] = set()

    async def find(self, key: bytes, ttl_s: float, patience_s: float) -> tuple[Entry, bool] | Lead | None:
        """(the entry, whether it was waited for); or a Lead, and the caller is to ask, for others too; or None, and it is to ask for
        itself. Raises ProviderTimeout after `patience_s`."""
        gives_up_at = self.clock.monotonic() + patience_s
        if (entry := self.look(key, ttl_s)) is not None:
            return entry, False
        if (lead := self._leads.get(key)) is not None:
            found = await self._follow(lead, patience_s)
            if not isinstance(found, Lead):
                return None if found is None else (found, True)
        else:
            lead = self._leads[key] = Lead(key, deque())
        return lead if self.shared is None else await self._ask_others(lead, self.shared, ttl_s, gives_up_at)

    def look(self, key: bytes, ttl_s: float) -> Entry | None:
        """What is kept and no older than `ttl_s`."""
        kept, now = self._kept.get(key), self.clock.monotonic()
        if kept is None:
            return None
        if kept.expires_s <= now:
            self._drop(key)
            return None
        if now - kept.born_s >= ttl_s:
            return None
        self._kept.move_to_end(key)
        return kept.entry

    def land(self, lead: Lead, entry: Entry, ttl_s: float) -> None:
        """For whoever waits, for whoever asks in the next `ttl_s`, and for the other processes."""
        self.keep(lead.key, entry, ttl_s)
        self._give(lead, entry)
        self._tell(lead, entry, ttl_s)

    def fail(self, lead: Lead) -> None:
        """No answer came. The first that waits asks now, the others wait for that."""
        self._tell(lead, None, 0.0)
        while lead.followers:
            following = lead.followers.popleft()
            if not following.done():
                following.set_result(lead)
                return
        if self._leads.get(lead.key) is lead:
            del self._leads[lead.key]

    def release(self, lead: Lead) -> None:
        """What came is for nobody else, and would be again: whoever waits asks for himself."""
        self._tell(lead, None, 0.0)
        self._give(lead, None)

    def refresh(self, key: bytes, entry: Entry, ttl_s: float) -> None:
        """In place of what is kept, here and where the other processes look."""
        self.keep(key, entry, ttl_s)
        if self.shared is not None:
            self._soon(self.shared.lay(key, entry, ttl_s))

    def keep(self, key: bytes, entry: Entry, ttl_s: float) -> None:
        """What is too long is not kept; where there is no room, what was not asked for the longest goes."""
        if entry.size > self.max_entry_bytes + _WEIGHT_BYTES:
            return
        age_s = max(0.0, self.clock.wall() - entry.made_at)
        born_s = self.clock.monotonic() - age_s
        self._drop(key)
        self._kept[key] = _Kept(entry, born_s, born_s + ttl_s)
        self._bytes += entry.size
        while self._bytes > self._max_bytes and self._kept:
            self._drop(next(iter(self._kept)))
        metrics.CACHE_BYTES.set(self._bytes)

    async def stop(self) -> None:
        """Until the other processes know what they were being told."""
        if self._telling:
            await asyncio.wait(self._telling)

    async def _follow(self, lead: Lead, patience_s: float) -> Entry | Lead | None:
        following: asyncio.Future[Entry | Lead | None] = asyncio.get_running_loop().create_future()
        lead.followers.append(following)
        try:
            async with asyncio.timeout(patience_s if patience_s < float("inf") else None):
                return await following
        except BaseException as exc:
            if following.done() and not following.cancelled() and isinstance(following.result(), Lead):
                self.fail(lead)  # it was this one's turn, in the moment in which it gave up
            following.cancel()
            if isinstance(exc, TimeoutError):
                raise _too_long(patience_s) from None
            raise

    async def _ask_others(self, lead: Lead, shared: Shared, ttl_s: float, gives_up_at: float) -> tuple[Entry, bool] | Lead:
        began_s = self.clock.monotonic()
        try:
            found = await shared.find(lead.key, ttl_s, gives_up_at)
        except BaseException as exc:
            self.fail(lead)
            if isinstance(exc, TimeoutError):
                raise _too_long(gives_up_at - began_s) from None
            raise
        if not isinstance(found, tuple):
            lead.making = found
            return lead
        self.keep(lead.key, found[0], ttl_s)
        self._give(lead, found[0])
        return found

    def _give(self, lead: Lead, entry: Entry | None) -> None:
        if self._leads.get(lead.key) is lead:
            del self._leads[lead.key]
        for following in lead.followers:
            if not following.done():
                following.set_result(entry)
        lead.followers.clear()

    def _tell(self, lead: Lead, entry: Entry | None, ttl_s: float) -> None:
        if lead.making is not None:
            self._soon(lead.making.end(entry, ttl_s))
            lead.making = None

    def _soon(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def _drop(self, key: bytes) -> None:
        if (kept := self._kept.pop(key, None)) is not None:
            self._bytes -= kept.entry.size


def ttl_of(route: RouteSpec | None, chain: Iterable[Link]) -> int:
    """For how long answers of a chain may be given again, in seconds; 0 = they may not. What the route does not say, its models do:
    the shortest, and not at all where one of them does not. What only stands in for them is not asked."""
    if route is not None and route.cache_ttl_s is not None:
        return route.cache_ttl_s
    return min((model.cache_ttl_s for model, degraded, *_ in chain if not degraded), default=0)


def _too_long(patience_s: float) -> ProviderTimeout:
    return ProviderTimeout(
        f"Another request asks the same, and its answer, which this one was to share, did not come within {patience_s:g} s; "
        "send the request again."
    )
