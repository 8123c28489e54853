"""A change is in force after one look; a failure keeps what is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from django.db import OperationalError

from core.clock import FrozenClock
from core.config import Snapshot
from gateway.config.loader import load
from gateway.config.publisher import current_version
from gateway.config.watcher import PARTIAL_S, Watcher
from monitoring.threads import in_thread
from tests.gateway_config.rows import a_team, an_api_key


class Ticks:
    """A sleep that ends when told to."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._asleep = asyncio.Event()
        self._go = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        self._asleep.set()
        await self._go.wait()
        self._go.clear()

    async def next(self) -> None:
        """Lets one poll interval pass and waits until the watcher sleeps again."""
        async with asyncio.timeout(10):
            await self._asleep.wait()
            self._asleep.clear()
            self._go.set()
            await self._asleep.wait()


class Database:
    """Stands for the database: a version, and a switch to make it fail."""

    def __init__(self) -> None:
        self.version = 1
        self.is_partial = False
        self.failure: Exception | None = None
        self.loads: list[Snapshot | None] = []

    def current_version(self) -> int:
        if self.failure:
            raise self.failure
        return self.version

    def load(self, previous: Snapshot | None) -> Snapshot:
        self.loads.append(previous)
        if self.failure:
            raise self.failure
        return Snapshot(version=self.version, loaded_at=0, is_partial=self.is_partial)


def make_watcher(
    database: Database, apply: Callable[[Snapshot], None], ticks: Ticks | None = None, clock: FrozenClock | None = None
) -> Watcher:
    sleep = (ticks or Ticks()).sleep
    return Watcher(database.load, database.current_version, apply, 1.0, clock=clock or FrozenClock(), sleep=sleep)


async def test_age_is_told_and_counts_from_the_last_good_look_whatever_the_wall_clock_does(caplog: pytest.LogCaptureFixture) -> None:
    database, clock, told = Database(), FrozenClock(), []
    watcher = Watcher(database.load, database.current_version, lambda snapshot: None, 1.0, clock=clock, aged=told.append)
    await watcher.start()
    database.failure = OperationalError("server closed the connection\n\tunexpectedly")
    clock.advance(5)
    await watcher.look()
    database.failure = OperationalError("connection refused")
    clock.advance(2)
    clock._wall_s += 3600  # somebody sets it
    await watcher.look()
    database.failure = None
    await watcher.look()
    await watcher.stop()

    assert told == [5.0, 7.0, 0.0]
    lines = [record for record in caplog.records if record.levelname == "ERROR"]
    assert ["closed the connection unexpectedly" in line.getMessage() for line in lines] == [True]
    assert not lines[0].exc_info


async def test_start_puts_the_first_snapshot_in_force() -> None:
    database, applied = Database(), []
    watcher = make_watcher(database, applied.append)
    await watcher.start()
    await watcher.stop()
    await watcher.stop()

    assert [snapshot.version for snapshot in applied] == [1]
    assert watcher.snapshot is applied[0]
    assert database.loads == [None]


async def test_start_without_a_database_raises() -> None:
    database = Database()
    database.failure = OperationalError("no database")
    watcher = make_watcher(database, lambda snapshot: None)
    with pytest.raises(OperationalError):
        await watcher.start()
    await watcher.stop()


async def test_a_change_is_in_force_after_one_poll_and_no_change_loads_nothing() -> None:
    database, applied, ticks = Database(), [], Ticks()
    watcher = make_watcher(database, applied.append, ticks)
    await watcher.start()
    await ticks.next()
    assert len(database.loads) == 1

    database.version = 5
    await ticks.next()
    assert [snapshot.version for snapshot in applied] == [1, 5]
    assert database.loads[1] is applied[0]
    assert set(ticks.asked) == {1.0}
    await watcher.stop()


async def test_a_failure_keeps_the_last_good_snapshot_and_tells_since_when() -> None:
    database, applied, clock = Database(), [], FrozenClock()
    watcher = make_watcher(database, applied.append, clock=clock)
    await watcher.start()
    assert (watcher.stale_since, watcher.alarm) == (None, None)

    database.version, database.failure = 2, OperationalError("the database is away")
    await watcher.look()
    failed_at = clock.wall()
    clock.advance(30)
    await watcher.look()
    assert watcher.snapshot is applied[-1]
    assert len(applied) == 1
    assert watcher.stale_since == failed_at
    assert "the database is away" in (watcher.alarm or "")

    database.failure = None
    await watcher.look()
    assert [snapshot.version for snapshot in applied] == [1, 2]
    assert (watcher.stale_since, watcher.alarm) == (None, None)
    await watcher.stop()


async def test_a_snapshot_that_cannot_be_applied_is_tried_again() -> None:
    database, applied = Database(), []

    def apply(snapshot: Snapshot) -> None:
        applied.append(snapshot)
        if len(applied) == 2:
            raise ValueError("cannot build a runtime")

    watcher = make_watcher(database, apply)
    await watcher.start()
    database.version = 2
    await watcher.look()
    assert watcher.snapshot is applied[0]
    assert "cannot build a runtime" in (watcher.alarm or "")
    await watcher.look()
    assert watcher.snapshot is applied[2]
    assert watcher.alarm is None
    await watcher.stop()


async def test_the_watch_goes_on_after_a_failure() -> None:
    database, applied, ticks = Database(), [], Ticks()
    watcher = make_watcher(database, applied.append, ticks)
    await watcher.start()
    database.failure = RuntimeError("a bug")
    await ticks.next()
    database.version, database.failure = 2, None
    await ticks.next()
    assert [snapshot.version for snapshot in applied] == [1, 2]
    await watcher.stop()


@pytest.mark.django_db(transaction=True)
async def test_a_saved_row_is_in_force_after_one_poll() -> None:
    applied, ticks = [], Ticks()
    watcher = Watcher(load, current_version, applied.append, 1.0, sleep=ticks.sleep)
    await watcher.start()

    key = await in_thread(lambda: an_api_key(a_team()))
    await ticks.next()
    assert set(applied[-1].callers) == {bytes(key.digest)}

    await in_thread(key.delete)
    await ticks.next()
    assert applied[-1].callers == {}
    await watcher.stop()


async def test_what_lacks_something_because_a_service_was_away_is_read_again_now_and_then(clock: FrozenClock) -> None:
    database, applied = Database(), []
    database.is_partial = True
    watcher = make_watcher(database, applied.append, clock=clock)
    await watcher.start()
    for _ in range(3):
        await watcher.look()
    assert len(applied) == 1
    clock.advance(PARTIAL_S)
    database.is_partial = False
    await watcher.look()
    clock.advance(PARTIAL_S)
    await watcher.look()
    await watcher.stop()
    assert [snapshot.is_partial for snapshot in applied] == [True, False]
