"""Filters for tables that only grow: none of them looks through the table to find out what may be chosen."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_time
from django.utils.translation import gettext_lazy as _
from unfold.contrib.filters.admin import RangeDateTimeFilter, TextFilter

from monitoring.hours import reckonable, within

_SPANS = {
    "15m": (_("Last 15 minutes"), timedelta(minutes=15)),
    "1h": (_("Last hour"), timedelta(hours=1)),
    "24h": (_("Last 24 hours"), timedelta(hours=24)),
    "7d": (_("Last 7 days"), timedelta(days=7)),
    "30d": (_("Last 30 days"), timedelta(days=30)),
}
_OUTCOMES = {
    "ok": (_("Answered"), Q(status_code__lt=400)),
    "refused": (_("Refused (4xx)"), Q(status_code__gte=400, status_code__lt=500) & ~Q(status_code__in=(429, 499))),
    "limited": (_("Limited (429)"), Q(status_code=429)),
    "left": (_("Client left (499)"), Q(status_code=499)),
    "failed": (_("Failed (5xx)"), Q(status_code__gte=500)),
}


class Since(admin.SimpleListFilter):
    """Quick spans, up to now."""

    title = _("time")
    parameter_name = "since"
    column = "started_at"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, str(label)) for value, (label, _span) in _SPANS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in _SPANS:
            return queryset
        return _between(queryset, self.column, timezone.now() - _SPANS[str(self.value())][1], None)


class Between(RangeDateTimeFilter):
    """From one moment to another, in the site's time zone; a day without a time means its first or last moment."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        edges: dict[str, datetime] = {}
        for edge, missing_time in (("from", time.min), ("to", time.max)):
            day, clock = (self.used_parameters.get(f"{self.parameter_name}_{edge}_{part}") or "" for part in (0, 1))
            if not day and not clock:
                continue
            moment = _moment(day, clock, missing_time)
            if moment is None:
                messages.warning(request, f"“{day} {clock}” is not a date and time such as 2026-01-31 13:45, so it was left out.")
                continue
            edges[edge] = moment
        until = edges["to"] + timedelta(microseconds=1) if "to" in edges else None  # that moment too
        return _between(queryset, self.parameter_name or "", edges.get("from"), until) if edges else queryset


def _between(rows: QuerySet[Any], column: str, since: datetime | None, until: datetime | None) -> QuerySet[Any]:
    """From `since` on and before `until`. The ledger knows which ids an hour has; other tables are small, or have an index."""
    if column == "started_at":
        return within(rows, since, until)
    bounds = {f"{column}__gte": since, f"{column}__lt": until}
    return rows.filter(**{bound: moment for bound, moment in bounds.items() if moment is not None})


def _moment(day: str, clock: str, missing_time: time) -> datetime | None:
    try:
        date, at = parse_date(day), parse_time(clock) if clock else missing_time
    except ValueError:
        return None
    return reckonable(timezone.make_aware(datetime.combine(date, at))) if date and at else None


class Outcome(admin.SimpleListFilter):
    title = _("outcome")
    parameter_name = "outcome"
    choices_offered: ClassVar = [(value, label) for value, (label, _rows) in _OUTCOMES.items()]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, str(label)) for value, label in self.choices_offered]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(_OUTCOMES[str(self.value())][1]) if self.value() in _OUTCOMES else queryset


class Named(TextFilter):
    """Rows whose column is exactly what was typed."""

    column: ClassVar[str]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        text = str(self.value() or "").strip()
        # Not empty, said once more: the indexes of what few rows have hold only those.
        return queryset.filter(**{self.column: text, f"{self.column}__gt": ""}) if text else queryset


class TeamNamed(Named):
    title, parameter_name, column = _("team"), "team", "team_name"


class KeyNamed(Named):
    title, parameter_name, column = _("key"), "key", "key_name"


class ModelNamed(Named):
    title, parameter_name, column = _("model"), "model", "alias"


class ProviderNamed(Named):
    title, parameter_name, column = _("provider"), "provider", "provider_name"


class UserNamed(Named):
    title, parameter_name, column = _("user"), "user", "end_user"


class Tagged(Named):
    title, parameter_name, column = _("tag"), "tag", "tag"


class PromptNamed(Named):
    title, parameter_name, column = _("prompt"), "prompt", "prompt_name"


class StatusCode(TextFilter):
    title, parameter_name = _("status code"), "code"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        text = str(self.value() or "").strip()
        if not text:
            return queryset
        if not (text.isascii() and text.isdecimal() and len(text) == 3):
            messages.warning(request, f"“{text}” is not an HTTP status code such as 429, so it was left out.")
            return queryset
        return queryset.filter(status_code=int(text))
