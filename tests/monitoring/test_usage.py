"""From journal to ledger: every record once, whatever fails in between."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, OperationalError, connection, transaction
from prometheus_client import REGISTRY

from core.clock import FrozenClock
from monitoring import chain as chain_module
from monitoring import journal as journal_module
from monitoring import ledger
from monitoring.chain import REFUSED_FILE, Chain
from monitoring.journal import Journal, Position, frame, segment_numbers, segment_path, take_lock, tokens
from monitoring.models import RequestLog, UsageRecord
from monitoring.threads import in_thread
from monitoring.usage import ADOPT_INTERVAL_S, UNFINISHED_MAX_AGE_S, Drainer, replay
from tests.monitoring.records import BEGUN, die, ended, make_journal, opened, settled, whole
from tests.monitoring.test_journal import killed_writer

pytestmark = pytest.mark.django_db

NEVER_S = 1e9


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


def make_drainer(journal: Journal, clock: FrozenClock | None = None, interval_s: float = 0.5) -> Drainer:
    return Drainer(journal.directory, journal, interval_s, clock or FrozenClock())


def checkpoint(journal: Journal) -> Position:
    return Position(*json.loads((journal.directory / f"{journal.token}.checkpoint").read_text()))


DOWN = "the database is away|attempt to write a readonly database"


@contextmanager
def database_down() -> Iterator[None]:
    """Reads work, writes fail: on SQLite by the database itself, because the ledger writes to it past Django's cursor."""

    def refuse(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if sql.startswith("INSERT"):
            raise OperationalError("the database is away")
        return execute(sql, *args)

    if connection.vendor != "sqlite":
        with connection.execute_wrapper(refuse):
            yield
        return
    connection.ensure_connection()
    connection.connection.execute("PRAGMA query_only = ON")
    try:
        yield
    finally:
        connection.connection.execute("PRAGMA query_only = OFF")


@contextmanager
def without_request_log() -> Iterator[None]:
    """A failure of the database between the two tables of one transaction."""

    def rename(old: str, new: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")

    name = RequestLog._meta.db_table
    rename(name, "away")
    try:
        yield
    finally:
        rename("away", name)


def ids() -> set[str]:
    """Of attempts, as `request-number`."""
    return {str(row) for row in UsageRecord.objects.all()}


# Rows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [ledger.USAGE, ledger.REQUESTS, ledger.ENTRIES])
def test_every_column_is_written(table: ledger.Table) -> None:
    columns = {field.name for field in table.model._meta.concrete_fields if not field.primary_key}
    assert set(table.fields) == columns
    assert len(table.fields) == len(columns)


def test_an_answered_request_becomes_its_two_rows(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    labels = {"end_user": "ann", "task_type": "translation", "tag": "nightly"}
    journal.write(opened("a", **labels))
    more = {"cache": "shared", "saved_micros": 77, "prompt_name": "greet", "prompt_version": 3, "decision": "why"}
    more |= {"trace_id": "0af7651916cd43dd8448eb211c80319c", "replayed": True}
    journal.write(settled("a"), ended("a", **labels, **more))

    assert make_drainer(journal).drain()

    (usage,) = UsageRecord.objects.values()
    (request,) = RequestLog.objects.values()
    del usage["id"], request["id"]
    begun = datetime.fromtimestamp(BEGUN, UTC)
    who = {"team_id": "t1", "team_name": "growth", "key_id": "k1", "key_name": "backend"}
    assert usage == who | {
        "request_id": "a",
        "attempt": 1,
        "started_at": begun,
        "provider_id": "p1",
        "provider_name": "openai-main",
        "provider_key_id": "pk1",
        "alias": "gpt-4o",
        "model_id": "gpt-4o-2024-08-06",
        "status": "ok",
        "error_code": "",
        "vendor_status": 200,
        "finish_reason": "stop",
        "streamed": True,
        "input_tokens": 100,
        "cached_input_tokens": 20,
        "cache_write_tokens": 3,
        "output_tokens": 50,
        "reasoning_tokens": 7,
        "cache_write_1h_tokens": 2,
        "input_audio_tokens": 5,
        "input_image_tokens": 6,
        "output_audio_tokens": 8,
        "output_image_tokens": 9,
        "usage_source": "vendor",
        "cost_micros": 1234,
        "currency": "USD",
        "price_id": "price1",
        "duration_ms": 812,
        "first_token_ms": 210,
        "cost_reporting_micros": 8692,
        "charged_micros": 9127,
        "reporting_currency": "USD",
        "exchange_rate": "7.044",
        "config_version": 17,
        "budget_entries": 0,
        **labels,
        "usage_refused": "",
    }
    assert request == who | {
        "request_id": "a",
        "started_at": begun,
        "dialect": "openai",
        "alias": "gpt-4o",
        "provider_name": "openai-main",
        "model_id": "gpt-4o-2024-08-06",
        "streamed": True,
        "status_code": 200,
        "error_code": "",
        "error_message": "",
        "attempts": 1,
        "total_tokens": 173,
        "cost_micros": 1234,
        "currency": "USD",
        "duration_ms": 820,
        "first_token_ms": 212,
        "dropped": "seed",
        "config_version": 17,
        **more,
        **labels,
    }


def test_each_attempt_of_a_request_gets_its_row(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("a", 1))
    journal.write(settled("a", 1, status="error", error_code="upstream_timeout"))
    journal.write(opened("a", 2))
    journal.write(settled("a", 2), ended("a", attempts=2))
    make_drainer(journal).drain()

    assert list(UsageRecord.objects.order_by("attempt").values_list("status", "error_code")) == [("error", "upstream_timeout"), ("ok", "")]
    assert RequestLog.objects.get().attempts == 2


@pytest.mark.parametrize(
    "strange", [{"alias": "m" * 5000}, {"error_message": "bad\0 model"}, {"model_id": "x" * 201}, {"dialect": "d" * 21}]
)
def test_text_that_fits_no_column_keeps_no_row_out_of_the_ledger(tmp_path: Path, strange: dict[str, str]) -> None:
    """Postgres refuses such a row, SQLite takes it as it is; either way it and its neighbours are entered."""
    journal = make_journal(tmp_path)
    journal.write(*whole("before"), ended("strange", **strange), *whole("after"))
    drainer = make_drainer(journal)

    assert drainer.drain()

    assert ids() == {"before-1", "after-1"}
    assert set(RequestLog.objects.values_list("request_id", flat=True)) == {"before", "strange", "after"}
    assert (drainer.report.refused, drainer.report.problems) == (0, [])
    if connection.vendor == "postgresql":
        ((name, text),) = strange.items()
        stored = getattr(RequestLog.objects.get(request_id="strange"), name)
        assert stored == text.replace("\0", "")[: RequestLog._meta.get_field(name).max_length]


def test_rows_stored_one_by_one_are_cut_to_their_columns(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("bad"), settled("bad", input_tokens=2**70))
    journal.write(ended("a", alias="m" * 5000, error_message="bad\0 model", model_id="x" * 201))
    assert make_drainer(journal).drain()

    row = RequestLog.objects.get()
    assert (row.alias, row.error_message, row.model_id) == ("m" * 200, "bad model", "x" * 200)


def test_a_row_the_database_never_takes_is_set_aside_and_holds_nobody_up(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("bad"), settled("bad", input_tokens=2**70), ended("bad"))
    journal.write(*whole("good"))
    drainer = make_drainer(journal)

    assert drainer.drain()

    assert ids() == {"good-1"}
    assert RequestLog.objects.count() == 2
    (line,) = (tmp_path / REFUSED_FILE).read_text().splitlines()
    assert json.loads(line)["row"]["request_id"] == "bad"
    assert drainer.report.refused == 1
    assert REFUSED_FILE in drainer.report.problems[0]


# Eight rows in statements of three: the bad one comes first, in the middle, last, in the first statement and in the last.
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("bad", [0, 1, 2, 4, 7])
@pytest.mark.parametrize(
    "fault", [{"input_tokens": 2**70}, {"input_tokens": -1}, {"provider_key_id": None}], ids=["overflow", "check", "null"]
)
def test_of_a_batch_with_a_bad_row_nothing_stays_and_then_all_the_others(
    monkeypatch: pytest.MonkeyPatch, bad: int, fault: dict[str, Any]
) -> None:
    monkeypatch.setattr(ledger, "_ROWS_PER_STATEMENT", 3)
    rows = [
        (ledger.USAGE, ledger.usage_row(opened(f"r{number}"), settled(f"r{number}", **(fault if number == bad else {}))))
        for number in range(8)
    ]
    rows.append((ledger.REQUESTS, ledger.request_row(ended("r0"))))
    after_the_fault: list[tuple[set[str], int, bool]] = []
    real = ledger._insert_one_by_one

    def one_by_one(rows: Any) -> Any:
        after_the_fault.append((ids(), RequestLog.objects.count(), connection.in_atomic_block))
        return real(rows)

    monkeypatch.setattr(ledger, "_insert_one_by_one", one_by_one)
    new, refused = ledger.insert(rows)

    assert after_the_fault == [(set(), 0, False)]
    assert [row for _, row, _ in refused] == [rows[bad][1]]
    assert new == {ledger.USAGE: 7, ledger.REQUESTS: 1, ledger.ENTRIES: 0}
    connection.close()  # what another connection sees was committed
    assert ids() == {f"r{number}-1" for number in range(8)} - {f"r{bad}-1"}
    assert RequestLog.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("input_tokens", [1, 2**70], ids=["at once", "one by one"])
def test_a_database_that_fails_within_a_batch_keeps_none_of_it(input_tokens: int) -> None:
    rows = [(ledger.USAGE, ledger.usage_row(opened(name), settled(name, input_tokens=input_tokens))) for name in "ab"]
    rows.append((ledger.USAGE, ledger.usage_row(opened("c"), settled("c"))))
    rows.append((ledger.REQUESTS, ledger.request_row(ended("a"))))

    with without_request_log():
        with pytest.raises(DatabaseError, match=RequestLog._meta.db_table):
            ledger.insert(rows)
        assert not connection.in_atomic_block
        assert ids() == set()
    assert ledger.insert(rows)[0][ledger.REQUESTS] == 1


def test_a_broken_transaction_takes_no_row() -> None:
    """What it takes would be rolled back, and the journal's records be counted as entered."""
    row = ledger.usage_row(opened("a"), settled("a"))
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(transaction.TransactionManagementError):
            ledger.insert([(ledger.USAGE, row)])
    assert ids() == set()


@pytest.mark.django_db(transaction=True)
def test_a_row_whose_savepoint_cannot_be_rolled_back_fails_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its transaction would end in a silent rollback of rows that were reported as new."""

    def refuse(sid: str) -> None:
        raise OperationalError("the savepoint is gone")

    monkeypatch.setattr(connection, "savepoint_rollback", refuse)
    rows = [ledger.usage_row(opened("a"), settled("a")), ledger.usage_row(opened("b"), settled("b", input_tokens=-1))]
    with pytest.raises(transaction.TransactionManagementError):
        ledger.insert([(ledger.USAGE, row) for row in rows])
    assert ids() == set()


def test_a_settlement_without_its_opening_is_set_aside(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(settled("a"))
    drainer = make_drainer(journal)
    drainer.drain()

    (line,) = (tmp_path / REFUSED_FILE).read_text().splitlines()
    assert (json.loads(line)["row"]["request_id"], json.loads(line)["row"]["attempt"]) == ("a", 1)
    assert json.loads(line)["row"]["status"] == "ok"
    assert json.loads(line)["row"]["input_tokens"] == 100
    assert drainer.report.refused == 1


# Draining -----------------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(journal_module, "MAX_RECORDS", 50)
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


@pytest.mark.parametrize("table", [ledger.USAGE, ledger.REQUESTS])
def test_a_column_has_the_name_of_its_field(table: ledger.Table) -> None:
    assert {field.column for field in table.model._meta.concrete_fields if not field.primary_key} == set(table.fields)


@pytest.mark.parametrize("table", [ledger.USAGE, ledger.REQUESTS])
def test_a_statement_holds_fewer_values_than_sqlite_refuses(table: ledger.Table) -> None:
    assert ledger._ROWS_PER_STATEMENT * len(table.fields) <= 32_766


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


# Replay -------------------------------------------------------------------------------------------------------------


def test_replay_enters_everything_once_and_clears_up(tmp_path: Path) -> None:
    journal = make_journal(tmp_path, segment_bytes=1000)
    for number in range(30):
        journal.write(*whole(f"r{number}"))
    make_drainer(journal).drain()
    for number in range(30, 40):
        journal.write(*whole(f"r{number}"))
    die(journal)

    first, second = replay(tmp_path), replay(tmp_path)

    assert ids() == {f"r{number}-1" for number in range(40)}
    assert RequestLog.objects.count() == 40
    assert (first.journals, first.usage_records, first.request_logs) == (1, 10, 10)
    assert (second.journals, second.usage_records, second.problems) == (0, 0, [])
    assert list(tmp_path.iterdir()) == []


def test_replay_enters_an_attempt_without_an_end_as_interrupted(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("a", 1))
    journal.write(settled("a", 1, status="error"))
    journal.write(opened("a", 2))
    die(journal)

    report = replay(tmp_path)

    usage = UsageRecord.objects.get(attempt=2)
    assert (usage.status, usage.usage_source, usage.input_tokens, usage.output_tokens) == ("interrupted", "estimated", 120, 0)
    assert (usage.cost_micros, usage.error_code, usage.provider_name) == (None, "process_died", "openai-main")
    request = RequestLog.objects.get()
    assert (request.status_code, request.error_code, request.attempts, request.cost_micros) == (500, "process_died", 2, None)
    assert request.error_message
    assert report.interrupted == 1


def test_replay_reads_openings_before_the_checkpoint_of_their_settlement(tmp_path: Path) -> None:
    """The checkpoint may lie between an opening and its settlement when both are in the ledger: no alarm, no second row."""
    journal = make_journal(tmp_path)
    journal.write(opened("a"), opened("b"))
    journal.write(settled("a"), ended("a"))
    journal.write(opened("c"))
    journal.write(settled("b"), ended("b"))
    make_drainer(journal).drain()
    die(journal)

    report = replay(tmp_path)

    assert (report.problems, report.refused, report.interrupted) == ([], 0, 1)
    assert ids() == {"a-1", "b-1", "c-1"}


def test_replay_leaves_the_living_alone(tmp_path: Path) -> None:
    living = make_journal(tmp_path)
    living.write(*whole("a"))

    report = replay(tmp_path)

    assert (report.in_use, report.journals, ids()) == (1, 0, set())
    assert segment_path(tmp_path, living.token, 1).exists()


def test_replay_of_damage_enters_the_rest_and_keeps_the_segment(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    for name in "abc":
        journal.write(opened(name))
        journal.write(settled(name), ended(name))
    die(journal)
    path = segment_path(tmp_path, journal.token, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data[:-5])

    report = replay(tmp_path)

    assert {"a-1", "c-1"} <= ids()
    assert [problem for problem in report.problems if "checksum" in problem]
    assert [problem for problem in report.problems if "cut off" in problem]
    assert path.with_suffix(".damaged").read_bytes() == bytes(data[:-5])
    assert tokens(tmp_path) == []


def test_replay_passes_a_segment_that_somebody_deleted(tmp_path: Path) -> None:
    journal = make_journal(tmp_path, segment_bytes=len(frame(*whole("r0"))))
    for number in range(4):
        journal.write(*whole(f"r{number}"))
    assert journal.committed().sequence == 4
    die(journal)
    segment_path(tmp_path, journal.token, 2).unlink()

    report = replay(tmp_path)

    assert ids() == {"r0-1", "r2-1", "r3-1"}
    assert ["is missing" in problem for problem in report.problems] == [True]


@pytest.mark.parametrize("content", ["", "null", "[1", '["x", 0]'])
def test_a_checkpoint_that_does_not_read_means_from_the_beginning(tmp_path: Path, content: str) -> None:
    journal = make_journal(tmp_path)
    journal.write(*whole("a"))
    (tmp_path / f"{journal.token}.checkpoint").write_text(content)
    die(journal)
    replay(tmp_path)

    assert ids() == {"a-1"}


POINTS = [(ledger, "insert"), (Chain, "_save_checkpoint"), (Chain, "give_up"), (Chain, "remove"), (chain_module.Path, "unlink")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS, ids=[name for _, name in POINTS])
def test_replay_may_be_killed_anywhere_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Any, when: str) -> None:
    journal = make_journal(tmp_path, segment_bytes=1000)
    for number in range(10):
        journal.write(*whole(f"r{number}"))
    journal.write(opened("cut"))
    die(journal)
    owner, name = point
    real = getattr(owner, name)
    survivals = 0

    while True:
        calls = 0

        def killed(*args: Any, survivals: int = survivals, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > survivals and when == "before":
                raise Killed
            result = real(*args, **kwargs)
            if calls > survivals:
                raise Killed
            return result

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killed)
            try:
                replay(tmp_path)
            except Killed:
                survivals += 1
                continue
        break

    replay(tmp_path)
    assert survivals
    assert ids() == {"cut-1"} | {f"r{number}-1" for number in range(10)}
    assert UsageRecord.objects.count() == RequestLog.objects.count() == 11
    assert tokens(tmp_path) == []


def test_of_two_adopters_one_adopts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = make_journal(tmp_path)
    journal.write(*whole("a"))
    die(journal)
    others = []
    real = ledger.insert

    def meanwhile(rows: Any) -> Any:
        if not others:
            others.append(replay(tmp_path))
        return real(rows)

    monkeypatch.setattr(ledger, "insert", meanwhile)
    report = replay(tmp_path)

    assert (report.journals, report.usage_records) == (1, 1)
    assert (others[0].journals, others[0].in_use) == (0, 1)


def test_an_adopter_that_comes_late_makes_no_mess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It listed the journal, then another process adopted it and cleared it away."""
    journal = make_journal(tmp_path)
    journal.write(*whole("a"))
    die(journal)
    listed = tokens(tmp_path)
    replay(tmp_path)

    monkeypatch.setattr("monitoring.usage.tokens", lambda directory: listed)
    report = replay(tmp_path)

    assert (report.journals, report.usage_records, list(tmp_path.iterdir())) == (0, 0, [])


@pytest.mark.process
def test_kill_9_then_replay_has_every_record_once(tmp_path: Path) -> None:
    returned = killed_writer(tmp_path, after=100)

    report = replay(tmp_path)

    known = {f"r{number}-1" for number in range(returned)}
    assert known <= ids() <= known | {f"r{returned}-1"}
    assert UsageRecord.objects.count() == len(ids()) == RequestLog.objects.count()
    assert report.problems == []


def test_the_command_says_what_it_did(tmp_path: Path, settings: Any) -> None:
    settings.JOURNAL_DIR = tmp_path
    journal = make_journal(tmp_path)
    journal.write(*whole("a"), opened("b"))
    die(journal)
    living = make_journal(tmp_path)

    first, second = StringIO(), StringIO()
    call_command("replay_journal", stdout=first)
    call_command("replay_journal", stdout=second)

    assert "Entered 2 usage records and 2 request logs" in first.getvalue()
    assert "1 attempts never ended" in first.getvalue()
    assert "nothing to do" in second.getvalue()
    assert take_lock(tmp_path, living.token) is None


def test_the_command_says_why_it_stopped(tmp_path: Path, settings: Any) -> None:
    settings.JOURNAL_DIR = tmp_path
    journal = make_journal(tmp_path)
    journal.write(*whole("a"))
    die(journal)

    with database_down(), pytest.raises(CommandError, match=rf"({DOWN}).*Nothing is lost"):
        call_command("replay_journal")
    call_command("replay_journal", stdout=StringIO())

    assert ids() == {"a-1"}
