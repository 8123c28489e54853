"""From journal records to rows of the ledger: pairing, and an insert that may be repeated.

The columns come from the models; the ORM itself is left out, because it costs ten times as much per row and the drainer
lives on the same core as the requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from django.db import DataError, IntegrityError, connection, models, transaction

from core.chat import Usage
from monitoring.journal import AttemptOpened, AttemptSettled, Position, Record, RequestEnded
from monitoring.models import RequestLog, UsageRecord

_NO_USAGE = Usage()
_ROW_FAULTS = (IntegrityError, DataError, OverflowError, ValueError, TypeError)

# Of some 30 columns: well below the number of values that SQLite takes in one statement, 32,766.
# A power of two, see `_batches`.
_ROWS_PER_STATEMENT = 128

# In the order of `Table.fields`; the moment, in wall seconds, comes last.
Row = tuple[Any, ...]


class Interruption(NamedTuple):
    """Why an attempt or request has no end of its own."""

    code: str
    message: str


PROCESS_DIED = Interruption("process_died", "The gateway process ended before it could finish this request.")
NEVER_ENDED = Interruption("never_ended", "The gateway never recorded an end of this request.")


class Table(NamedTuple):
    """How rows of one model are inserted: values in the order of `fields`, told apart by the unique `key`.

    A field's column has its name: the ledger has no foreign keys.
    """

    model: type[models.Model]
    key: str
    fields: tuple[str, ...]

    def sql_of_values(self, rows: int) -> str:
        """One statement for that many rows: a statement per row would hand the interpreter's lock over for each of them."""
        places = ", ".join([f"({', '.join('?' * len(self.fields))})"] * rows)
        return self._insert_sql(f"VALUES {places}")

    def sql_of_json(self) -> str:
        """One statement for any number of rows, given as one JSON array of objects."""
        return self._insert_sql(f"SELECT {self._names()} FROM json_populate_recordset(NULL::{self._name()}, %s::json)")

    def _insert_sql(self, source: str) -> str:
        key = connection.ops.quote_name(self.key)
        return f"INSERT INTO {self._name()} ({self._names()}) {source} ON CONFLICT ({key}) DO NOTHING"

    def _name(self) -> str:
        return connection.ops.quote_name(self.model._meta.db_table)

    def _names(self) -> str:
        return ", ".join(map(connection.ops.quote_name, self.fields))


# The first group of each table is read off its record by name; what must be computed comes last.
_OPENED = (
    *("attempt_id", "request_id", "attempt", "team_id", "team_name", "key_id", "key_name"),
    *("provider_id", "provider_name", "alias", "model_id", "streamed", "config_version"),
)
_SETTLED = (
    *("status", "provider_key_id", "error_code", "vendor_status", "finish_reason"),
    *("cost_micros", "currency", "price_id", "duration_ms", "first_token_ms"),
)
_BUCKETS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
_ENDED = tuple(name for name in RequestEnded.__struct_fields__ if name != "started_at")
USAGE = Table(UsageRecord, "attempt_id", (*_OPENED, *_SETTLED, *_BUCKETS, "usage_source", "started_at"))
REQUESTS = Table(RequestLog, "request_id", (*_ENDED, "started_at"))
_opened_values = attrgetter(*_OPENED)
_settled_values = attrgetter(*_SETTLED)
_ended_values = attrgetter(*_ENDED)


def usage_row(opened: AttemptOpened, settled: AttemptSettled) -> Row:
    usage = settled.usage or _NO_USAGE
    source = "none" if settled.usage is None else "estimated" if usage.estimated else "vendor"
    buckets = (usage.input, usage.cached_input, usage.cache_write, usage.output, usage.reasoning)
    return (*_opened_values(opened), *_settled_values(settled), *buckets, source, opened.started_at)


def request_row(ended: RequestEnded) -> Row:
    return (*_ended_values(ended), ended.started_at)


def _moment(wall_s: float) -> datetime:
    return datetime.fromtimestamp(wall_s, UTC)


def _moment_text(wall_s: float) -> str:
    """The form in which Django keeps a moment in SQLite."""
    micros = round(wall_s * 1_000_000)
    return f"{_second_text(micros // 1_000_000)}.{micros % 1_000_000:06d}"


@lru_cache(maxsize=16)
def _second_text(wall_s: int) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


class Unfinished(NamedTuple):
    """Where something began, by its (latest) opening record."""

    position: Position
    opened: AttemptOpened


class Books:
    """Pairs each attempt's opening with its settlement, and knows which attempts and requests have not ended yet."""

    def __init__(self) -> None:
        self._attempts: dict[str, Unfinished] = {}
        self._requests: dict[str, Unfinished] = {}

    def take(self, position: Position, record: Record) -> tuple[Table, Row] | AttemptSettled | None:
        """A row that is now complete, None where none is, or the settlement itself where its opening was never read."""
        if isinstance(record, AttemptOpened):
            self._attempts[record.attempt_id] = Unfinished(position, record)
            begun = self._requests.get(record.request_id)
            self._requests[record.request_id] = Unfinished(begun.position if begun else position, record)
            return None
        if isinstance(record, RequestEnded):
            self._requests.pop(record.request_id, None)
            return REQUESTS, request_row(record)
        attempt = self._attempts.pop(record.attempt_id, None)
        return (USAGE, usage_row(attempt.opened, record)) if attempt else record

    def oldest(self) -> Position | None:
        """Where the oldest unfinished attempt or request begins; reading again from there forgets nothing."""
        return min((next(iter(kept.values())).position for kept in (self._attempts, self._requests) if kept), default=None)

    def give_up(self, why: Interruption, begun_before: float = float("inf")) -> list[tuple[Table, Row]]:
        """Rows for what began before that moment (wall seconds) and will not end any more."""
        rows: list[tuple[Table, Row]] = []
        for attempt in _take_out(self._attempts, begun_before):
            rows.append((USAGE, usage_row(attempt, _settlement(attempt, why))))
        for attempt in _take_out(self._requests, begun_before):
            rows.append((REQUESTS, request_row(_ending(attempt, why))))
        return rows


def _take_out(kept: dict[str, Unfinished], begun_before: float) -> list[AttemptOpened]:
    old = [key for key, unfinished in kept.items() if unfinished.opened.started_at < begun_before]
    return [kept.pop(key).opened for key in old]


def _settlement(opened: AttemptOpened, why: Interruption) -> AttemptSettled:
    return AttemptSettled(
        attempt_id=opened.attempt_id,
        status=UsageRecord.Status.INTERRUPTED.value,
        provider_key_id="",
        error_code=why.code,
        vendor_status=0,
        finish_reason="",
        usage=Usage(input=opened.estimated_input_tokens, estimated=True),
        cost_micros=None,
        currency="",
        price_id="",
        duration_ms=0,
        first_token_ms=None,
    )


def _ending(opened: AttemptOpened, why: Interruption) -> RequestEnded:
    return RequestEnded(
        request_id=opened.request_id,
        started_at=opened.started_at,
        team_id=opened.team_id,
        team_name=opened.team_name,
        key_id=opened.key_id,
        key_name=opened.key_name,
        dialect="",
        alias=opened.alias,
        provider_name=opened.provider_name,
        model_id=opened.model_id,
        streamed=opened.streamed,
        status_code=500,
        error_code=why.code,
        error_message=why.message,
        attempts=opened.attempt,
        total_tokens=opened.estimated_input_tokens,
        cost_micros=None,
        currency="",
        duration_ms=0,
        first_token_ms=None,
        config_version=opened.config_version,
    )


class Refused(NamedTuple):
    """A row that the database does not take, whatever we do."""

    table: Table
    row: Row
    reason: str

    def as_json(self) -> str:
        values = dict(zip(self.table.fields, self.row, strict=True))
        return json.dumps({"table": self.table.model._meta.db_table, "reason": self.reason, "row": values}, default=str)


def insert(rows: Sequence[tuple[Table, Row]]) -> tuple[dict[Table, int], list[Refused]]:
    """One transaction for all of `rows`. Returns how many were new per table, and the rows that cannot be stored at all.

    Rows that are already there stay as they are. Raises DatabaseError where the database itself fails: nothing is stored then.
    """
    try:
        with transaction.atomic():
            return {table: _insert_into(table, [row for of, row in rows if of is table]) for table in (USAGE, REQUESTS)}, []
    except _ROW_FAULTS:
        return _insert_one_by_one(rows)


def _insert_into(table: Table, rows: Sequence[Row]) -> int:
    """How many rows were new. Called inside a transaction."""
    execute = _execute_on_sqlite if connection.vendor == "sqlite" else _execute_on_postgres
    return sum(execute(table, rows[batch]) for batch in _batches(len(rows)))


def _batches(rows: int) -> Iterator[slice]:
    """In sizes that are powers of two: a connection keeps each statement it has prepared, and so keeps a handful, not hundreds."""
    start, size = 0, _ROWS_PER_STATEMENT
    while start < rows:
        while size > rows - start:
            size //= 2
        yield slice(start, start + size)
        start += size


def _execute_on_postgres(table: Table, rows: Sequence[Row]) -> int:
    """As JSON, one value a statement: the driver takes ten times as long over a statement with thousands of places."""
    dicts = [dict(zip(table.fields, (*row[:-1], _moment(row[-1])), strict=True)) for row in rows]
    with connection.cursor() as cursor:
        cursor.execute(table.sql_of_json(), [msgspec.json.encode(dicts).decode()])
        return int(cursor.rowcount)


def _execute_on_sqlite(table: Table, rows: Sequence[Row]) -> int:
    """Past Django's cursor, which rewrites every placeholder of every statement: that costs as much as the insert itself.

    What else the cursor does is done here: it refuses a broken transaction, and its errors are Django's.
    """
    values: list[Any] = []
    for row in rows:
        values += row
        values[-1] = _moment_text(row[-1])
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        return int(connection.connection.execute(_sqlite_sql(table, len(rows)), values).rowcount)


@lru_cache(maxsize=32)
def _sqlite_sql(table: Table, rows: int) -> str:
    return table.sql_of_values(rows)


def _insert_one_by_one(rows: Sequence[tuple[Table, Row]]) -> tuple[dict[Table, int], list[Refused]]:
    new = {USAGE: 0, REQUESTS: 0}
    refused: list[Refused] = []
    with transaction.atomic():
        for table, row in rows:
            try:
                with transaction.atomic():
                    new[table] += _insert_into(table, [_clipped(table, row)])
            except _ROW_FAULTS as exc:
                refused.append(Refused(table, row, str(exc)))
        connection.validate_no_broken_transaction()  # leaving it would roll back and say nothing
    return new, refused


def _clipped(table: Table, row: Row) -> Row:
    """Text cut to its column and without NUL. The gateway bounds what clients and vendors write; if that should ever fail,
    Postgres refuses the row, and it comes here."""
    values = list(row)
    for index, limit in _text_limits(table):
        values[index] = values[index].replace("\0", "")[:limit]
    return tuple(values)


def _text_limits(table: Table) -> list[tuple[int, int]]:
    """(index in the row, longest length) of the text columns, save the ids, which are ours and must stay whole."""
    limits = []
    for index, name in enumerate(table.fields):
        field = table.model._meta.get_field(name)
        if isinstance(field, models.CharField) and field.max_length and (name == "model_id" or not name.endswith("_id")):
            limits.append((index, field.max_length))
    return limits


def known_attempts(attempt_ids: Iterable[str]) -> set[str]:
    """Which of these are in the ledger. Raises DatabaseError."""
    return set(UsageRecord.objects.filter(attempt_id__in=list(attempt_ids)).values_list("attempt_id", flat=True))
