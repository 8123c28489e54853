"""Who gets which connection: limits, turns, and that no slot is ever lost, whoever is cancelled when."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from core import http1_pool
from core.http1 import Origin
from core.http1_connection import Broken
from core.http1_pool import Pool

A, B, C = (Origin("http", f"{name}.test", 80) for name in "abc")


class Line:
    """A connection without a wire: the pool's side of it, in the test's hands."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.owner: Any = None
        self.gone = False
        self.idle_since = 0.0
        self.stale = False

    def usable(self, now: float) -> bool:
        return not (self.gone or self.stale)

    def abort(self) -> None:
        if not self.gone:
            self.gone = True
            self.owner.gone(self)

    def done(self) -> None:
        """A call ended cleanly."""
        self.owner.freed(self)


class Net:
    """What `connect` leads to. `hold` keeps attempts waiting, `fail` makes them fail."""

    def __init__(self) -> None:
        self.opened: list[Line] = []
        self.hold: asyncio.Event | None = None
        self.fail = False

    async def connect(self, origin: Origin) -> Any:
        if self.hold is not None:
            await self.hold.wait()
        if self.fail:
            raise OSError("refused")
        self.opened.append(Line(origin))
        return self.opened[-1]


@pytest.fixture
def net() -> Net:
    return Net()


def pool_of(net: Net, total: int = 2, per_host: int = 2) -> Pool:
    return Pool(net.connect, max_connections=total, max_per_host=per_host)


async def turns(count: int = 5) -> None:
    """Lets everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


def begin(pool: Pool, *origins: Origin) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(pool.acquire(origin)) for origin in origins]


def assert_empty(pool: Pool) -> None:
    pool.close()
    assert (pool._slots, pool._slots_taken, pool._waiting, pool._open) == ({}, 0, {}, set())


async def test_the_connection_used_last_is_used_next(net: Net) -> None:
    pool = pool_of(net)
    first, second = await pool.acquire(A), await pool.acquire(A)
    first.done()
    second.done()
    assert pool.take(B) is None
    assert pool.take(A) is second
    assert pool.take(A) is first
    assert pool.take(A) is None
    assert_empty(pool)


async def test_no_more_connections_than_the_limits_and_waiters_are_served_in_turn(net: Net) -> None:
    pool = pool_of(net, total=3, per_host=2)
    tasks = begin(pool, A, A, A, A, B, B)
    await turns()
    assert [line.origin for line in net.opened] == [A, A, B]
    net.opened[0].done()  # a connection to A goes to the first who wants one
    await turns()
    assert [task.done() for task in tasks] == [True, True, True, False, True, False]
    assert tasks[2].result() is net.opened[0]
    net.opened[1].done()
    net.opened[0].done()  # nobody waits for A any more: it makes way for B
    await turns()
    assert [line.origin for line in net.opened] == [A, A, B, B]
    assert net.opened[0].gone
    assert all(task.done() for task in tasks)
    assert_empty(pool)


async def test_a_waiter_for_another_origin_that_came_first_is_served_first(net: Net) -> None:
    pool = pool_of(net, total=1)
    line = await pool.acquire(A)
    for_b, for_a = begin(pool, B, A)
    await turns()
    line.done()
    await turns()
    assert (for_b.done(), for_a.done(), line.gone) == (True, False, True)
    for_b.result().done()
    await turns()
    assert for_a.done()
    assert_empty(pool)


async def test_an_idle_connection_makes_way_for_another_origin(net: Net) -> None:
    pool = pool_of(net, total=2)
    older, newer = await pool.acquire(A), await pool.acquire(B)
    older.done()
    newer.idle_since = older.idle_since + 1
    newer.owner._loop = type("Later", (), {"time": lambda self: older.idle_since + 1})()
    newer.done()
    await pool.acquire(C)
    assert (older.gone, newer.gone) == (True, False)


async def test_a_connection_that_the_peer_closed_is_never_handed_out(net: Net) -> None:
    pool = pool_of(net)
    first, second = await pool.acquire(A), await pool.acquire(A)
    first.done()
    second.done()
    first.abort()  # the loop has told
    second.stale = True  # the socket tells
    third = await pool.acquire(A)
    assert third not in (first, second)
    assert second.gone
    assert pool._slots == {A: 1}
    assert_empty(pool)


async def test_what_was_idle_for_too_long_is_closed(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(net)
    line = await pool.acquire(A)
    line.done()
    line.idle_since -= http1_pool.IDLE_S
    assert pool.take(A) is None
    assert line.gone
    monkeypatch.setattr(http1_pool, "IDLE_S", 0.01)
    line = await pool.acquire(A)
    pool._sweeper.cancel()  # type: ignore[union-attr]
    pool._sweeper = None
    line.done()
    async with asyncio.timeout(5):
        while not line.gone:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert pool._sweeper is None
    assert_empty(pool)


async def test_an_attempt_that_fails_gives_its_slot_to_the_next(net: Net) -> None:
    pool = pool_of(net, total=1)
    net.fail, net.hold = True, asyncio.Event()
    tasks = begin(pool, A, A, B)
    await turns()
    net.hold.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3
    assert_empty(pool)


async def test_a_connection_that_dies_while_it_is_handed_over_is_not_used(net: Net) -> None:
    pool = pool_of(net, total=1)
    line = await pool.acquire(A)
    (task,) = begin(pool, A)
    await turns()
    line.done()
    line.abort()
    await turns()
    assert task.result() is not line
    assert pool._slots_taken == 1
    assert_empty(pool)


async def test_closing_ends_waiting_and_attempts_under_way(net: Net) -> None:
    pool = pool_of(net, total=2)
    used = await pool.acquire(A)
    net.hold = asyncio.Event()
    tasks = begin(pool, A, B)
    await turns()
    pool.close()
    net.hold.set()
    assert [type(result) for result in await asyncio.gather(*tasks, return_exceptions=True)] == [Broken] * 2
    assert used.gone
    assert_empty(pool)


@pytest.mark.parametrize(("steps", "event"), list(itertools.product(range(6), ["freed", "gone", "freed then gone"])))
async def test_whoever_is_cancelled_at_whatever_point_no_slot_is_lost(net: Net, steps: int, event: str) -> None:
    for victim, before in itertools.product(range(4), (True, False)):
        pool = pool_of(net, total=1)
        line = await pool.acquire(A)
        tasks = begin(pool, A, B, A, A)
        await turns()
        if before:
            tasks[victim].cancel()
        line.abort() if event == "gone" else line.done()
        if event == "freed then gone":
            line.abort()
        await turns(steps)
        tasks[victim].cancel()
        for _ in tasks:  # each who gets a turn gives it back
            await turns()
            for task in tasks:
                if task.done() and not task.cancelled() and task.exception() is None and not task.result().gone:
                    task.result().abort()
        await turns()
        assert [task.done() for task in tasks] == [True] * 4
        assert (pool._slots, pool._slots_taken, pool._waiting, pool._open) == ({}, 0, {}, set())
        assert_empty(pool)


async def test_a_cancelled_attempt_to_connect_gives_its_slot_back(net: Net) -> None:
    pool = pool_of(net, total=1)
    net.hold = asyncio.Event()
    first, second = begin(pool, A, B)
    await turns()
    first.cancel()
    await turns()
    net.hold.set()
    assert (await second).origin == B
    assert_empty(pool)
