"""From journal records to rows of the ledger, and an insert that may be repeated. A row's moment, in wall seconds, comes first.

The columns come from the models; the ORM itself is left out, because it costs ten times as much per row and the drainer
lives on the same core as the requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

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
    RequestEnded,
)
from monitoring.models import BudgetEntry, Pruned, RequestLog, UsageRecord
from monitoring.upserts import Row, batches, places, second_text

_ROW_FAULTS = (IntegrityError, DataError, OverflowError, ValueError, TypeError)

# Of some 30 columns: well below the number of values that SQLite takes in one statement, 32,766.
# A power of two, see `upserts.batches`.
_ROWS_PER_STATEMENT = 128


class Table(NamedTuple):
    """How rows of one model are inserted: values in the order of `fields`, told apart by `key`, which is unique together.

    A field's column has its name: the ledger has no foreign keys.
    """

    model: type[models.Model]
    key: tuple[str, ...]
    fields: tuple[str, ...]

    def sql_of_values(self, rows: int) -> str:
        """One statement for that many rows: a statement per row would hand the interpreter's lock over for each of them."""
        return self._insert_sql(f"VALUES {places(rows, len(self.fields))}")

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
    second, micros = divmod(round(wall_s * 10**6), 10**6)
    return f"{second_text(second)}.{micros:06d}"


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
    kept_from = Pruned.kept_from().timestamp()
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
    return [row for batch in batches(len(rows), _ROWS_PER_STATEMENT) for row in execute(table, rows[batch])]


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
