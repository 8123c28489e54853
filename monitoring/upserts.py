"""Rows into the database, many in a statement and past the ORM, which costs ten times as much per row: the drainer lives on the same
core as the requests. On SQLite past Django's cursor too; what else that does is done here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from django.db import connection, models

Row = tuple[Any, ...]


class Sums(NamedTuple):
    """A table of sums: `key` is unique together and has the moment `start`, of `names` the latest stay, but an empty one replaces none of
    `ids`. `at_once`: how many rows a statement takes, a power of two; SQLite takes 32,766 values."""

    model: type[models.Model]
    key: tuple[str, ...]
    names: tuple[str, ...]
    ids: tuple[str, ...]
    sums: tuple[str, ...]
    at_once: int

    def sql(self, source: str) -> str:
        table = connection.ops.quote_name(self.model._meta.db_table)
        columns = ", ".join((*self.key, *self.names, *self.ids, *self.sums))
        names = (f"{name} = excluded.{name}" for name in self.names)
        ids = (f"{name} = CASE WHEN excluded.{name} = '' THEN {table}.{name} ELSE excluded.{name} END" for name in self.ids)
        sums = (f"{name} = {table}.{name} + excluded.{name}" for name in self.sums)
        updates = ", ".join((*names, *ids, *sums))
        return f"INSERT INTO {table} ({columns}) {source} ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {updates}"


def batches(rows: int, at_once: int) -> Iterator[slice]:
    """In sizes that are powers of two: a connection keeps each statement it has prepared, and so keeps a handful, not hundreds."""
    start, size = 0, at_once
    while start < rows:
        while size > rows - start:
            size //= 2
        yield slice(start, start + size)
        start += size


def add(table: Sums, rows: Sequence[Row]) -> None:
    """Adds these sums to those that are there; `start` is in wall seconds. Called inside a transaction; raises DatabaseError."""
    execute = _add_on_sqlite if connection.vendor == "sqlite" else _add_on_postgres
    for batch in batches(len(rows), table.at_once):
        execute(table, rows[batch])


def _add_on_sqlite(table: Sums, rows: Sequence[Row]) -> None:
    values = [value for row in rows for value in row]
    start, width = table.key.index("start"), len(rows[0])
    values[start::width] = [second_text(row[start]) for row in rows]
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        connection.connection.execute(_sqlite_sql(table, len(rows), width), values)


@lru_cache(maxsize=16)
def _sqlite_sql(table: Sums, rows: int, width: int) -> str:
    return table.sql(f"VALUES {places(rows, width)}")


def _add_on_postgres(table: Sums, rows: Sequence[Row]) -> None:
    """As one JSON value, from which the sums that are zero are left out: most of the histograms are."""
    words = (*table.key, *table.names, *table.ids)
    dicts = []
    for row in rows:
        values = dict(zip(words, row, strict=False))
        values["start"] = f"{second_text(values['start'])}+00"
        values.update((name, value) for name, value in zip(table.sums, row[len(words) :], strict=True) if value)
        dicts.append(values)
    with connection.cursor() as cursor:
        cursor.execute(_postgres_sql(table), [msgspec.json.encode(dicts).decode()])


@lru_cache(maxsize=2)
def _postgres_sql(table: Sums) -> str:
    words = ", ".join((*table.key, *table.names, *table.ids))
    sums = ", ".join(f"COALESCE({name}, 0)" for name in table.sums)
    name = connection.ops.quote_name(table.model._meta.db_table)
    return table.sql(f"SELECT {words}, {sums} FROM json_populate_recordset(NULL::{name}, %s::json)")


def places(rows: int, width: int) -> str:
    return ", ".join([f"({', '.join('?' * width)})"] * rows)


@lru_cache(maxsize=64)
def second_text(wall_s: int) -> str:
    """In UTC, in the form in which Django keeps a moment in SQLite. Raises OverflowError or ValueError beyond the year 9999."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
