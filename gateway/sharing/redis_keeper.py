"""Keeps one connection to Redis: makes it, and makes it again in the background when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.sharing.redis_address import Address
from gateway.sharing.redis_link import Link, Unreachable, connect

_FIRST_PROBE_S, _LAST_PROBE_S = 0.25, 1.0

Sleep = Callable[[float], Awaitable[None]]


class Keeper:
    """`link` is None while Redis is away: from the first failure on, until `greet` has succeeded on a new connection.

    `greet` asks what must work before the link counts as one, and raises Unreachable. `lost` is called as a link ends, with
    the reason; `refused` with the reason why there is none yet.
    """

    def __init__(
        self,
        address: Address,
        greet: Callable[[Link], Awaitable[None]],
        lost: Callable[[str], None],
        refused: Callable[[str], None],
        heard: Callable[[list[object]], None] | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.link: Link | None = None
        self._address = address
        self._greet = greet
        self._told_lost = lost
        self._refused = refused
        self._heard = heard
        self._sleep = sleep
        self._probing: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Tries once before it returns, for a second at most; from then on by itself."""
        await self._try()
        if self.link is None:
            self._probe()

    async def stop(self) -> None:
        self._stopped = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        if self.link is not None:
            self.link.close()
            self.link = None

    async def _try(self) -> None:
        link = None
        try:
            link = await connect(self._address, self._lost, self._heard)
            await self._greet(link)
        except BaseException as exc:
            if link is not None:
                link.close()
            if not isinstance(exc, Unreachable):
                raise
            self._refused(str(exc))
        else:
            self.link = None if link.closed else link

    def _lost(self, reason: str) -> None:
        if self.link is not None and not self._stopped:
            self.link = None
            self._told_lost(reason)
            self._probe()

    def _probe(self) -> None:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().create_task(self._until_up())

    async def _until_up(self) -> None:
        wait_s = _FIRST_PROBE_S
        while self.link is None:
            await self._sleep(wait_s)
            await self._try()
            wait_s = min(_LAST_PROBE_S, 2 * wait_s)
