"""The first page of the admin: what the last 24 hours looked like, in two bounded queries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext

from gateway.config.models import ConfigVersion
from monitoring.admin import milliseconds
from monitoring.models import RequestLog, Rollup
from monitoring.pages import amount, to_cents
from monitoring.stats import Grouped, Period, Sums, hour_name, sums, total
from telling.alert_admin import firing_now

_HOURS = 24
_TOP_MODELS = 6
_LAST_REQUESTS = 8
# The chart's box, in its own units.
_CHART_WIDTH, _CHART_HEIGHT, _BAR_GAP = 960, 160, 6


def environment(request: HttpRequest) -> list[str] | None:
    """The badge beside the user's name: which configuration is in force."""
    if not request.user.is_authenticated:
        return None
    version = ConfigVersion.objects.values_list("version", flat=True).first()
    return [gettext("no configuration yet"), "warning"] if version is None else [gettext("configuration %s") % version, "info"]


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Adds `figures` for those who may read the request log, and `firing` for those who may see alerts."""
    firing = firing_now() if request.user.has_perm("telling.view_alert") else None
    shown = figures(timezone.now()) if request.user.has_perm("monitoring.view_requestlog") else None
    return {**context, "firing": firing, "figures": shown}


def figures(now: datetime) -> dict[str, Any]:
    """Everything the page shows, from the rollups of this hour and the 24 before it."""
    period = Period.around(now - timedelta(hours=_HOURS), now + timedelta(microseconds=1), now)
    grouped = sums(Rollup.objects.all(), period, ("hour", "model"), durations=False)
    whole = total(grouped.values())
    hours = [period.until - timedelta(hours=ago) for ago in range(_HOURS + 1, 0, -1)]
    requests, errors = _per_hour(grouped, _asked), _per_hour(grouped, _failed)
    return {
        "requests": _asked(whole),
        "errors": _failed(whole),
        "error_share": f"{100 * _failed(whole) / _asked(whole):.1f} %" if _asked(whole) else "",
        "tokens": sum(whole.tokens().values()),
        "costs": [amount(to_cents(micros), currency) for currency, micros in sorted(whole.cost.items())],
        "unpriced": whole.counts()["unpriced_attempts"],
        "bars": _bars(hours, requests, errors),
        "chart_width": _CHART_WIDTH,
        "chart_height": _CHART_HEIGHT,
        "busiest": max(requests.values(), default=0),
        "models": _top_models(grouped),
        "last": _last_requests(),
    }


def _asked(of: Sums) -> int:
    return of.counts()["requests"] + of.counts()["refused"]


def _failed(of: Sums) -> int:
    """Without those whose client left, which is nobody's error."""
    return of.counts()["errors"] + of.counts()["refused"]


def _per_hour(grouped: Grouped, count: Callable[[Sums], int]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for (hour, _), of in grouped.items():
        totals[hour] = totals.get(hour, 0) + count(of)
    return totals


def _bars(hours: list[datetime], requests: dict[str, int], errors: dict[str, int]) -> list[dict[str, Any]]:
    """One bar an hour, the oldest first; the last hour has only begun."""
    highest, step = max(requests.values(), default=0) or 1, _CHART_WIDTH / len(hours)
    bars = []
    for index, hour in enumerate(hours):
        asked, failed = (counted.get(hour_name(hour), 0) for counted in (requests, errors))
        bars.append(
            {
                "x": round(index * step + _BAR_GAP / 2, 1),
                "width": round(step - _BAR_GAP, 1),
                "height": round(_CHART_HEIGHT * asked / highest, 1),
                "y": round(_CHART_HEIGHT * (1 - asked / highest), 1),
                "error_height": round(_CHART_HEIGHT * failed / highest, 1),
                "error_y": round(_CHART_HEIGHT * (1 - failed / highest), 1),
                "requests": asked,
                "errors": failed,
                "label": f"{timezone.localtime(hour):%H:%M}" if index % 4 == 0 else "",
                "hour": f"{timezone.localtime(hour):%H:%M}",
                "middle": round((index + 0.5) * step, 1),
            }
        )
    return bars


def _top_models(grouped: Grouped) -> list[dict[str, Any]]:
    """The models that vendors were really called for: a name that a caller made up is none."""
    by_model: dict[str, list[Sums]] = {}
    for (_, model), of in grouped.items():
        if of.counts()["attempts"]:
            by_model.setdefault(model, []).append(of)
    rows: list[dict[str, Any]] = []
    for model, of_model in by_model.items():
        whole = total(of_model)
        rows.append({"alias": model, "requests": whole.counts()["requests"], "tokens": sum(whole.tokens().values())})
    top = sorted(rows, key=lambda row: (-row["requests"], row["alias"]))[:_TOP_MODELS]
    for row in top:
        row["share"] = round(100 * row["requests"] / (top[0]["requests"] or 1))
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
