"""The first page of the admin: how the gateway does now, and what the last hour, day or week looked like, in bounded queries."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from gateway.config.models import ConfigVersion
from llmcontrol import charts
from monitoring.admin import milliseconds
from monitoring.last_hour import MAX_REQUESTS, MINUTES, last_hour
from monitoring.models import RequestLog, Rollup
from monitoring.pages import amount, duration, share_of, to_cents
from monitoring.stats import Grouped, Period, Sums, hour_name, sums, total
from providers.states import not_well
from tasks.queue import standing
from telling.alert_admin import firing_now

_HOURS, _DAYS = 24, 7
_TOP = 6
_LAST_REQUESTS = 8


@dataclass(frozen=True)
class Seen:
    """What one span of time came to. `by_time` has a group for each part of the axis; `note` says what the figures leave out."""

    labels: Sequence[tuple[Any, str]]
    by_time: Mapping[Any, Sums]
    by_model: Mapping[str, Sums]
    by_team: Mapping[str, Sums]
    note: str = ""


def environment(request: HttpRequest) -> list[str] | None:
    """The badge beside the user's name: which configuration is in force."""
    if not request.user.is_authenticated:
        return None
    version = ConfigVersion.objects.values_list("version", flat=True).first()
    return [gettext("no configuration yet"), "warning"] if version is None else [gettext("configuration %s") % version, "info"]


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Adds what the person may see: `firing` (alerts), `vendors` (states), `queue` (tasks) and `figures` (the request log)."""
    user, now = request.user, timezone.now()
    asked = request.GET.get("span", "")
    return {
        **context,
        "firing": firing_now() if user.has_perm("telling.view_alert") else None,
        "vendors": not_well() if user.has_perm("providers.view_provider") else None,
        "queue": _queue(now) if user.has_perm("tasks.view_task") else None,
        "figures": figures(now, asked if asked in SPANS else "day") if user.has_perm("monitoring.view_requestlog") else None,
    }


def figures(now: datetime, span: str = "day") -> dict[str, Any]:
    """Everything the page shows of a span of SPANS."""
    seen = SPANS[span][2](now)
    whole = total(seen.by_time.values())
    tokens, cached = whole.tokens(), whole.cached_share()
    return {
        "span": span,
        "spans": [(name, title) for name, (title, _, _) in SPANS.items()],
        "note": seen.note,
        "requests": _asked(whole),
        "errors": _failed(whole),
        "error_share": share_of(_failed(whole), _asked(whole)),
        "answer": _quantiles(whole),
        "first_token": _quantiles(whole, first_token=True),
        "tokens": sum(tokens.values()),
        "tokens_out": tokens["output_tokens"],
        "cached": None if cached is None else share_of(cached, 1),
        "costs": [amount(to_cents(micros), currency) for currency, micros in sorted(whole.cost.items())],
        "unpriced": whole.counts()["unpriced_attempts"],
        "requests_chart": _requests_chart(seen),
        "requests_options": json.dumps(charts.options(str(SPANS[span][1]), stacked=True)),
        "durations_chart": _durations_chart(seen),
        "durations_options": json.dumps(charts.options(gettext("seconds"))),
        "models": _top((name, of) for name, of in seen.by_model.items() if of.counts()["attempts"]),
        "teams": _top((name or gettext("no team"), of) for name, of in seen.by_team.items()),
        "last": _last_requests(),
    }


def _last_hour(now: datetime) -> Seen:
    found = last_hour(now)
    minutes = [now.replace(second=0, microsecond=0) - timedelta(minutes=ago) for ago in range(MINUTES - 1, -1, -1)]
    note = "" if found.whole else gettext("Of the newest {count} requests, since {time}; there were more in this hour.")
    return Seen(
        labels=[(minute, f"{timezone.localtime(minute):%H:%M}") for minute in minutes],
        by_time=_by(found.by_minute, 0),
        by_model=_by(found.by_minute, 1),
        by_team=_by(found.by_minute, 2),
        note=note.format(count=f"{MAX_REQUESTS:,}", time=f"{timezone.localtime(found.since):%H:%M:%S}"),
    )


def _last_day(now: datetime) -> Seen:
    """This hour, which has only begun, and the 24 before it."""
    period = Period.around(now - timedelta(hours=_HOURS), now + timedelta(microseconds=1), now)
    hours = [period.until - timedelta(hours=ago) for ago in range(_HOURS + 1, 0, -1)]
    return _of_rollups(period, "hour", [(hour_name(hour), f"{timezone.localtime(hour):%H:%M}") for hour in hours])


def _last_week(now: datetime) -> Seen:
    """Today and the six days before it, in UTC."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - timedelta(days=ago) for ago in range(_DAYS - 1, -1, -1)]
    period = Period.around(days[0], now + timedelta(microseconds=1), now)
    return _of_rollups(period, "day", [(f"{day:%Y-%m-%d}", f"{day:%m-%d}") for day in days], gettext("Days are in UTC."))


SPANS: Final[Mapping[str, tuple[Any, Any, Callable[[datetime], Seen]]]] = {
    "hour": (_("Last hour"), _("requests a minute"), _last_hour),
    "day": (_("Last 24 hours"), _("requests an hour"), _last_day),
    "week": (_("Last 7 days"), _("requests a day"), _last_week),
}


def _of_rollups(period: Period, by: str, labels: Sequence[tuple[Any, str]], note: str = "") -> Seen:
    rows = Rollup.objects.all()
    by_time = {moment: of for (moment,), of in sums(rows, period, (by,)).items()}
    by_model, by_team = ({name: of for (name,), of in sums(rows, period, (group,), durations=False).items()} for group in ("model", "team"))
    return Seen(labels, by_time, by_model, by_team, note)


def _by(grouped: Grouped, place: int) -> dict[Any, Sums]:
    parts: dict[Any, list[Sums]] = {}
    for group, one in grouped.items():
        parts.setdefault(group[place], []).append(one)
    return {name: total(part) for name, part in parts.items()}


def _asked(of: Sums) -> int:
    return of.counts()["requests"] + of.counts()["refused"]


def _failed(of: Sums) -> int:
    """Without those whose client left, which is nobody's error."""
    return of.counts()["errors"] + of.counts()["refused"]


def _quantiles(of: Sums, first_token: bool = False) -> dict[str, str] | None:
    half, most = (of.quantile_ms(share, first_token) for share in (0.5, 0.95))
    return None if half is None or most is None else {"half": duration(half), "most": duration(most)}


def _requests_chart(seen: Seen) -> str:
    parts = [seen.by_time.get(moment, Sums()) for moment, _ in seen.labels]
    failed = [_failed(of) for of in parts]
    answered = [_asked(of) - bad for of, bad in zip(parts, failed, strict=True)]
    datasets = [charts.bars(gettext("failed"), failed, charts.BAD), charts.bars(gettext("answered"), answered, charts.COLORS[0])]
    return json.dumps({"labels": [label for _, label in seen.labels], "datasets": datasets})


def _durations_chart(seen: Seen) -> str:
    parts = [seen.by_time.get(moment, Sums()) for moment, _ in seen.labels]
    datasets = []
    for label, share, first, color in (
        (gettext("answer, 95 % within"), 0.95, False, charts.COLORS[0]),
        (gettext("answer, half within"), 0.5, False, charts.COLORS[1]),
        (gettext("first token, half within"), 0.5, True, charts.COLORS[2]),
    ):
        found = [of.quantile_ms(share, first) for of in parts]
        datasets.append(charts.line(label, [None if ms is None else ms / 1000 for ms in found], color))
    return json.dumps({"labels": [label for _, label in seen.labels], "datasets": datasets})


def _top(named: Iterable[tuple[str, Sums]]) -> list[dict[str, Any]]:
    """Those with most requests, each with its share of the busiest one's in per cent. A model is one that vendors were really called
    for: a name that a caller made up is none."""
    found = sorted(((_asked(of), name, of) for name, of in named), key=lambda row: (-row[0], row[1]))[:_TOP]
    highest = found[0][0] if found else 0
    return [
        {
            "name": name,
            "requests": asked,
            "tokens": sum(of.tokens().values()),
            "costs": [amount(to_cents(micros), currency) for currency, micros in sorted(of.cost.items())],
            "share": round(100 * asked / (highest or 1)),
        }
        for asked, name, of in found
    ]


def _queue(now: datetime) -> dict[str, Any]:
    waiting, oldest_s = standing(now.timestamp())
    return {"waiting": waiting, "oldest": duration(round(oldest_s * 1000))}


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
