"""Filters of REST lists. A parameter that no filter knows is refused: a typo must not answer with every row."""

from __future__ import annotations

import uuid
from typing import Any

import django_filters
from django.db.models import QuerySet
from rest_framework.exceptions import ErrorDetail, ValidationError

from monitoring.models import RequestLog, UsageRecord
from monitoring.stats import GROUPS

_OF_PAGING = {"cursor", "page_size"}


class StrictFilters(django_filters.FilterSet):
    def is_valid(self) -> bool:
        unknown = sorted(set(self.data) - set(self.filters) - _OF_PAGING)
        if unknown:
            known = ", ".join(sorted({*self.filters, *_OF_PAGING}))
            raise ValidationError({name: [ErrorDetail(f"Unknown parameter; there are {known}.", code="unknown")] for name in unknown})
        return bool(super().is_valid())


class NoFilters(StrictFilters):
    """For lists that are short, or are read whole."""


class IdOrName(django_filters.CharFilter):
    """An id where the text is one, else a name; both exactly."""

    def filter(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        if not value:
            return queryset
        try:
            return queryset.filter(**{f"{self.field_name}_id": str(uuid.UUID(value))})
        except ValueError:
            return queryset.filter(**{f"{self.field_name}_name": value})


class _Log(StrictFilters):
    since = django_filters.IsoDateTimeFilter(field_name="started_at", lookup_expr="gte", help_text="From this moment on, ISO 8601.")
    until = django_filters.IsoDateTimeFilter(field_name="started_at", lookup_expr="lt", help_text="Up to, not including, this moment.")
    team = IdOrName(field_name="team", help_text="Id or name.")
    key = IdOrName(field_name="key", help_text="Id or name.")
    model = django_filters.CharFilter(field_name="alias", help_text="The alias that was asked for.")
    request_id = django_filters.CharFilter()


class UsageFilters(_Log):
    provider = IdOrName(field_name="provider", help_text="Id or name.")
    status = django_filters.ChoiceFilter(choices=UsageRecord.Status.choices)

    class Meta:
        model = UsageRecord
        fields: list[str] = []


class StatsFilters(UsageFilters):
    group_by = django_filters.CharFilter(method="ignore", help_text=f"Comma list of {', '.join(GROUPS)}.")

    def ignore(self, queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        """Says how rows are summed, not which."""
        return queryset


class RequestFilters(_Log):
    provider = django_filters.CharFilter(field_name="provider_name", help_text="Name.")
    status = django_filters.NumberFilter(field_name="status_code", min_value=100, max_value=599, help_text="What the client got, e.g. 429.")

    class Meta:
        model = RequestLog
        fields: list[str] = []
