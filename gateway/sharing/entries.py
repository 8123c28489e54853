"""The cache's entries that any process may give again, and who of all processes makes one while the others wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from core.clock import Clock
from gateway.cache import Entry
from gateway.sharing.answers import FIRST_LOOK_S, LAST_LOOK_S, LEASE_S, Lead
from gateway.sharing.peers import CACHE_PREFIX, Peers

_RUNNING, _NOTHING = b"running", b""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


class Entries:
    """See `gateway.cache.Shared`. Where peers cannot be reached, they know of nothing, and each process asks for itself."""

    def __init__(self, peers: Peers, clock: Clock, *, max_bytes: int, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """`max_bytes`: the longest that is shared."""
        self._peers = peers
        self._clock = clock
        self._max_bytes = max_bytes
        self._sleep = sleep

    async def find(self, key: bytes, max_age_s: float, gives_up_at: float) -> tuple[Entry, bool] | Making:
        """`gives_up_at` in monotonic seconds. Raises TimeoutError."""
        name, pause_s, waited = _name(key), FIRST_LOOK_S, False
        while True:
            value = await self._peers.look(name)
            if (entry := self._fresh(value, max_age_s)) is not None:
                return entry, waited
            if value != _RUNNING and await self._peers.claim(name, LEASE_S):
                if (making := await self._begun(name, max_age_s)) is not None:
                    return making
                continue  # it has come meanwhile
            left_s, waited = gives_up_at - self._clock.monotonic(), True
            if left_s <= 0:
                raise TimeoutError
            await self._sleep(min(pause_s, left_s))
            pause_s = min(LAST_LOOK_S, 2 * pause_s)

    async def lay(self, key: bytes, entry: Entry, ttl_s: float) -> None:
        """For whoever looks in the next `ttl_s`; what is too long is not laid down."""
        if entry.size <= self._max_bytes:
            await self._peers.lay(_name(key), _encode(entry), ttl_s)

    async def _begun(self, name: str, max_age_s: float) -> Making | None:
        """What is claimed is made here. None where there is an entry after all."""
        try:
            if self._fresh(await self._peers.look(name), max_age_s) is None:
                lead = Lead(self._peers, name, _RUNNING)
                await lead.begin()
                return Making(lead, self._max_bytes)
        except BaseException:
            self._peers.release(name)
            raise
        self._peers.release(name)
        return None

    def _fresh(self, value: bytes | None, max_age_s: float) -> Entry | None:
        if not value or value == _RUNNING:
            return None
        try:
            entry = _decode(value)
        except (msgspec.DecodeError, ValueError):  # of another version
            return None
        return entry if self._clock.wall() - entry.made_at < max_age_s else None


class Making:
    """See `gateway.cache.Making`."""

    def __init__(self, lead: Lead, max_bytes: int) -> None:
        self._lead = lead
        self._max_bytes = max_bytes

    async def end(self, entry: Entry | None, ttl_s: float) -> None:
        shared = entry is not None and entry.size <= self._max_bytes
        await self._lead.end(_encode(entry) if shared else _NOTHING, ttl_s)


def _name(key: bytes) -> str:
    return CACHE_PREFIX + key.hex()
