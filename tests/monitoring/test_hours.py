"""Where in the ledger a time lies: exactly the rows of that time, whatever the order in which they came in."""

from __future__ import annotations

import random
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection

from monitoring import hours, ledger, rollups
from monitoring.models import LedgerHour, RequestLog, UsageRecord
from tests.monitoring.records import BEGUN
from tests.monitoring.test_rollups import attempt, request

pytestmark = pytest.mark.django_db
START = datetime.fromtimestamp(BEGUN, UTC).replace(minute=0, second=0)


def scatter(seed: int) -> None:
    """Six batches over six hours, each of them partly late by hours."""
    chance = random.Random(seed)
    for batch in range(6):
        rows = []
        for number in range(8):
            moment = START.timestamp() + 3600 * max(0, batch - chance.choice((0, 0, 0, 1, 4))) + chance.choice((0, 1800, 3599.999999))
            rows += attempt(f"{batch}-{number}", started_at=moment) + request(f"{batch}-{number}", started_at=moment + 60)
        ledger.insert(rows)


@pytest.mark.parametrize("rebuilt", [False, True])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("model", [UsageRecord, RequestLog])
def test_every_row_of_a_time_is_found_and_no_other(model: Any, seed: int, rebuilt: bool) -> None:
    scatter(seed)
    if rebuilt:
        rollups.rebuild()
    edges = [START + timedelta(minutes=minutes) for minutes in range(-60, 500, 30)]
    began = dict(model.objects.values_list("pk", "started_at"))
    for since in (None, *edges):
        for until in (None, *edges):
            rows = {pk for pk, at in began.items() if (not since or at >= since) and (not until or at < until)}
            assert set(hours.within(model.objects.values_list("pk", flat=True), since, until)) == rows, (since, until)


def test_a_time_is_read_from_its_own_ids(django_assert_num_queries: Any) -> None:
    for number in range(4):
        ledger.insert(attempt(f"a{number}", started_at=BEGUN + number * 3600))
    at = datetime.fromtimestamp(BEGUN, UTC) + timedelta(hours=1)
    ids = list(UsageRecord.objects.order_by("pk").values_list("pk", flat=True))
    found = hours.within(UsageRecord.objects.all(), at, at + timedelta(minutes=1))
    assert list(found.values_list("pk", flat=True)) == [ids[1]]
    sql = str(found.query)
    assert f'"id" >= {ids[0]}' in sql, "the one before: its id was the last when the row came"
    assert f'"id" <= {ids[1]}' in sql


def test_of_a_time_in_which_nothing_began_no_row_is_read(django_assert_num_queries: Any) -> None:
    ledger.insert(attempt("a"))
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    with django_assert_num_queries(2):
        assert list(hours.within(UsageRecord.objects.all(), None, long_ago)) == []


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL takes any number of values")
def test_more_hours_than_a_statement_holds_are_all_noted() -> None:
    """A gateway with a request now and then has a year of hours in one step of a rebuild."""
    connection.ensure_connection()
    before = connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)
    try:
        hours.note(UsageRecord, range(9_000), 1, 9_000)
    finally:
        connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, before)
    assert LedgerHour.objects.filter(kind="usage").count() == 9_000


def test_rows_that_nobody_noted_are_found_by_their_time() -> None:
    ledger.insert(attempt("a"))
    LedgerHour.objects.all().delete()
    assert hours.within(UsageRecord.objects.all(), START, START + timedelta(hours=2)).count() == 1
