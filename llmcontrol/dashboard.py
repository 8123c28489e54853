"""The first page of the admin: what the last 24 hours looked like, in three bounded queries."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import TruncHour
from django.http import HttpRequest
from django.utils import timezone

from core.money import MICROS
from gateway.config.models import ConfigVersion
from monitoring.admin import milliseconds
from monitoring.models import RequestLog
from monitoring.pages import amount

_HOURS = 24
_TOP_MODELS = 6
_LAST_REQUESTS = 8
# 499: the client left, which is nobody's error.
_IS_ERROR = Q(status_code__gte=400) & ~Q(status_code=499)
# The chart's box, in its own units.
_CHART_WIDTH, _CHART_HEIGHT, _BAR_GAP = 960, 160, 6


def environment(request: HttpRequest) -> list[str] | None:
    """The badge beside the user's name: which configuration is in force."""
    if not request.user.is_authenticated:
        return None
    version = ConfigVersion.objects.values_list("version", flat=True).first()
    return ["no configuration yet", "warning"] if version is None else [f"configuration {version}", "info"]


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Adds `figures` for those who may read the request log."""
    return {**context, "figures": figures(timezone.now()) if request.user.has_perm("monitoring.view_requestlog") else None}


def figures(now: datetime) -> dict[str, Any]:
    """Everything the page shows, from the requests of the 24 hours up to `now`."""
    recent = RequestLog.objects.filter(started_at__gt=now - timedelta(hours=_HOURS), started_at__lte=now).order_by()
    hourly = recent.annotate(hour=TruncHour("started_at")).values("hour", "currency")
    rows: list[dict[str, Any]] = [
        dict(row)
        for row in hourly.annotate(
            requests=Count("pk"),
            errors=Count("pk", filter=_IS_ERROR),
            tokens=Sum("total_tokens"),
            cost=Sum("cost_micros"),
            unpriced=Count("pk", filter=Q(cost_micros__isnull=True, attempts__gt=0)),
        )
    ]
    requests, errors = (sum(row[name] for row in rows) for name in ("requests", "errors"))
    return {
        "requests": requests,
        "errors": errors,
        "error_share": f"{100 * errors / requests:.1f} %" if requests else "",
        "tokens": sum(row["tokens"] for row in rows),
        "costs": _costs(rows),
        "unpriced": sum(row["unpriced"] for row in rows),
        "bars": _bars(rows, now),
        "chart_width": _CHART_WIDTH,
        "chart_height": _CHART_HEIGHT,
        "busiest": max(_per_hour(rows, "requests").values(), default=0),
        "models": _top_models(recent),
        "last": _last_requests(),
    }


def _costs(rows: list[dict[str, Any]]) -> list[str]:
    """One sum for each currency; sums of different currencies are never added."""
    totals: dict[str, int] = {}
    for row in rows:
        if row["cost"] is not None and row["currency"]:
            totals[row["currency"]] = totals.get(row["currency"], 0) + row["cost"]
    return [amount(_to_cents(micros), currency) for currency, micros in sorted(totals.items())]


def _to_cents(micros: int) -> int:
    """Sums of a unit or more are shown to the cent; smaller ones in full, since a thousand tokens can cost less than one."""
    return micros if micros < MICROS else (micros + 5_000) // 10_000 * 10_000


def _per_hour(rows: list[dict[str, Any]], name: str) -> dict[datetime, int]:
    totals: dict[datetime, int] = {}
    for row in rows:
        totals[row["hour"]] = totals.get(row["hour"], 0) + row[name]
    return totals


def _bars(rows: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """One bar an hour, the oldest first; the first and the last hour are only partly inside the span."""
    requests, errors = _per_hour(rows, "requests"), _per_hour(rows, "errors")
    this_hour = timezone.localtime(now).replace(minute=0, second=0, microsecond=0)
    hours = [this_hour - timedelta(hours=ago) for ago in range(_HOURS, -1, -1)]
    highest, step = max(requests.values(), default=0) or 1, _CHART_WIDTH / len(hours)
    return [
        {
            "x": round(index * step + _BAR_GAP / 2, 1),
            "width": round(step - _BAR_GAP, 1),
            "height": round(_CHART_HEIGHT * requests.get(hour, 0) / highest, 1),
            "y": round(_CHART_HEIGHT * (1 - requests.get(hour, 0) / highest), 1),
            "error_height": round(_CHART_HEIGHT * errors.get(hour, 0) / highest, 1),
            "error_y": round(_CHART_HEIGHT * (1 - errors.get(hour, 0) / highest), 1),
            "requests": requests.get(hour, 0),
            "errors": errors.get(hour, 0),
            "label": f"{hour:%H:%M}" if index % 4 == 0 else "",
            "hour": f"{hour:%H:%M}",
            "middle": round((index + 0.5) * step, 1),
        }
        for index, hour in enumerate(hours)
    ]


def _top_models(recent: QuerySet[RequestLog]) -> list[dict[str, Any]]:
    """The models that vendors were really called for: a name that a caller made up is none."""
    rows = recent.filter(attempts__gt=0).values("alias").annotate(requests=Count("pk"), tokens=Sum("total_tokens"))
    top: list[dict[str, Any]] = [dict(row) for row in rows.order_by("-requests", "alias")[:_TOP_MODELS]]
    for row in top:
        row["share"] = round(100 * row["requests"] / top[0]["requests"])
    return top


def _last_requests() -> list[dict[str, Any]]:
    return [
        {
            "row": row,
            "failed": row.status_code >= 400 and row.status_code != 499,
            "took": milliseconds(row.duration_ms),
            "cost": amount(row.cost_micros, row.currency) if row.attempts else "–",
        }
        for row in RequestLog.objects.order_by("-pk")[:_LAST_REQUESTS]
    ]
