"""The last hour by the minute. Rollups know whole hours, so this is counted from the newest rows of the ledger, so many and no more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from django.db import models

from monitoring.models import DURATION_COLUMNS, FIRST_TOKEN_COLUMNS, RequestLog, UsageRecord
from monitoring.rollups import KEY, NAMES, REQUEST_FIELDS, SUMS, USAGE_FIELDS, Row, counted
from monitoring.stats import NUMBERS, Grouped, Sums

MINUTES = 60
MAX_REQUESTS = 3_000
_ATTEMPTS_PER_REQUEST = 2

_numbers = itemgetter(*map(SUMS.index, NUMBERS))
_durations = itemgetter(*map(SUMS.index, (*DURATION_COLUMNS, *FIRST_TOKEN_COLUMNS)))
# The hour stands first, in the place of a rollup's span and start.
_CURRENCY, _REPORTING, _ALIAS = (KEY.index(name) - 1 for name in ("currency", "reporting_currency", "alias"))
_TEAM = NAMES.index("team_name")


@dataclass(frozen=True)
class LastHour:
    """`by_minute` has a group for each (moment of a whole minute, model, team). `whole`: False where there were more requests than are
    read; then these are the newest, from `since` on."""

    by_minute: Grouped
    since: datetime
    whole: bool


def last_hour(now: datetime) -> LastHour:
    """The minute that has only begun, and the 59 before it. Raises DatabaseError."""
    since = now.replace(second=0, microsecond=0) - timedelta(minutes=MINUTES - 1)
    requests = _newest(RequestLog, REQUEST_FIELDS, since, now, MAX_REQUESTS + 1)
    whole = len(requests) <= MAX_REQUESTS
    if not whole:
        since = requests[MAX_REQUESTS - 1][0]
    usage = _newest(UsageRecord, USAGE_FIELDS, since, now, MAX_REQUESTS * _ATTEMPTS_PER_REQUEST)
    grouped: Grouped = defaultdict(Sums)
    parts: dict[datetime, tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
    for place, rows in enumerate((usage, requests[:MAX_REQUESTS])):
        for began, *rest in rows:
            parts[began.replace(second=0, microsecond=0)][place].append((began.timestamp(), *rest))
    for minute, (of_usage, of_requests) in sorted(parts.items()):
        for key, (names, sums) in counted(of_usage, of_requests).items():
            one = grouped[minute, key[_ALIAS], names[_TEAM]]
            one.take(key[_CURRENCY], key[_REPORTING], _numbers(sums), _durations(sums))
    return LastHour(dict(grouped), since, whole)


def _newest(model: type[models.Model], fields: Sequence[str], since: datetime, now: datetime, most: int) -> list[Any]:
    rows = model._default_manager.filter(started_at__gte=since, started_at__lte=now)
    return list(rows.order_by("-started_at").values_list(*fields)[:most])
