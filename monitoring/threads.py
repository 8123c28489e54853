"""Database work beside an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import close_old_connections, connections

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """`work` in a thread of the loop's pool. Django opens a connection per thread and closes it only after HTTP requests of
    its own; here it is closed, or with CONN_MAX_AGE checked and kept, around each piece of work."""

    def guarded() -> T:
        close_old_connections()
        try:
            return work()
        finally:
            close_old_connections()

    return await asyncio.to_thread(guarded)


class DatabaseThread:
    """One thread whose connection stays open from one piece of work to the next, for work that comes again and again.

    Opening SQLite anew costs a millisecond each time, and whoever is the last to close it makes it write its log back.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """Raises what `work` raises; the next piece of work then gets a new connection."""

        def guarded() -> T:
            try:
                return work()
            except BaseException:
                connections.close_all()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._pool, guarded)

    async def disconnect(self) -> None:
        """The next piece of work gets a new connection. With no more work to come, this leaves nothing open."""
        await asyncio.get_running_loop().run_in_executor(self._pool, connections.close_all)
