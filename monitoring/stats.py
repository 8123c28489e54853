"""Sums over the ledger: how many requests, errors, tokens and how much money, by whatever is asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import TruncDate

from core.money import plain
from monitoring.models import UsageRecord

GROUPS: dict[str, Any] = {
    "day": TruncDate("started_at"),
    "team": F("team_name"),
    "key": F("key_name"),
    "provider": F("provider_name"),
    "model": F("alias"),
}
MAX_ROWS = 10_000
# The ledger's buckets are disjoint; here they are put together by direction and by what makes them cheap or dear.
_TOKENS: dict[str, Any] = {
    "input_tokens": F("input_tokens") + F("input_audio_tokens") + F("input_image_tokens"),
    "cached_tokens": F("cached_input_tokens"),
    "cache_write_tokens": F("cache_write_tokens") + F("cache_write_1h_tokens"),
    "output_tokens": F("output_tokens") + F("reasoning_tokens") + F("output_audio_tokens") + F("output_image_tokens"),
}


class TooManyRows(Exception):
    """More groups than anybody reads."""


def usage_stats(records: QuerySet[UsageRecord], group_by: Sequence[str]) -> dict[str, Any]:
    """`{"group_by", "rows", "totals"}`: one row for each combination of GROUPS that occurs, in order; days are in UTC.

    Requests are counted once in each row, however many attempts they took there. Cost is by currency, as plain decimals,
    without the attempts whose price is unknown. Raises TooManyRows beyond MAX_ROWS.
    """
    rows = _summed(records, group_by)
    return {"group_by": list(group_by), "rows": rows, "totals": _summed(records, ())[0]}


def _summed(records: QuerySet[UsageRecord], group_by: Sequence[str]) -> list[dict[str, Any]]:
    # Names of the table's own columns are taken, so the groups get others on the way.
    named = {f"by_{name}": GROUPS[name] for name in group_by}
    grouped = records.order_by().annotate(**named)
    sums = {name: Sum(column, default=0) for name, column in _TOKENS.items()}
    counts = {"requests": Count("request_id", distinct=True), "errors": Count("id", filter=Q(status=UsageRecord.Status.ERROR))}
    # Token columns have the names of their sums, so these too are renamed on the way.
    wanted = {f"sum_{name}": expression for name, expression in {**counts, **sums}.items()}
    if named:
        found: Iterable[dict[str, Any]] = grouped.values(*named).annotate(**wanted).order_by(*named)[: MAX_ROWS + 1]
    else:
        found = [grouped.aggregate(**wanted)]
    costs = _costs(grouped, named)
    rows = [_row(values, group_by, costs) for values in found]
    if len(rows) > MAX_ROWS:
        raise TooManyRows(f"These are more than {MAX_ROWS} rows; choose a shorter time or fewer groups.")
    return rows


def _costs(grouped: QuerySet[UsageRecord], named: Iterable[str]) -> dict[tuple[Any, ...], dict[str, str]]:
    names = list(named)
    priced = grouped.filter(cost_micros__isnull=False).values(*names, "currency").annotate(micros=Sum("cost_micros"))
    costs: dict[tuple[Any, ...], dict[str, str]] = defaultdict(dict)
    for values in priced.order_by("currency"):
        costs[tuple(values[name] for name in names)][values["currency"]] = plain(int(values["micros"]))
    return costs


def _row(values: dict[str, Any], group_by: Sequence[str], costs: dict[tuple[Any, ...], dict[str, str]]) -> dict[str, Any]:
    group = tuple(values[f"by_{name}"] for name in group_by)
    tokens = {name: int(values[f"sum_{name}"]) for name in _TOKENS}
    return {
        **{name: str(value) for name, value in zip(group_by, group, strict=True)},
        "requests": values["sum_requests"],
        "errors": values["sum_errors"],
        **tokens,
        "total_tokens": sum(tokens.values()),
        "cost": costs.get(group, {}),
    }
