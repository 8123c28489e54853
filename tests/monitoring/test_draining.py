"""From a living process's journal to the ledger: every record once, whatever fails in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from prometheus_client import REGISTRY

from core.clock import FrozenClock
from monitoring import journal_reading, ledger
from monitoring.journal import segment_numbers, tokens
from monitoring.models import RequestLog, UsageRecord
from monitoring.threads import in_thread
from monitoring.usage import ADOPT_INTERVAL_S, UNFINISHED_MAX_AGE_S, replay
from tests.monitoring.drainers import checkpoint, database_down, ids, make_drainer
from tests.monitoring.records import BEGUN, die, ended, make_journal, opened, settled, whole

pytestmark = pytest.mark.django_db


def test_a_pass_takes_only_what_is_new(tmp_path: Path, django_assert_num_queries: Callable[..., Any]) -> None:
    journal = make_journal(tmp_path)
    drainer = make_drainer(journal)
    journal.write(*whole("a"))
    drainer.drain()
    with django_assert_num_queries(0):
        assert drainer.drain()
    journal.write(*whole("b"))
    drainer.drain()

    assert ids() == {"a-1", "b-1"}
    assert (drainer.report.usage_records, drainer.report.request_logs) == (2, 2)


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each outermost transaction of the ledger stored, and a limit of 50 records for it."""
    monkeypatch.setattr(journal_reading, "MAX_RECORDS", 50)
    sizes: list[int] = []
    insert_into, insert = ledger._insert_into, ledger.insert

    def counted(table: ledger.Table, rows: Any) -> int:
        sizes[-1] += len(rows)
        return insert_into(table, rows)

    def begun(rows: Any) -> Any:
        sizes.append(0)
        return insert(rows)

    monkeypatch.setattr(ledger, "_insert_into", counted)
    monkeypatch.setattr(ledger, "insert", begun)
    return sizes


def test_no_transaction_takes_more_than_the_most_records(tmp_path: Path, transactions: list[int]) -> None:
    journal = make_journal(tmp_path)
    for number in range(120):
        journal.write(ended(f"r{number}"))

    make_drainer(journal).drain()

    assert transactions == [50, 50, 20]
    assert RequestLog.objects.count() == 120


def test_no_transaction_of_the_interrupted_takes_more_than_the_most_records(tmp_path: Path, transactions: list[int]) -> None:
    journal = make_journal(tmp_path)
    journal.write(*[opened(f"r{number}") for number in range(60)])
    die(journal)

    replay(tmp_path)

    assert [size for size in transactions if size] == [50, 50, 20]
    assert UsageRecord.objects.count() == RequestLog.objects.count() == 60


def test_more_rows_than_a_statement_holds_are_all_counted_and_stored_once(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    number_of_rows = 2 * ledger._ROWS_PER_STATEMENT + 7
    for number in range(number_of_rows):
        journal.write(*whole(f"r{number}"))
    drainer = make_drainer(journal)
    drainer.drain()
    die(journal)
    (tmp_path / f"{journal.token}.checkpoint").unlink()

    again = replay(tmp_path)

    assert (drainer.report.usage_records, drainer.report.request_logs) == (number_of_rows, number_of_rows)
    assert (again.journals, again.usage_records, again.request_logs) == (1, 0, 0)
    assert UsageRecord.objects.count() == RequestLog.objects.count() == number_of_rows


def test_the_checkpoint_stays_before_what_is_not_settled(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(*whole("a"))
    after_a = journal.committed()
    journal.write(opened("slow"))
    journal.write(*whole("b"))
    drainer = make_drainer(journal)

    drainer.drain()
    assert ids() == {"a-1", "b-1"}
    assert checkpoint(journal) == after_a

    journal.write(settled("slow"), ended("slow"))
    drainer.drain()
    assert ids() == {"a-1", "b-1", "slow-1"}
    assert checkpoint(journal) == journal.committed()


def test_the_checkpoint_stays_before_a_request_between_two_attempts(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("a", 1))
    journal.write(settled("a", 1, status="error"))
    make_drainer(journal).drain()
    die(journal)

    replay(tmp_path)

    assert UsageRecord.objects.get().status == "error"
    assert (RequestLog.objects.get().status_code, RequestLog.objects.get().error_code) == (500, "process_died")


def test_a_retry_does_not_move_the_checkpoint_past_another_request(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    for name in "ab":
        journal.write(opened(name, 1))
        journal.write(settled(name, 1, status="error"))
    journal.write(opened("a", 2))
    make_drainer(journal).drain()
    die(journal)

    replay(tmp_path)

    assert set(RequestLog.objects.values_list("request_id", "attempts")) == {("a", 2), ("b", 1)}


def test_drained_segments_go_and_the_one_with_an_open_attempt_stays(tmp_path: Path) -> None:
    journal = make_journal(tmp_path, segment_bytes=1000)
    drainer = make_drainer(journal)
    for number in range(10):
        journal.write(*whole(f"r{number}"))
    journal.write(opened("slow"))
    holds_slow = journal.committed().sequence
    for number in range(10, 20):
        journal.write(*whole(f"r{number}"))

    drainer.drain()
    assert segment_numbers(tmp_path, journal.token)[0] == holds_slow

    journal.write(settled("slow"), ended("slow"))
    drainer.drain()
    assert segment_numbers(tmp_path, journal.token) == [journal.committed().sequence]
    assert UsageRecord.objects.count() == 21


def told(metric: str) -> float | None:
    return REGISTRY.get_sample_value(f"llm_journal_{metric}")


def test_a_database_that_is_away_loses_nothing(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    clock = FrozenClock()
    drainer = make_drainer(journal, clock)
    with database_down():
        for number in range(3):
            journal.write(*whole(f"r{number}"))
            assert not drainer.drain()
        assert (told("backlog_bytes"), told("failing_seconds")) == (journal.committed().offset, 0)
        clock.advance(90)
        assert not drainer.drain()
    assert drainer.backlog_bytes == journal.committed().offset
    assert (told("backlog_bytes"), told("failing_seconds")) == (journal.committed().offset, 90)
    assert drainer.failing_since == clock.wall() - 90
    assert UsageRecord.objects.count() == 0

    assert drainer.drain()
    assert (told("backlog_bytes"), told("failing_seconds")) == (0, 0)

    assert ids() == {"r0-1", "r1-1", "r2-1"}
    assert RequestLog.objects.count() == 3
    assert (drainer.backlog_bytes, drainer.failing_since) == (0, None)


def test_a_database_that_fails_is_asked_ever_more_rarely(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(*whole("a"))
    drainer = make_drainer(journal)
    pauses = [drainer.pause_s()]
    with database_down():
        for _ in range(8):
            drainer.drain()
            pauses.append(drainer.pause_s())
    drainer.drain()

    assert pauses == [0.5, 1, 2, 4, 5, 5, 5, 5, 5]
    assert drainer.pause_s() == 0.5


def test_what_never_ends_is_entered_in_the_end(tmp_path: Path) -> None:
    clock = FrozenClock(BEGUN)
    journal = make_journal(tmp_path)
    journal.write(opened("stuck"))
    drainer = make_drainer(journal, clock)
    clock.advance(UNFINISHED_MAX_AGE_S - 1)
    drainer.drain()
    assert ids() == set()
    clock.advance(2)

    with database_down():
        assert not drainer.drain()
    assert drainer.drain()

    assert (UsageRecord.objects.get().status, UsageRecord.objects.get().error_code) == ("interrupted", "never_ended")
    assert RequestLog.objects.get().error_code == "never_ended"
    assert checkpoint(journal) == journal.committed()


def test_a_dead_sibling_is_adopted_by_the_living(tmp_path: Path) -> None:
    clock = FrozenClock()
    dead, living = make_journal(tmp_path), make_journal(tmp_path)
    drainer = make_drainer(living, clock)
    dead.write(*whole("a"))
    clock.advance(ADOPT_INTERVAL_S)
    drainer.drain()
    assert ids() == set()
    die(dead)

    clock.advance(ADOPT_INTERVAL_S - 0.1)
    drainer.drain()
    assert ids() == set()
    clock.advance(0.2)
    drainer.drain()

    assert ids() == {"a-1"}
    assert tokens(tmp_path) == [living.token]


@pytest.mark.django_db(transaction=True)
async def test_the_loop_drains_and_stop_drains_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = make_journal(tmp_path)
    drainer = make_drainer(journal, interval_s=0.001)
    stored = threading.Event()
    real = ledger.insert

    def insert(rows: Any) -> Any:
        result = real(rows)
        stored.set()
        return result

    monkeypatch.setattr(ledger, "insert", insert)
    running = asyncio.create_task(drainer.run())
    journal.write(*whole("a"))
    assert await asyncio.to_thread(stored.wait, 10)
    stopping = asyncio.create_task(drainer.stop())
    journal.write(*whole("b"))
    await stopping
    await running

    assert await in_thread(ids) == {"a-1", "b-1"}


@pytest.mark.django_db(transaction=True)
async def test_the_loop_outlives_every_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = make_journal(tmp_path)
    drainer = make_drainer(journal, interval_s=0.0001)
    journal.write(*whole("a"))
    failures = iter([RuntimeError("a bug"), OSError("no disk"), OperationalError("no database")])
    stored = threading.Event()
    real = ledger.insert

    def failing(rows: Any) -> Any:
        for failure in failures:
            raise failure
        stored.set()
        return real(rows)

    monkeypatch.setattr(ledger, "insert", failing)
    running = asyncio.create_task(drainer.run())
    assert await asyncio.to_thread(stored.wait, 10)
    await drainer.stop()
    await running

    assert await in_thread(ids) == {"a-1"}
    assert drainer.failing_since is None


async def test_stop_without_run_returns(tmp_path: Path) -> None:
    async with asyncio.timeout(10):
        await make_drainer(make_journal(tmp_path)).stop()
