"""What feeds the dispatcher with jobs, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from tasks.jobs import Feed


def nothing() -> None:
    """A worker that has ended in good order."""


def failure() -> None:
    """One that could not say goodbye: its database is away."""
    raise psycopg.OperationalError("the connection is lost")


@pytest.mark.parametrize("ends", [nothing, failure])
async def test_it_ends_when_it_is_told_to_however_its_worker_takes_it(monkeypatch: pytest.MonkeyPatch, ends: Callable[[], None]) -> None:
    begun: list[int] = []

    async def work(_: Feed) -> None:
        begun.append(1)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends()

    async def take(_: str) -> None: ...

    monkeypatch.setattr(Feed, "_work", work)
    running = asyncio.create_task(Feed(take, concurrency=1, poll_s=0, silence_s=1).run())
    await asyncio.sleep(0)
    running.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert begun == [1]
    assert running.cancelled()
