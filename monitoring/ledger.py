"""From journal records to rows of the ledger: pairing, and an insert that may be repeated.

The columns come from the models; the ORM itself is left out, because it costs ten times as much per row and the drainer
lives on the same core as the requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, islice
from typing import Any, NamedTuple

import msgspec
from django.db import DataError, IntegrityError, connection, models, transaction
from msgspec.structs import astuple

from monitoring import accounts, hours, rollups
from monitoring.journal import (
    LABEL_COLUMNS,
    OPENED_COLUMNS,
    SETTLED_COLUMNS,
    AttemptOpened,
    AttemptSettled,
    Hold,
    Position,
    RequestEnded,
    Writes,
)
from monitoring.models import BudgetEntry, Pruned, RequestLog, UsageRecord

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
        source = f"SELECT {_names(self.fields)} FROM json_populate_recordset(NULL::{self._name()}, %s::json)"
        return f"{self._insert_sql(source)} RETURNING {_names(self.key)}"

    def sql_of_newer(self) -> str:
        """The keys of the rows with an id above some number."""
        return f"SELECT {_names(self.key)} FROM {self._name()} WHERE id > ?"

    def sql_of_last_id(self) -> str:
        return f"SELECT COALESCE(MAX(id), 0) FROM {self._name()}"

    def _insert_sql(self, source: str) -> str:
        return f"INSERT INTO {self._name()} ({_names(self.fields)}) {source} ON CONFLICT ({_names(self.key)}) DO NOTHING"

    def _name(self) -> str:
        return connection.ops.quote_name(self.model._meta.db_table)


def _names(columns: Iterable[str]) -> str:
    return ", ".join(map(connection.ops.quote_name, columns))


USAGE = Table(
    UsageRecord,
    ("request_id", "attempt"),
    (*rollups.USAGE_FIELDS, "budget_entries", "usage_refused"),
)
REQUESTS = Table(RequestLog, ("request_id",), RequestEnded.__struct_fields__)
ENTRIES = Table(
    BudgetEntry,
    ("request_id", "attempt", "budget_id"),
    ("started_at", "request_id", "attempt", *Hold.__struct_fields__, "amount", "state", "note"),
)


def usage_row(opened: AttemptOpened, settled: AttemptSettled) -> Row:
    begun = astuple(opened)
    return (*begun[OPENED_COLUMNS], *astuple(settled)[SETTLED_COLUMNS], *begun[LABEL_COLUMNS], len(opened.holds), settled.usage_refused)


def entry_rows(opened: AttemptOpened, settled: AttemptSettled) -> Iterator[Row]:
    """What became of the attempt's holds. `_posting` reads these by place."""
    if settled.charges:
        state = BudgetEntry.State.SETTLED
    elif settled.status == UsageRecord.Status.INTERRUPTED:
        state = BudgetEntry.State.EXPIRED
    else:
        state = BudgetEntry.State.RELEASED
    for hold, amount in zip(opened.holds, settled.charges or (0,) * len(opened.holds), strict=True):
        yield (opened.started_at, opened.request_id, opened.attempt, *astuple(hold), amount, state.value, "")


def _posting(entry: Row) -> accounts.Posting:
    _, _, _, budget_id, period_start, lease_id, _, amount, _, _ = entry
    return accounts.Posting(budget_id, period_start, lease_id, amount)


def request_row(ended: RequestEnded) -> Row:
    return astuple(ended)


def _moment_text(wall_s: float) -> str:
    """In UTC, in the form in which Django keeps a moment in SQLite. Raises OverflowError or ValueError beyond the year 9999."""
    second, micros = divmod(round(wall_s * 1_000_000), 1_000_000)
    return f"{_second_text(second)}.{micros:06d}"


@lru_cache(maxsize=16)
def _second_text(wall_s: int) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


class Unfinished(msgspec.Struct, frozen=True, gc=False):
    """Where something began, a `Position`, when (wall seconds), and its (latest) opening record."""

    position: tuple[int, int]
    began_at: float
    opened: AttemptOpened


class Books:
    """Pairs each attempt's opening with its settlement, and knows which attempts and requests have not ended yet."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, int], Unfinished] = {}
        self._requests: dict[str, Unfinished] = {}

    def take(self, sequence: int, writes: Writes) -> tuple[list[tuple[Table, Row]], list[AttemptSettled]]:
        """The rows that these writes of that segment complete, and the settlements whose openings were never read."""
        rows: list[tuple[Table, Row]] = []
        strays: list[AttemptSettled] = []
        for offset, records in writes:
            for record in records:
                if isinstance(record, AttemptOpened):
                    self._begin((sequence, offset), record)
                elif isinstance(record, RequestEnded):
                    self._requests.pop(record.request_id, None)
                    rows.append((REQUESTS, request_row(record)))
                elif (opening := self._attempts.pop((record.request_id, record.attempt), None)) is not None:
                    rows += _attempt_rows(opening.opened, record)
                else:
                    strays.append(record)
        return rows, strays

    def _begin(self, position: tuple[int, int], opened: AttemptOpened) -> None:
        attempt = self._attempts[opened.request_id, opened.attempt] = Unfinished(position, opened.started_at, opened)
        begun = self._requests.get(opened.request_id)
        self._requests[opened.request_id] = Unfinished(begun.position, begun.began_at, opened) if begun else attempt

    def open_requests(self, most: int) -> list[Unfinished]:
        """Those that have begun and not ended, the longest ones first."""
        return list(islice(self._requests.values(), most))

    def oldest(self) -> Position | None:
        """Where the oldest unfinished attempt or request begins; reading again from there forgets nothing."""
        begun = [next(iter(kept.values())).position for kept in (self._attempts, self._requests) if kept]
        return Position(*min(begun)) if begun else None

    def has_unfinished(self, begun_before: float) -> bool:
        """Whether `give_up` would find anything."""
        kept = (*self._attempts.values(), *self._requests.values())
        return any(unfinished.opened.started_at < begun_before for unfinished in kept)

    def give_up(
        self, why: Interruption, begun_before: float, progress: Mapping[tuple[str, int], AttemptSettled]
    ) -> list[tuple[Table, Row]]:
        """Rows for what began before that moment (wall seconds) and will not end any more, with what is known of it by `progress`."""
        rows: list[tuple[Table, Row]] = []
        settled: dict[tuple[str, int], AttemptSettled] = {}
        for opened in _take_out(self._attempts, begun_before):
            attempt = opened.request_id, opened.attempt
            settled[attempt] = _settlement(opened, why, progress.get(attempt))
            rows += _attempt_rows(opened, settled[attempt])
        for opened in _take_out(self._requests, begun_before):
            rows.append((REQUESTS, request_row(_ending(opened, settled.get((opened.request_id, opened.attempt)), why))))
        return rows


def _attempt_rows(opened: AttemptOpened, settled: AttemptSettled) -> list[tuple[Table, Row]]:
    rows = [(USAGE, usage_row(opened, settled))]
    if opened.holds:
        rows += [(ENTRIES, row) for row in entry_rows(opened, settled)]
    return rows


def _take_out(kept: dict[Any, Unfinished], begun_before: float) -> list[AttemptOpened]:
    old = [key for key, unfinished in kept.items() if unfinished.opened.started_at < begun_before]
    return [kept.pop(key).opened for key in old]


def _settlement(opened: AttemptOpened, why: Interruption, so_far: AttemptSettled | None) -> AttemptSettled:
    return msgspec.structs.replace(so_far or _nothing_known(opened), status=UsageRecord.Status.INTERRUPTED.value, error_code=why.code)


def _nothing_known(opened: AttemptOpened) -> AttemptSettled:
    return AttemptSettled(
        request_id=opened.request_id,
        attempt=opened.attempt,
        status="",
        provider_key_id="",
        error_code="",
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


def _ending(opened: AttemptOpened, interrupted: AttemptSettled | None, why: Interruption) -> RequestEnded:
    """Of the request whose last attempt was `opened`, and `interrupted` unless it had failed on its own: then it, as all before it,
    cost nothing."""
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
        total_tokens=_all_tokens(interrupted) if interrupted else 0,
        cost_micros=interrupted.cost_micros if interrupted else 0,
        currency=interrupted.currency if interrupted else "",
        duration_ms=interrupted.duration_ms if interrupted else 0,
        first_token_ms=interrupted.first_token_ms if interrupted else None,
        config_version=opened.config_version,
        dropped="",
        end_user=opened.end_user,
        task_type=opened.task_type,
        tag=opened.tag,
    )


def _all_tokens(settled: AttemptSettled) -> int:
    return int(sum(getattr(settled, name) for name in AttemptSettled.__struct_fields__ if name.endswith("_tokens")))


class Refused(NamedTuple):
    """A row that the database does not take, whatever we do."""

    table: Table
    row: Row
    reason: str

    def as_json(self) -> str:
        values = dict(zip(self.table.fields, self.row, strict=True))
        return json.dumps({"table": self.table.model._meta.db_table, "reason": self.reason, "row": values}, default=str)


def recallable(rows: Sequence[tuple[Table, Row]]) -> tuple[list[tuple[Table, Row]], list[Refused]]:
    """Of rows that may have been entered before, those of which the ledger would still know, and the others: entered again, what
    retention has deleted would count twice in the rollups and the budgets. Raises DatabaseError."""
    pruned = Pruned.objects.order_by("-before").first()
    kept_from = pruned.before.timestamp() if pruned else float("-inf")
    reason = "it is older than what the ledger keeps, so nobody can tell whether it was entered before"
    refused = [Refused(table, row, reason) for table, row in rows if row[0] < kept_from]
    return [(table, row) for table, row in rows if row[0] >= kept_from], refused


def insert(rows: Sequence[tuple[Table, Row]]) -> tuple[dict[Table, int], list[Refused]]:
    """One transaction for all of `rows`. Returns how many were new per table, and the rows that cannot be stored at all.

    Rows that are already there stay as they are. Raises DatabaseError where the database itself fails: nothing is stored then.
    """
    try:
        with transaction.atomic():
            return _enter(rows), []
    except _ROW_FAULTS:
        return _insert_one_by_one(rows)


def _enter(rows: Sequence[tuple[Table, Row]]) -> dict[Table, int]:
    """Inserts rows; the new ones, and so each row once whatever is repeated, count in the rollups and are charged to the budgets.

    Called inside a transaction; returns how many were new per table.
    """
    before = {table: hours.last_id(table.model) for table in (USAGE, REQUESTS)}
    new = {table: _insert_into(table, [row for of, row in rows if of is table]) for table in (USAGE, REQUESTS, ENTRIES)}
    rollups.add(new[USAGE], new[REQUESTS])
    accounts.post(map(_posting, new[ENTRIES]))
    for table, last_id in before.items():
        if new[table]:
            hours.note(table.model, {int(row[0] // 3600) for row in new[table]}, last_id, hours.last_id(table.model))
    return {table: len(of_table) for table, of_table in new.items()}


def _insert_into(table: Table, rows: Sequence[Row]) -> Sequence[Row]:
    """Which rows were new. Called inside a transaction."""
    execute = _execute_on_sqlite if connection.vendor == "sqlite" else _execute_on_postgres
    return [row for batch in _batches(len(rows)) for row in execute(table, rows[batch])]


def _new_ones(table: Table, rows: Sequence[Row], inserted: Iterable[Row]) -> list[Row]:
    """The rows whose keys were inserted, each once: one that comes twice in a batch was inserted once."""
    left = set(inserted)
    new = []
    for row in rows:
        key = tuple(row[table.fields.index(name)] for name in table.key)
        if key in left:
            left.remove(key)
            new.append(row)
    return new


def _batches(rows: int) -> Iterator[slice]:
    """In sizes that are powers of two: a connection keeps each statement it has prepared, and so keeps a handful, not hundreds."""
    start, size = 0, _ROWS_PER_STATEMENT
    while start < rows:
        while size > rows - start:
            size //= 2
        yield slice(start, start + size)
        start += size


def _execute_on_postgres(table: Table, rows: Sequence[Row]) -> Sequence[Row]:
    """As JSON, one value a statement: the driver takes ten times as long over a statement with thousands of places."""
    dicts = [dict(zip(table.fields, (f"{_moment_text(row[0])}+00", *row[1:]), strict=True)) for row in rows]
    with connection.cursor() as cursor:
        cursor.execute(table.sql_of_json(), [msgspec.json.encode(dicts).decode()])
        inserted = cursor.fetchall()
    return rows if len(inserted) == len(rows) else _new_ones(table, rows, inserted)


def _execute_on_sqlite(table: Table, rows: Sequence[Row]) -> Sequence[Row]:
    """Past Django's cursor, which rewrites every placeholder of every statement: that costs as much as the insert itself.

    What else the cursor does is done here: it refuses a broken transaction, and its errors are Django's. Nobody else writes
    meanwhile, so what is new has the highest ids; RETURNING would cost a tenth of the insert.
    """
    values = list(chain.from_iterable(rows))
    values[:: len(table.fields)] = [_moment_text(row[0]) for row in rows]
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        execute = connection.connection.execute
        (last_id,) = execute(table.sql_of_last_id()).fetchone()
        if execute(_sqlite_sql(table, len(rows)), values).rowcount == len(rows):
            return rows
        return _new_ones(table, rows, execute(table.sql_of_newer(), [last_id]))


@lru_cache(maxsize=32)
def _sqlite_sql(table: Table, rows: int) -> str:
    return table.sql_of_values(rows)


def _insert_one_by_one(rows: Sequence[tuple[Table, Row]]) -> tuple[dict[Table, int], list[Refused]]:
    new = {USAGE: 0, REQUESTS: 0, ENTRIES: 0}
    refused: list[Refused] = []
    with transaction.atomic():
        for table, row in rows:
            try:
                with transaction.atomic():
                    new[table] += _enter([(table, _clipped(table, row))])[table]
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
