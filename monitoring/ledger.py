"""From journal records to rows of the ledger: pairing, and an insert that may be repeated.

The columns come from the models; the ORM itself is left out, because it costs ten times as much per row and the drainer
lives on the same core as the requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from django.db import DataError, IntegrityError, connection, models, transaction
from msgspec.structs import astuple

from monitoring.journal import AttemptOpened, AttemptSettled, Position, Record, RequestEnded
from monitoring.models import RequestLog, UsageRecord

_ROW_FAULTS = (IntegrityError, DataError, OverflowError, ValueError, TypeError)

# Of some 30 columns: well below the number of values that SQLite takes in one statement, 32,766.
# A power of two, see `_batches`.
_ROWS_PER_STATEMENT = 128

# In the order of `Table.fields`; the moment, in wall seconds, comes first.
Row = tuple[Any, ...]


class Interruption(NamedTuple):
    """Why an attempt or request has no end of its own."""

    code: str
    message: str


PROCESS_DIED = Interruption("process_died", "The gateway process ended before it could finish this request.")
NEVER_ENDED = Interruption("never_ended", "The gateway never recorded an end of this request.")


class Table(NamedTuple):
    """How rows of one model are inserted: values in the order of `fields`, told apart by `key`, which is unique together.

    A field's column has its name: the ledger has no foreign keys.
    """

    model: type[models.Model]
    key: tuple[str, ...]
    fields: tuple[str, ...]

    def sql_of_values(self, rows: int) -> str:
        """One statement for that many rows: a statement per row would hand the interpreter's lock over for each of them."""
        places = ", ".join([f"({', '.join('?' * len(self.fields))})"] * rows)
        return self._insert_sql(f"VALUES {places}")

    def sql_of_json(self) -> str:
        """One statement for any number of rows, given as one JSON array of objects."""
        return self._insert_sql(f"SELECT {_names(self.fields)} FROM json_populate_recordset(NULL::{self._name()}, %s::json)")

    def _insert_sql(self, source: str) -> str:
        return f"INSERT INTO {self._name()} ({_names(self.fields)}) {source} ON CONFLICT ({_names(self.key)}) DO NOTHING"

    def _name(self) -> str:
        return connection.ops.quote_name(self.model._meta.db_table)


def _names(columns: Iterable[str]) -> str:
    return ", ".join(map(connection.ops.quote_name, columns))


# Records hold their columns in a row, behind what only pairing and replay need.
_OPENED = slice(AttemptOpened.__struct_fields__.index("started_at"), None)
_SETTLED = slice(AttemptSettled.__struct_fields__.index("status"), None)
USAGE = Table(UsageRecord, ("request_id", "attempt"), AttemptOpened.__struct_fields__[_OPENED] + AttemptSettled.__struct_fields__[_SETTLED])
REQUESTS = Table(RequestLog, ("request_id",), RequestEnded.__struct_fields__)


def usage_row(opened: AttemptOpened, settled: AttemptSettled) -> Row:
    return astuple(opened)[_OPENED] + astuple(settled)[_SETTLED]


def request_row(ended: RequestEnded) -> Row:
    return astuple(ended)


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
        self._attempts: dict[tuple[str, int], Unfinished] = {}
        self._requests: dict[str, Unfinished] = {}

    def take(self, position: Position, record: Record) -> tuple[Table, Row] | AttemptSettled | None:
        """A row that is now complete, None where none is, or the settlement itself where its opening was never read."""
        if isinstance(record, AttemptOpened):
            attempt = self._attempts[record.request_id, record.attempt] = Unfinished(position, record)
            begun = self._requests.get(record.request_id)
            self._requests[record.request_id] = Unfinished(begun.position, record) if begun else attempt
            return None
        if isinstance(record, RequestEnded):
            self._requests.pop(record.request_id, None)
            return REQUESTS, request_row(record)
        opening = self._attempts.pop((record.request_id, record.attempt), None)
        return (USAGE, usage_row(opening.opened, record)) if opening else record

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


def _take_out(kept: dict[Any, Unfinished], begun_before: float) -> list[AttemptOpened]:
    old = [key for key, unfinished in kept.items() if unfinished.opened.started_at < begun_before]
    return [kept.pop(key).opened for key in old]


def _settlement(opened: AttemptOpened, why: Interruption) -> AttemptSettled:
    return AttemptSettled(
        request_id=opened.request_id,
        attempt=opened.attempt,
        status=UsageRecord.Status.INTERRUPTED.value,
        provider_key_id="",
        error_code=why.code,
        vendor_status=0,
        finish_reason="",
        usage_source=UsageRecord.Source.ESTIMATED.value,
        input_tokens=opened.estimated_input_tokens,
        cached_input_tokens=0,
        cache_write_tokens=0,
        cache_write_1h_tokens=0,
        input_audio_tokens=0,
        input_image_tokens=0,
        output_tokens=0,
        reasoning_tokens=0,
        output_audio_tokens=0,
        output_image_tokens=0,
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
        dropped="",
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
    dicts = [dict(zip(table.fields, (_moment(row[0]), *row[1:]), strict=True)) for row in rows]
    with connection.cursor() as cursor:
        cursor.execute(table.sql_of_json(), [msgspec.json.encode(dicts).decode()])
        return int(cursor.rowcount)


def _execute_on_sqlite(table: Table, rows: Sequence[Row]) -> int:
    """Past Django's cursor, which rewrites every placeholder of every statement: that costs as much as the insert itself.

    What else the cursor does is done here: it refuses a broken transaction, and its errors are Django's.
    """
    values: list[Any] = []
    for row in rows:
        values.append(_moment_text(row[0]))
        values += row[1:]
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


def known_attempts(request_ids: Iterable[str]) -> set[tuple[str, int]]:
    """Which attempts of these requests are in the ledger: (request id, number). Raises DatabaseError."""
    return set(UsageRecord.objects.filter(request_id__in=list(request_ids)).values_list("request_id", "attempt"))
