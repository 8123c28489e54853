"""Database work beside an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from django.db import close_old_connections

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
