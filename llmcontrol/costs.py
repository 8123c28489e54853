"""The page “Costs” of the admin: where money goes, and whether it lasts. All from the rollups, in a handful of bounded queries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from access.budgets import standings_of
from access.models import Budget
from core.money import MICROS
from llmcontrol import charts
from monitoring.models import Rollup
from monitoring.pages import amount, to_cents
from monitoring.stats import Grouped, Period, Sums, sums, total

SPANS_DAYS = (7, 30, 90)
_DEFAULT_SPAN_DAYS = 30
_PACE_DAYS = 7
_MODELS_SHOWN = 6
_TEAMS_SHOWN = 10
_BUDGETS_SHOWN, _BUDGETS_LOOKED_AT = 12, 2_000
_OTHERS = gettext_noop("all others")


def page(request: HttpRequest) -> HttpResponse:
    """For those who may view usage; `?days=` is one of SPANS_DAYS."""
    if not request.user.has_perm("monitoring.view_usagerecord"):
        raise PermissionDenied
    asked = request.GET.get("days", "")
    days = int(asked) if asked in map(str, SPANS_DAYS) else _DEFAULT_SPAN_DAYS
    budgets = budgets_now() if request.user.has_perm("access.view_budget") else []
    context = {**admin.site.each_context(request), "title": _("Costs"), "days": days, "spans": SPANS_DAYS, "budgets": budgets}
    return TemplateResponse(request, "admin/llmcontrol/costs.html", {**context, **figures(timezone.now(), days)})


def figures(now: datetime, days: int) -> dict[str, Any]:
    """What the page shows of the `days` up to and with today, UTC, and of this month."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    by_day_and_model = _sums(today - timedelta(days=days - 1), now, "day", "model")
    whole = total(by_day_and_model.values())
    currency = _main_currency(whole)
    dates = [f"{today - timedelta(days=ago):%Y-%m-%d}" for ago in range(days - 1, -1, -1)]
    share = whole.cached_share()
    return {
        "currency": currency,
        "costs": [_shown(micros, name) for name, micros in sorted(whole.cost.items())],
        "unpriced": whole.counts()["unpriced_attempts"],
        "cached": None if share is None else f"{100 * share:.1f} %",
        "per_1k": [_shown(micros, name) for name, micros in sorted(whole.per_1k_answers().items())],
        **_month(now, today, currency),
        "by_model": json.dumps(_stacked(by_day_and_model, dates, currency)),
        "cached_by_day": json.dumps(_cached_by_day(by_day_and_model, dates)),
        "stacked_options": json.dumps(charts.options(gettext("%s a day") % currency, stacked=True)),
        "line_options": json.dumps(charts.options(gettext("% of the tokens that went in"), legend=False)),
        "teams": _teams(_sums(today - timedelta(days=days - 1), now, "team"), currency),
        "models": _models(by_day_and_model, currency),
    }


def _sums(since: datetime, until: datetime, *group_by: str) -> Grouped:
    return sums(Rollup.objects.all(), Period.around(since, until, until), group_by, durations=False)


def _money(of: Sums) -> Mapping[str, int]:
    """In the reporting currency where there is one: then all of it can be in one chart."""
    return of.cost_reporting or of.cost


def _main_currency(whole: Sums) -> str:
    money = _money(whole)
    return max(money, key=lambda currency: money[currency], default="")


def _cost(of: Sums, currency: str) -> int:
    return of.cost_reporting[currency] if currency in of.cost_reporting else of.cost.get(currency, 0)


def _shown(micros: int, currency: str) -> str:
    return amount(to_cents(micros), currency)


def _month(now: datetime, today: datetime, currency: str) -> dict[str, str]:
    """What this month has cost so far, and what it will have cost at the pace of the last days."""
    begun = today.replace(day=1)
    ends = (begun + timedelta(days=32)).replace(day=1)
    so_far = _cost(total(_sums(begun, now).values()), currency) if now > begun else 0
    pace = _cost(total(_sums(now - timedelta(days=_PACE_DAYS), now).values()), currency) / _PACE_DAYS
    left_days = (ends - now).total_seconds() / 86_400
    return {"month": _shown(so_far, currency), "forecast": _shown(round(so_far + pace * left_days), currency)}


def _by(grouped: Grouped, place: int) -> dict[str, Sums]:
    """Sums by one of two groups."""
    parts: dict[str, list[Sums]] = {}
    for group, one in grouped.items():
        parts.setdefault(group[place], []).append(one)
    return {name: total(part) for name, part in parts.items()}


def _stacked(grouped: Grouped, dates: Sequence[str], currency: str) -> dict[str, Any]:
    """A bar a day, the dearest models of the whole time in colours of their own."""
    costs = {name: _cost(of, currency) for name, of in _by(grouped, 1).items()}
    dearest = [name for name in sorted(costs, key=lambda name: (-costs[name], name)) if costs[name]]
    bars: dict[str, dict[str, int]] = {name: {} for name in (*dearest[:_MODELS_SHOWN], *([_OTHERS] if dearest[_MODELS_SHOWN:] else ()))}
    for (day, model), of in grouped.items():
        micros = _cost(of, currency)
        if micros:
            bar = bars[model if model in bars else _OTHERS]
            bar[day] = bar.get(day, 0) + micros
    datasets = [
        charts.bars(gettext(name) if name == _OTHERS else name, [bar.get(day, 0) / MICROS for day in dates], color)
        for (name, bar), color in zip(bars.items(), charts.COLORS, strict=False)
    ]
    return {"labels": [day[5:] for day in dates], "datasets": datasets}


def _cached_by_day(grouped: Grouped, dates: Sequence[str]) -> dict[str, Any]:
    by_day = _by(grouped, 0)
    shares = [by_day[day].cached_share() if day in by_day else None for day in dates]
    data = [None if share is None else round(100 * share, 1) for share in shares]
    return {"labels": [day[5:] for day in dates], "datasets": [charts.line(gettext("cached"), data, charts.COLORS[1])]}


def _teams(grouped: Grouped, currency: str) -> list[dict[str, Any]]:
    costs = sorted(((_cost(of, currency), name, of) for (name,), of in grouped.items()), key=lambda row: (-row[0], row[1]))
    highest = costs[0][0] if costs else 0
    return [
        {
            "name": name or gettext("no team"),
            "cost": _shown(micros, currency),
            "requests": of.counts()["requests"],
            "percent": round(100 * micros / highest) if highest > 0 else 0,
        }
        for micros, name, of in costs[:_TEAMS_SHOWN]
    ]


def _models(grouped: Grouped, currency: str) -> list[dict[str, Any]]:
    """The models that vendors were asked for, the dearest first."""
    asked = [(name, of) for name, of in _by(grouped, 1).items() if of.counts()["attempts"]]
    rows = []
    for name, of in sorted(asked, key=lambda row: (-_cost(row[1], currency), row[0]))[:_TEAMS_SHOWN]:
        counts, share = of.counts(), of.cached_share()
        answers = counts["requests"] - counts["errors"]
        known = counts["attempts"] > counts["unpriced_attempts"]
        rows.append(
            {
                "name": name,
                "answers": answers,
                "cost": _shown(_cost(of, currency), currency) if known else gettext("unknown"),
                "per_1k": _shown(round(_cost(of, currency) * 1000 / answers), currency) if answers and known else "–",
                "cached": "–" if share is None else f"{100 * share:.1f} %",
                "unpriced": counts["unpriced_attempts"],
            }
        )
    return rows


def budgets_now() -> list[dict[str, Any]]:
    """Of the newest few thousand budgets those that are nearest to their limits."""
    rows: list[dict[str, Any]] = []
    budgets = list(Budget.objects.select_related("team", "key", "provider")[:_BUDGETS_LOOKED_AT])
    standings = standings_of(budgets)
    for budget in budgets:
        standing = standings[budget.pk]
        share = (standing.used + standing.reserved) / budget.limit if budget.limit else 1.0
        used, reserved = (
            min(100, round(100 * part / budget.limit)) if budget.limit else 100 for part in (standing.used, standing.reserved)
        )
        rows.append(
            {
                "budget": budget,
                "share": share,
                "limit": _written(budget, budget.limit),
                "used": _written(budget, standing.used),
                "reserved": _written(budget, standing.reserved),
                "used_percent": used,
                "reserved_percent": min(reserved, 100 - used),
                "near": standing.used >= 0.9 * budget.limit,
                "ends_at": standing.ends_at,
            }
        )
    return sorted(rows, key=lambda row: -row["share"])[:_BUDGETS_SHOWN]


def _written(budget: Budget, value: int) -> str:
    return _shown(value, budget.currency) if budget.kind == Budget.Kind.MONEY else f"{value:,} {budget.get_kind_display().lower()}"
