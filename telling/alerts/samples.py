"""What happened lately, from few and bounded reads: the rollups of three hours, and the newest rows of the ledger, each once.

Rollups know hours. One sample of their sums at each look makes the minutes between two looks known: the difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.db.models import Count, Q, Sum

from monitoring import histogram
from monitoring.models import DURATION_COLUMNS, Rollup, UsageRecord
from telling.alert_models import MAX_WINDOW_S, AlertSample

# Requests are counted in the hour in which they began, and when they have ended.
_HOURS_BEFORE = 2
_ROWS_AT_ONCE = 20_000
_KEEP_S = 3.0 * MAX_WINDOW_S
_SUMS = ("requests", "failed_requests", "refused_requests", *DURATION_COLUMNS)
_WITHOUT_USAGE = Q(usage_source__in=[UsageRecord.Source.ESTIMATED, UsageRecord.Source.REFUSED, UsageRecord.Source.NONE])


class Traffic(msgspec.Struct, frozen=True):
    """Of one provider in one window; "" = of requests that reached none. `durations`: as `monitoring.histogram` counts."""

    requests: int = 0
    failed: int = 0
    durations: tuple[int, ...] = (0,) * histogram.CLASSES

    def plus(self, other: Traffic) -> Traffic:
        durations = tuple(map(sum, zip(self.durations, other.durations, strict=True)))
        return Traffic(self.requests + other.requests, self.failed + other.failed, durations)


class Dearest(msgspec.Struct, frozen=True, array_like=True):
    cost_micros: int
    request_id: str
    key: str
    model: str


def take(now: float) -> None:
    """Adds a sample and removes what no window reaches any more. Raises DatabaseError."""
    last = AlertSample.objects.order_by("-pk").first()
    newest = UsageRecord.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    sample = AlertSample(at=now, seen_id=newest, read_id=newest, sums=_sums(now))
    if last is not None:
        # Up to what the last look saw: what several processes were entering then, in whatever order of ids, is committed by now.
        sample.read_id = min(last.seen_id, last.read_id + _ROWS_AT_ONCE)
        between = Q(pk__gt=last.read_id, pk__lte=sample.read_id)
        sample.calls, sample.dearest = _calls(between), _dearest(between)
    sample.save(force_insert=True)
    AlertSample.objects.filter(at__lt=now - _KEEP_S).delete()


def traffic(now: float, window_s: float) -> Mapping[str, Traffic] | None:
    """By provider; None where it is not known, for nobody has looked for so long."""
    recent = AlertSample.objects.filter(at__lte=now).order_by("-at", "-pk")
    newest = recent.first()
    base = recent.filter(at__lte=now - window_s, at__gte=now - _KEEP_S).first() or recent.filter(at__gte=now - window_s).last()
    if newest is None or base is None or base.pk == newest.pk:
        return None
    found: dict[str, Traffic] = defaultdict(Traffic)
    for hour, providers in newest.sums.items():
        before = base.sums.get(hour, {})
        for provider, sums in providers.items():
            found[provider] = found[provider].plus(_between(before.get(provider), sums))
    return found


def calls(now: float, window_s: float) -> Mapping[str, tuple[int, int]]:
    """Provider → (answers, of these without usage)."""
    found: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for counted in _since(now, window_s).values_list("calls", flat=True):
        for provider, (answered, missing) in counted.items():
            found[provider] = (found[provider][0] + answered, found[provider][1] + missing)
    return found


def dearest(now: float, window_s: float) -> Dearest | None:
    rows = [msgspec.convert(row, Dearest) for row in _since(now, window_s).values_list("dearest", flat=True) if row]
    return max(rows, key=lambda row: row.cost_micros, default=None)


def _since(now: float, window_s: float) -> Any:
    return AlertSample.objects.filter(at__gt=now - window_s, at__lte=now)


def _between(before: Sequence[int] | None, after: Sequence[int]) -> Traffic:
    """Sums only grow, save where somebody has made the rollups anew."""
    requests, failed, refused, *durations = (max(0, new - old) for new, old in zip(after, before or [0] * len(after), strict=True))
    return Traffic(requests + refused, failed + refused, tuple(durations))


def _sums(now: float) -> dict[str, dict[str, list[int]]]:
    hour = datetime.fromtimestamp(now, UTC).replace(minute=0, second=0, microsecond=0)
    rows = Rollup.objects.filter(span_s=Rollup.Span.HOUR, start__gte=hour - timedelta(hours=_HOURS_BEFORE)).order_by()
    found: dict[str, dict[str, list[int]]] = defaultdict(dict)
    sums = {f"sum_{name}": Sum(name, default=0) for name in _SUMS}
    for start, provider, *counted in rows.values("start", "provider_name").annotate(**sums).values_list("start", "provider_name", *sums):
        found[start.isoformat()][provider] = counted
    return found


def _calls(rows: Q) -> dict[str, list[int]]:
    counted = UsageRecord.objects.filter(rows, status=UsageRecord.Status.OK).order_by().values("provider_name")
    found = counted.annotate(answered=Count("pk"), missing=Count("pk", filter=_WITHOUT_USAGE))
    return {row["provider_name"]: [row["answered"], row["missing"]] for row in found}


def _dearest(rows: Q) -> list[Any]:
    priced = UsageRecord.objects.filter(rows, cost_reporting_micros__isnull=False).order_by("-cost_reporting_micros")
    return list(priced.values_list("cost_reporting_micros", "request_id", "key_name", "alias").first() or [])
