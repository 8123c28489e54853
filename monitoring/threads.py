"""Database work beside an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import close_old_connections, connections

T = TypeVar("T")


class NotAnswered(Exception):
    """The database has not answered in time. Its answer is waited for all the same, and until then nothing else is asked."""


def in_one_line(exc: BaseException) -> str:
    """What went wrong, for a log: drivers write several lines."""
    return f"{type(exc).__name__}: {' '.join(str(exc).split())}"


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
        self._asked: asyncio.Future[Any] | None = None

    async def run(self, work: Callable[[], T], timeout_s: float | None = None) -> T:
        """Raises what `work` raises; the next piece of work then gets a new connection. Raises NotAnswered after `timeout_s`, and
        at once while a piece of work that was late is still not done: no client of a database can be made to stop waiting."""
        if self._busy:
            raise NotAnswered("the database has still not answered")

        def guarded() -> T:
            try:
                return work()
            except BaseException:
                connections.close_all()
                raise

        self._asked = answer = asyncio.get_running_loop().run_in_executor(self._pool, guarded)
        if timeout_s is None:
            return await answer
        done, _ = await asyncio.wait({answer}, timeout=timeout_s)
        if done:
            return answer.result()
        answer.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody else will look at it
        raise NotAnswered(f"the database has not answered for {timeout_s:g} s")

    @property
    def _busy(self) -> bool:
        return self._asked is not None and not self._asked.done()

    async def disconnect(self) -> None:
        """The next piece of work gets a new connection. With no more work to come, this leaves nothing open."""
        if not self._busy:
            await asyncio.get_running_loop().run_in_executor(self._pool, connections.close_all)
