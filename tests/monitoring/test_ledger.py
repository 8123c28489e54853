"""The ledger's rows: every column, and what becomes of a row that the database does not take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction

from monitoring import ledger
from monitoring.chain import REFUSED_FILE
from monitoring.models import RequestLog, UsageRecord
from tests.monitoring.drainers import ids, make_drainer
from tests.monitoring.records import BEGUN, ended, make_journal, opened, settled, whole

pytestmark = pytest.mark.django_db


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


@pytest.mark.parametrize("table", [ledger.USAGE, ledger.REQUESTS, ledger.ENTRIES])
def test_every_column_is_written(table: ledger.Table) -> None:
    columns = {field.name for field in table.model._meta.concrete_fields if not field.primary_key}
    assert set(table.fields) == columns
    assert len(table.fields) == len(columns)


# One answered request, in the columns of its two rows: what `records` writes, and what this test adds.
LABELS = {"end_user": "ann", "task_type": "translation", "tag": "nightly"}
MORE = {
    "cache": "shared",
    "saved_micros": 77,
    "prompt_name": "greet",
    "prompt_version": 3,
    "decision": "why",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "replayed": True,
}
BOTH_ROWS = {
    "request_id": "a",
    "started_at": datetime.fromtimestamp(BEGUN, UTC),
    "config_version": 17,
    "streamed": True,
    "team_id": "t1",
    "team_name": "growth",
    "key_id": "k1",
    "key_name": "backend",
    "provider_name": "openai-main",
    "alias": "gpt-4o",
    "model_id": "gpt-4o-2024-08-06",
    "error_code": "",
    "cost_micros": 1234,
    "currency": "USD",
    **LABELS,
}
USAGE_ROW = BOTH_ROWS | {
    "attempt": 1,
    "provider_id": "p1",
    "provider_key_id": "pk1",
    "status": "ok",
    "vendor_status": 200,
    "finish_reason": "stop",
    "input_tokens": 100,
    "cached_input_tokens": 20,
    "cache_write_tokens": 3,
    "cache_write_1h_tokens": 2,
    "input_audio_tokens": 5,
    "input_image_tokens": 6,
    "output_tokens": 50,
    "reasoning_tokens": 7,
    "output_audio_tokens": 8,
    "output_image_tokens": 9,
    "usage_source": "vendor",
    "usage_refused": "",
    "price_id": "price1",
    "cost_reporting_micros": 8692,
    "charged_micros": 9127,
    "reporting_currency": "USD",
    "exchange_rate": "7.044",
    "duration_ms": 812,
    "first_token_ms": 210,
    "budget_entries": 0,
}
REQUEST_ROW = BOTH_ROWS | {
    "dialect": "openai",
    "status_code": 200,
    "error_message": "",
    "attempts": 1,
    "total_tokens": 173,
    "duration_ms": 820,
    "first_token_ms": 212,
    "dropped": "seed",
    **MORE,
}


def test_an_answered_request_becomes_its_two_rows(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("a", **LABELS))
    journal.write(settled("a"), ended("a", **LABELS, **MORE))

    assert make_drainer(journal).drain()

    (usage,) = UsageRecord.objects.values()
    (request,) = RequestLog.objects.values()
    del usage["id"], request["id"]
    assert usage == USAGE_ROW
    assert request == REQUEST_ROW


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


@pytest.mark.parametrize("table", [ledger.USAGE, ledger.REQUESTS])
def test_a_column_has_the_name_of_its_field(table: ledger.Table) -> None:
    assert {field.column for field in table.model._meta.concrete_fields if not field.primary_key} == set(table.fields)


@pytest.mark.parametrize("table", [ledger.USAGE, ledger.REQUESTS])
def test_a_statement_holds_fewer_values_than_sqlite_refuses(table: ledger.Table) -> None:
    assert ledger._ROWS_PER_STATEMENT * len(table.fields) <= 32_766
