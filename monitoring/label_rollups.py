"""Sums by day and by what requests say of themselves: user, task type and tag. Kept as the rollups are, in the same transaction.

Callers make these words up, so there may be any number of them. Of each team and day each process tells so many combinations apart;
the rest is summed up under `LabelRollup.OTHER`, and no sum is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import add as plus
from operator import sub as minus
from typing import Any, Final

import msgspec
from django.conf import settings
from django.db import connection

from monitoring.models import LabelRollup

Row = tuple[Any, ...]
Labels = tuple[str, str, str]  # user, task type, tag
# A rollup's key without its span, its labels, names (as in NAMES), sums (as in SUMS).
Labelled = tuple[Row, Labels, Row, Sequence[int]]

NO_LABELS: Final[Labels] = ("", "", "")
_OTHERS: Final[Labels] = (LabelRollup.OTHER, LabelRollup.OTHER, LabelRollup.OTHER)
KEY: Final = ("start", "team_id", "key_id", "alias", "end_user", "task_type", "tag", "currency", "reporting_currency")
NAMES: Final = ("team_name", "key_name")
_COLUMNS: Final = tuple(str(field.column) for field in LabelRollup._meta.concrete_fields if not field.primary_key)
SUMS: Final = _COLUMNS[len(KEY) + len(NAMES) :]
_ROWS_PER_STATEMENT = 128
_TEAMS_AND_DAYS_KNOWN = 512


def add(whole: Iterable[Labelled], labelled: Iterable[Labelled]) -> None:
    """Counts `whole`, everything, under no labels, and of that `labelled` under its labels. Called inside a transaction; raises
    DatabaseError. Nearly all requests say nothing of themselves: those cost nothing here beyond what they cost the rollups."""
    days: dict[Row, tuple[Row, list[int]]] = {}
    for key, labels, names, sums in whole:
        _count(days, _key(key, labels), names, sums, plus)
    for key, labels, names, sums in labelled:
        _count(days, _key(key, NO_LABELS), names, sums, minus)
        _count(days, _key(key, labels), names, sums, plus)
    upserts = [(_day_text(key[0]), *key[1:], *names, *sums) for key, (names, sums) in sorted(days.items()) if any(sums)]
    execute = _upsert_on_sqlite if connection.vendor == "sqlite" else _upsert_on_postgres
    while upserts:
        size = min(_ROWS_PER_STATEMENT, 1 << (len(upserts).bit_length() - 1))
        execute(upserts[:size])
        del upserts[:size]


def _key(key: Row, labels: Labels) -> Row:
    hour, team_id, key_id, _, alias, _, _, _, currency, reporting = key
    day = hour // 24
    return (day, team_id, key_id, alias, *_told_apart(day, team_id, labels), currency, reporting)


def _count(days: dict[Row, tuple[Row, list[int]]], key: Row, names: Row, sums: Sequence[int], how: Callable[[int, int], int]) -> None:
    so_far = days[key][1] if key in days else [0] * len(SUMS)
    days[key] = names, list(map(how, so_far, sums))


def _told_apart(day: int, team_id: str, labels: Labels) -> Labels:
    if labels == NO_LABELS:
        return labels
    known = _known(day, team_id)
    if labels not in known:
        if len(known) >= settings.MAX_LABELS_PER_DAY:
            return _OTHERS
        known.add(labels)
    return labels


@lru_cache(maxsize=_TEAMS_AND_DAYS_KNOWN)
def _known(day: int, team_id: str) -> set[Labels]:
    """What is told apart of that team on that day; grows. Asked of the database once."""
    rows = LabelRollup.objects.filter(start=_moment(day), team_id=team_id).exclude(end_user="", task_type="", tag="")
    return set(rows.order_by().values_list("end_user", "task_type", "tag").distinct()) - {_OTHERS}


def forget() -> None:
    """After rows were deleted."""
    _known.cache_clear()


def _moment(day: int) -> datetime:
    return datetime.fromtimestamp(day * 86_400, UTC)


@lru_cache(maxsize=16)
def _day_text(day: int) -> str:
    """In the form in which Django keeps a moment in SQLite."""
    return f"{_moment(day):%Y-%m-%d %H:%M:%S}"


def _upsert_on_sqlite(rows: Sequence[Row]) -> None:
    """Past Django's cursor, as the ledger's own inserts."""
    connection.validate_no_broken_transaction()
    values = [value for row in rows for value in row]
    with connection.wrap_database_errors:
        connection.connection.execute(_sqlite_sql(len(rows)), values)


@lru_cache(maxsize=8)
def _sqlite_sql(rows: int) -> str:
    places = f"({', '.join('?' * len(_COLUMNS))})"
    return _upsert_sql(f"VALUES {', '.join([places] * rows)}")


def _upsert_on_postgres(rows: Sequence[Row]) -> None:
    """As one JSON value."""
    dicts = [dict(zip(_COLUMNS, (f"{row[0]}+00", *row[1:]), strict=True)) for row in rows]
    source = f"SELECT {', '.join(_COLUMNS)} FROM json_populate_recordset(NULL::{_table()}, %s::json)"
    with connection.cursor() as cursor:
        cursor.execute(_upsert_sql(source), [msgspec.json.encode(dicts).decode()])


def _upsert_sql(source: str) -> str:
    names = ", ".join(f"{name} = excluded.{name}" for name in NAMES)
    sums = ", ".join(f"{name} = {_table()}.{name} + excluded.{name}" for name in SUMS)
    return f"INSERT INTO {_table()} ({', '.join(_COLUMNS)}) {source} ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {names}, {sums}"


def _table() -> str:
    return connection.ops.quote_name(LabelRollup._meta.db_table)
