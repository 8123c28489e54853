"""Which connection serves which call: idle ones first, the latest used before the others, and never more than the limits.

A slot is an open connection or an attempt to open one. Whoever finds none waits in line; what becomes free goes to the
first in line that can use it, and a connection of another origin makes way for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from core.http1 import Origin
from core.http1_connection import Broken, Connection

IDLE_S = 15.0


class Pool:
    """For one event loop. `connect` opens a connection and may raise anything."""

    def __init__(self, connect: Callable[[Origin], Awaitable[Connection]], *, max_connections: int, max_per_host: int) -> None:
        self._connect = connect
        self._max_connections, self._max_per_host = max_connections, max_per_host
        self.loop = asyncio.get_running_loop()
        self._slots: dict[Origin, int] = {}
        self._slots_taken = 0
        self._open: set[Connection] = set()
        self._idle: dict[Origin, list[Connection]] = {}
        self._waiting: dict[asyncio.Future[Connection | None], Origin] = {}  # in order; None = a slot to connect in
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, origin: Origin) -> Connection | None:
        """An idle connection, without waiting. None = there is none."""
        idle = self._idle.get(origin)
        now = self.loop.time()
        while idle:
            connection = idle.pop()
            if now - connection.idle_since < IDLE_S and connection.usable(now):
                return connection
            connection.abort()
        return None

    async def acquire(self, origin: Origin) -> Connection:
        """An idle connection or a new one; waits where a limit is reached. Raises what `connect` raises, and Broken."""
        connection = self.take(origin)
        if connection is None and not self._take_slot(origin):
            connection = await self._wait(origin)
        if connection is None:
            return await self._opened(origin)
        return await self.acquire(origin) if connection.gone else connection

    def close(self) -> None:
        """Aborts everything, calls under way too."""
        self._closed = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(Broken("closed by us"))
        for connection in list(self._open):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # What a connection tells

    def freed(self, connection: Connection) -> None:
        """See `Owner.freed`."""
        for waiter, origin in self._waiting.items():
            if waiter.done():
                continue
            if origin == connection.origin:
                return waiter.set_result(connection)
            if self._slots.get(origin, 0) < self._max_per_host:  # it waits for the total alone
                return connection.abort()
        connection.idle_since = self.loop.time()
        self._idle.setdefault(connection.origin, []).append(connection)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(IDLE_S, self._sweep)

    def gone(self, connection: Connection) -> None:
        """See `Owner.gone`."""
        self._open.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)
        self._give_slot(connection.origin)

    # Slots

    def _take_slot(self, origin: Origin) -> bool:
        if self._slots.get(origin, 0) >= self._max_per_host:
            return False
        if self._slots_taken >= self._max_connections:
            oldest = min((idle[0] for idle in self._idle.values() if idle), key=lambda connection: connection.idle_since, default=None)
            if oldest is None:
                return False
            oldest.abort()
            return self._take_slot(origin)
        self._slots[origin] = self._slots.get(origin, 0) + 1
        self._slots_taken += 1
        return True

    def _give_slot(self, origin: Origin) -> None:
        self._slots[origin] -= 1
        self._slots_taken -= 1
        if not self._slots[origin]:
            del self._slots[origin]
        for waiter, wanted in self._waiting.items():
            if not waiter.done() and self._take_slot(wanted):
                return waiter.set_result(None)

    async def _wait(self, origin: Origin) -> Connection | None:
        """A connection that was handed over, or None = a slot to open one in."""
        waiter: asyncio.Future[Connection | None] = self.loop.create_future()
        self._waiting[waiter] = origin
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and not waiter.exception():
                self._pass_on(origin, waiter.result())
            raise
        finally:
            del self._waiting[waiter]

    def _pass_on(self, origin: Origin, handed_over: Connection | None) -> None:
        if handed_over is None:
            self._give_slot(origin)
        elif not handed_over.gone:
            self.freed(handed_over)

    async def _opened(self, origin: Origin) -> Connection:
        """A new connection, in the slot that was taken for it."""
        try:
            connection = await self._connect(origin)
        except BaseException:
            self._give_slot(origin)
            raise
        self._open.add(connection)
        if connection.gone:
            self.gone(connection)
        connection.owner = self
        if self._closed:
            connection.abort()
        if connection.gone:
            raise Broken("closed as soon as it was open")
        return connection

    def _sweep(self) -> None:
        """Closes what nobody asked for in time. Runs only while something is idle, so that most calls set no timer."""
        self._sweeper = None
        too_long_ago = self.loop.time() - IDLE_S
        for idle in list(self._idle.values()):
            for connection in [connection for connection in idle if connection.idle_since <= too_long_ago]:
                connection.abort()
        self._idle = {origin: idle for origin, idle in self._idle.items() if idle}
        if self._idle:
            self._sweeper = self.loop.call_later(IDLE_S, self._sweep)
