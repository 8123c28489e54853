"""Where in the ledger a time lies. Lists are in the order of ids, and rows come in about as they began: so an hour is a stretch of
ids, and a list of one day weeks ago is read as quickly as that of today."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from django.db import connection, models
from django.db.models import Max, Min, QuerySet

from monitoring.models import LedgerHour, RequestLog, UsageRecord

# Days can be added to these and any time zone can say them, which is not so of the calendar's own ends.
_FIRST, _LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, tzinfo=UTC)
_HOURS_PER_STATEMENT = 2_000  # SQLite takes 32,766 values in one
_KINDS: Final = {UsageRecord: LedgerHour.Kind.USAGE, RequestLog: LedgerHour.Kind.REQUEST}


def last_id(model: type[models.Model]) -> int:
    """What is inserted from now on has a higher id, or this one. Called inside the transaction that inserts; raises DatabaseError."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # others insert meanwhile
            cursor.execute(f"SELECT last_value FROM {connection.ops.quote_name(f'{table}_id_seq')}")
        else:
            cursor.execute(f"SELECT COALESCE(MAX(id), 0) FROM {connection.ops.quote_name(table)}")
        return int(cursor.fetchone()[0])


def note(model: type[models.Model], hours: Collection[int], first_id: int, final_id: int) -> None:
    """Rows that began in these hours (since 1970) have ids from `first_id` to `final_id`. Raises DatabaseError."""
    in_order = sorted(hours)
    for start in range(0, len(in_order), _HOURS_PER_STATEMENT):
        _note(model, in_order[start : start + _HOURS_PER_STATEMENT], first_id, final_id)


def _note(model: type[models.Model], hours: Sequence[int], first_id: int, final_id: int) -> None:
    table = connection.ops.quote_name(LedgerHour._meta.db_table)
    places = ", ".join(["(%s, %s, %s, %s)"] * len(hours))
    moments = [datetime.fromtimestamp(hour * 3600, UTC) for hour in hours]
    adapted = [connection.ops.adapt_datetimefield_value(moment) for moment in moments]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (kind, start, first_id, last_id) VALUES {places} ON CONFLICT (kind, start) DO UPDATE SET "
            f"first_id = CASE WHEN excluded.first_id < {table}.first_id THEN excluded.first_id ELSE {table}.first_id END, "
            f"last_id = CASE WHEN excluded.last_id > {table}.last_id THEN excluded.last_id ELSE {table}.last_id END",
            [value for moment in adapted for value in (_KINDS[model].value, moment, first_id, final_id)],
        )


def reckonable(moment: datetime) -> datetime:
    """What somebody asked for, or the nearest moment to it that can be reckoned with; nothing was recorded beyond that."""
    return min(max(moment, _FIRST), _LAST)


def within(rows: QuerySet[Any], since: datetime | None, until: datetime | None) -> QuerySet[Any]:
    """Those that began from `since` on and before `until`; None = no bound."""
    if since is None and until is None:
        return rows
    known = LedgerHour.objects.filter(kind=_KINDS[rows.model])
    inside = known
    if since is not None:
        rows = rows.filter(started_at__gte=since)
        inside = inside.filter(start__gte=since.astimezone(UTC).replace(minute=0, second=0, microsecond=0))
    if until is not None:
        rows = rows.filter(started_at__lt=until)
        inside = inside.filter(start__lt=until)
    edges = inside.aggregate(first=Min("first_id"), last=Max("last_id"))
    if edges["first"] is None:
        return rows.none() if known.exists() else rows
    if since is not None:
        rows = rows.filter(pk__gte=edges["first"])
    return rows.filter(pk__lte=edges["last"]) if until is not None else rows
