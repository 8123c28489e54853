"""Sums by hour and by day, kept beside the ledger in the transaction that fills it, so that no chart ever counts its rows.

A batch is grouped in memory first: it costs a few upserts, however many rows it has. Sums are taken column by column, because
the drainer lives on the same core as the requests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import add as plus
from operator import itemgetter
from typing import Any, Final

from django.conf import settings
from django.db import connection, models, transaction
from django.db.models import Count, Q, Sum

from monitoring import histogram, hours, label_rollups, upserts
from monitoring.interruption import NEVER_ENDED, PROCESS_DIED
from monitoring.journal import LABEL_COLUMNS, OPENED_COLUMNS, SETTLED_COLUMNS, AttemptOpened, AttemptSettled, RequestEnded
from monitoring.label_rollups import NO_LABELS, Labelled
from monitoring.models import DURATION_COLUMNS, FIRST_TOKEN_COLUMNS, LabelRollup, LedgerHour, Pruned, RequestLog, Rollup, UsageRecord
from monitoring.moment import one_moment
from monitoring.upserts import Row, Sums

Counted = tuple[Row, list[int]]  # names, sums

# What a rollup is told apart by, in the order of its unique constraint.
KEY: Final = (
    *("span_s", "start", "team_id", "key_id", "provider_name", "alias", "model_id"),
    *("status", "streamed", "currency", "reporting_currency"),
)
NAMES: Final = ("team_name", "key_name", "provider_id")
TOKENS: Final = tuple(name for name in AttemptSettled.__struct_fields__ if name.endswith("_tokens"))
_OF_REQUESTS: Final = ("requests", "failed_requests", "refused_requests", "duration_ms", *DURATION_COLUMNS, *FIRST_TOKEN_COLUMNS)
MONEY: Final = ("cost_micros", "cost_reporting_micros", "charged_micros")
_OF_ATTEMPTS: Final = ("attempts", "failed_attempts", "unpriced_attempts", "unconverted_attempts", *MONEY, *TOKENS)
SUMS: Final = (*_OF_REQUESTS, *_OF_ATTEMPTS)
_NO_REQUESTS: Final = [0] * len(_OF_REQUESTS)
_NO_ATTEMPTS: Final = [0] * len(_OF_ATTEMPTS)

# Rows come as the ledger inserts them: the moment first, then the columns as the journal has them.
USAGE_FIELDS: Final = (
    *AttemptOpened.__struct_fields__[OPENED_COLUMNS],
    *AttemptSettled.__struct_fields__[SETTLED_COLUMNS],
    *AttemptOpened.__struct_fields__[LABEL_COLUMNS],
)
REQUEST_FIELDS: Final = RequestEnded.__struct_fields__
_SHARED: Final = ("team_id", "key_id", "provider_name", "alias", "model_id", "streamed", "currency", "team_name", "key_name")
_usage_group = itemgetter(*map(USAGE_FIELDS.index, (*_SHARED, "provider_id", "status", "reporting_currency")))
_request_group = itemgetter(*map(REQUEST_FIELDS.index, (*_SHARED, "status_code", "error_code", "attempts")))
_LABELS: Final = AttemptOpened.__struct_fields__[LABEL_COLUMNS]
_usage_labels = itemgetter(*map(USAGE_FIELDS.index, _LABELS))
_request_labels = itemgetter(*map(REQUEST_FIELDS.index, _LABELS))
_label_sums = itemgetter(*map(SUMS.index, label_rollups.SUMS))
_began = itemgetter(0)
_token_columns = tuple(itemgetter(USAGE_FIELDS.index(name)) for name in TOKENS)
_money_columns = tuple(itemgetter(USAGE_FIELDS.index(name)) for name in MONEY)
_duration = itemgetter(REQUEST_FIELDS.index("duration_ms"))
_first_token = itemgetter(REQUEST_FIELDS.index("first_token_ms"))

_TABLE: Final = Sums(Rollup, KEY, NAMES[:-1], NAMES[-1:], SUMS, at_once=64)
_ROWS_PER_REBUILD_STEP = 20_000
_CLIENT_LEFT = 499
_INTERRUPTED = (PROCESS_DIED.code, NEVER_ENDED.code)


def add(usage: Sequence[Row], requests: Sequence[Row]) -> None:
    """Counts rows that were just inserted, and were not there before. Called inside their transaction; raises DatabaseError."""
    by_hour = counted(usage, requests)
    whole = ((key, NO_LABELS, names[:-1], _label_sums(sums)) for key, (names, sums) in by_hour.items())
    label_rollups.add(whole, _labelled(usage, requests))
    # In one order everywhere: processes that upsert the same rows then wait for each other and never in a circle.
    rollups = [
        (span.value, key[0] * 3600, *key[1:], *names, *sums)
        for span, counted in ((Rollup.Span.HOUR, by_hour), (Rollup.Span.DAY, _by_day(by_hour)))
        for key, (names, sums) in sorted(counted.items())
    ]
    upserts.add(_TABLE, rollups)


def counted(usage: Sequence[Row], requests: Sequence[Row]) -> dict[Row, Counted]:
    """What rows come to: (hour since 1970, then KEY from its third on) → (NAMES, SUMS)."""
    by_hour: dict[Row, Counted] = {}
    for hour, group, rows in _grouped(requests, _request_group):
        key, names, sums = _requests(group, rows)
        _enter(by_hour, (hour, *key), names, sums)
    for hour, group, rows in _grouped(usage, _usage_group):
        key, names, sums = _attempts(group, rows)
        _enter(by_hour, (hour, *key), names, sums)
    return by_hour


def _labelled(usage: Sequence[Row], requests: Sequence[Row]) -> Iterator[Labelled]:
    """What `add` counts, of the rows that have labels alone."""
    for rows, labels_of, group_of, count in (
        (requests, _request_labels, _request_group, _requests),
        (usage, _usage_labels, _usage_group, _attempts),
    ):
        named = [row for row in rows if labels_of(row) != NO_LABELS]
        for hour, (*group, labels), of_group in _grouped(named, lambda row: (*group_of(row), labels_of(row))):  # noqa: B023
            key, names, sums = count(tuple(group), of_group)
            yield (hour, *key), labels, names[:-1], _label_sums(sums)


def _grouped(rows: Sequence[Row], group_of: Callable[[Row], Row]) -> Iterator[tuple[int, Row, list[Row]]]:
    """(hour since 1970, group, its rows)."""
    for hour, of_hour in _by_hour(rows):
        groups: defaultdict[Row, list[Row]] = defaultdict(list)
        for row in of_hour:
            groups[group_of(row)].append(row)
        for group, of_group in groups.items():
            yield hour, group, of_group


def _by_hour(rows: Sequence[Row]) -> Iterable[tuple[int, Sequence[Row]]]:
    """A batch is of one hour but for one batch an hour, which is cheaper to see than to look at each row's hour."""
    if not rows:
        return ()
    first, last = (int(edge(map(_began, rows)) // 3600) for edge in (min, max))
    if first == last:
        return ((first, rows),)
    hours: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        hours[int(row[0] // 3600)].append(row)
    return hours.items()


def _requests(group: Row, rows: list[Row]) -> tuple[Row, Row, list[int]]:
    """(key without its time, names, sums) of requests of one group."""
    team_id, key_id, provider_name, alias, model_id, streamed, currency, team_name, key_name, code, error_code, attempts = group
    names = (team_name, key_name, "")
    if not attempts and code >= 400:
        refused = (team_id, key_id, "", "", "", UsageRecord.Status.ERROR.value, streamed, "", "")
        return refused, names, [0, 0, len(rows), *_NO_REQUESTS[3:], *_NO_ATTEMPTS]
    status = _status(code, error_code)
    durations = list(map(_duration, rows))
    first_tokens = [first for first in map(_first_token, rows) if first is not None]
    failed = len(rows) if status in (UsageRecord.Status.ERROR, UsageRecord.Status.INTERRUPTED) else 0
    sums = [len(rows), failed, 0, sum(durations), *histogram.counts(durations), *histogram.counts(first_tokens), *_NO_ATTEMPTS]
    # A request's row does not say it, and it need not be exact: beside its attempts it has no rollup of its own.
    reporting: str = settings.REPORTING_CURRENCY
    return (team_id, key_id, provider_name, alias, model_id, status, streamed, currency, reporting), names, sums


def _status(code: int, error_code: str) -> str:
    """A request's outcome in the words for attempts."""
    if code < 400:
        return UsageRecord.Status.OK.value
    if error_code in _INTERRUPTED:
        return UsageRecord.Status.INTERRUPTED.value
    return UsageRecord.Status.CLIENT_CLOSED.value if code == _CLIENT_LEFT else UsageRecord.Status.ERROR.value


def _attempts(group: Row, rows: list[Row]) -> tuple[Row, Row, list[int]]:
    """(key without its time, names, sums) of attempts of one group."""
    team_id, key_id, provider_name, alias, model_id, streamed, currency, team_name, key_name, provider_id, status, reporting = group
    failed = len(rows) if status == UsageRecord.Status.ERROR else 0
    costs, converted, charged = ([micros for micros in map(column, rows) if micros is not None] for column in _money_columns)
    unknown = (len(rows) - len(costs), len(rows) - len(converted))
    tokens = [sum(map(column, rows)) for column in _token_columns]
    sums = [*_NO_REQUESTS, len(rows), failed, *unknown, sum(costs), sum(converted), sum(charged), *tokens]
    key = (team_id, key_id, provider_name, alias, model_id, status, streamed, currency, reporting)
    return key, (team_name, key_name, provider_id), sums


def _enter(counted: dict[Row, Counted], key: Row, names: Row, sums: list[int]) -> None:
    before = counted.get(key)
    if before is None:
        counted[key] = names, sums
        return
    known, so_far = before
    counted[key] = names if names[-1] else (*names[:-1], known[-1]), list(map(plus, so_far, sums))


def _by_day(hours: dict[Row, Counted]) -> dict[Row, Counted]:
    days: dict[Row, Counted] = {}
    for (hour, *key), of_hour in hours.items():
        _enter(days, (hour - hour % 24, *key), *of_hour)
    return days


# All of them anew, and whether they are right -------------------------------------------------------------------------


def rebuild(progress: Callable[[int], None] = lambda rows: None) -> int:
    """Sums up the whole ledger anew, in one transaction; returns how many rows that were. Raises DatabaseError.

    `progress` is told of each step how many rows it had.

    Days of which rows were pruned keep the sums they have: from what is left nobody could tell them.
    """
    with transaction.atomic():
        _keep_inserts_out()
        since = Pruned.kept_from()
        Rollup.objects.filter(start__gte=since).delete()
        LabelRollup.objects.filter(start__gte=since).delete()
        LedgerHour.objects.filter(start__gte=since).delete()
        label_rollups.forget()
        usage = _count_again(UsageRecord, USAGE_FIELDS, since, lambda rows: add(rows, ()), progress)
        return usage + _count_again(RequestLog, REQUEST_FIELDS, since, lambda rows: add((), rows), progress)


def fill_if_empty(**_: Any) -> None:
    """After a migration: sums up what was there before there were rollups."""
    if not Rollup.objects.exists() and (UsageRecord.objects.exists() or RequestLog.objects.exists()):
        rebuild()


def _keep_inserts_out() -> None:
    """What is inserted meanwhile would be counted twice. On SQLite every transaction of ours is alone from its beginning."""
    if connection.vendor == "postgresql":
        tables = ", ".join(connection.ops.quote_name(model._meta.db_table) for model in (UsageRecord, RequestLog, Rollup, LabelRollup))
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE")


def _count_again(
    model: type[models.Model], fields: Sequence[str], since: datetime, count: Callable[[list[Row]], None], progress: Callable[[int], None]
) -> int:
    counted, last_id = 0, 0
    rows = model._default_manager.filter(started_at__gte=since).order_by("pk").values_list("pk", *fields)
    while found := list(rows.filter(pk__gt=last_id)[:_ROWS_PER_REBUILD_STEP]):
        count([(row[1].timestamp(), *row[2:]) for row in found])
        hours.note(model, {int(row[1].timestamp() // 3600) for row in found}, found[0][0], found[-1][0])
        counted, last_id = counted + len(found), found[-1][0]
        progress(len(found))
    return counted


def difference() -> str | None:
    """The first day on which rollups and rows do not tell the same sums, in a plain sentence; None where all do.

    Reads every row that was not pruned, as of one moment, while others insert. Raises DatabaseError.
    """
    with one_moment():
        for day in sorted(_days(Pruned.kept_from())):
            rows = _sums_of_rows(day)
            for kind, rollups in _KINDS.items():
                sums = _sums_of_rollups(rollups, day)
                for name, expected in rows.items():
                    if sums[name] != expected:
                        return f"On {day:%Y-%m-%d} the rows have {expected} {name}, the rollups by {kind} {sums[name]}."
    return None


_KINDS: Final[Mapping[str, tuple[type[Rollup | LabelRollup], Q]]] = {
    **{span.label.lower(): (Rollup, Q(span_s=span)) for span in Rollup.Span},
    "user, task type and tag": (LabelRollup, Q()),
}


def _days(since: datetime) -> set[datetime]:
    """On which there are rows or rollups; found by jumping from day to day in the index."""
    days = set(Rollup.objects.filter(span_s=Rollup.Span.DAY, start__gte=since).values_list("start", flat=True).distinct())
    for model in (UsageRecord, RequestLog):
        moments = model._default_manager.order_by("started_at").values_list("started_at", flat=True)
        at = since
        while (moment := moments.filter(started_at__gte=at).first()) is not None:
            day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            days.add(day)
            at = day + timedelta(days=1)
    return days


def _sums_of_rows(day: datetime) -> dict[str, int]:
    of_day = Q(started_at__gte=day, started_at__lt=day + timedelta(days=1))
    refused = Q(attempts=0, status_code__gte=400)
    sums = {
        **UsageRecord.objects.filter(of_day).aggregate(
            attempts=Count("pk"),
            failed_attempts=Count("pk", filter=Q(status=UsageRecord.Status.ERROR)),
            unpriced_attempts=Count("pk", filter=Q(cost_micros=None)),
            unconverted_attempts=Count("pk", filter=Q(cost_reporting_micros=None)),
            **{f"sum_{name}": Sum(name, default=0) for name in (*MONEY, *TOKENS)},
        ),
        **RequestLog.objects.filter(of_day).aggregate(
            requests=Count("pk", filter=~refused),
            refused_requests=Count("pk", filter=refused),
            sum_duration_ms=Sum("duration_ms", filter=~refused, default=0),
        ),
    }
    return {name.removeprefix("sum_"): value for name, value in sums.items()}


def _sums_of_rollups(kind: tuple[type[Rollup | LabelRollup], Q], day: datetime) -> dict[str, int]:
    model, of_kind = kind
    names = ("requests", "refused_requests", "duration_ms", *_OF_ATTEMPTS)
    of_day = model.objects.filter(of_kind, start__gte=day, start__lt=day + timedelta(days=1))
    sums = of_day.aggregate(**{f"sum_{name}": Sum(name, default=0) for name in names})
    return {name: sums[f"sum_{name}"] for name in names}
