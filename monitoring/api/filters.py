"""Filters of REST lists. A parameter that no filter knows is refused: a typo must not answer with every row."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import django_filters
from django.db.models import QuerySet
from django_filters.fields import IsoDateTimeField
from rest_framework.exceptions import ErrorDetail, ValidationError

from monitoring.hours import reckonable, within
from monitoring.models import RequestLog, Rollup, UsageRecord
from monitoring.stats import DEFAULT_DAYS, GROUPS

_OF_EVERY_LIST = {"cursor", "page_size", "format"}


class StrictFilters(django_filters.FilterSet):
    def is_valid(self) -> bool:
        unknown = sorted(set(self.data) - set(self.filters) - _OF_EVERY_LIST)
        if unknown:
            known = ", ".join(sorted({*self.filters, *_OF_EVERY_LIST}))
            raise ValidationError({name: [ErrorDetail(f"Unknown parameter; there are {known}.", code="unknown")] for name in unknown})
        return bool(super().is_valid())


class NoFilters(StrictFilters):
    """For lists that are short, or are read whole."""


class _MomentField(IsoDateTimeField):
    def to_python(self, value: Any) -> datetime | None:
        moment = super().to_python(value)
        return None if moment is None else reckonable(moment)


class Moment(django_filters.IsoDateTimeFilter):
    """Any that the calendar has."""

    field_class = _MomentField


class IdOrName(django_filters.CharFilter):
    """An id where the text is one, else a name; both exactly."""

    def filter(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        if not value:
            return queryset
        try:
            return queryset.filter(**{f"{self.field_name}_id": str(uuid.UUID(value))})
        except ValueError:
            return queryset.filter(**{f"{self.field_name}_name": value})


class Label(django_filters.CharFilter):
    """The value exactly. Said twice, since an index holds only rows that have one."""

    def filter(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(**{self.field_name: value, f"{self.field_name}__gt": ""}) if value else queryset


class _Log(StrictFilters):
    since = Moment(method="ignore", help_text="From this moment on, ISO 8601.")
    until = Moment(method="ignore", help_text="Up to, not including, this moment.")
    team = IdOrName(field_name="team", help_text="Id or name.")
    key = IdOrName(field_name="key", help_text="Id or name.")
    model = django_filters.CharFilter(field_name="alias", help_text="The alias that was asked for.")
    request_id = django_filters.CharFilter()
    user = Label(field_name="end_user", help_text="Whom the request named.")
    task_type = Label(field_name="task_type")
    tag = Label(field_name="tag", help_text="What the request said it was for.")

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        asked = self.form.cleaned_data
        return within(super().filter_queryset(queryset), asked["since"], asked["until"])

    def ignore(self, queryset: QuerySet[Any], name: str, value: Any) -> QuerySet[Any]:
        """Both edges of a time are looked at together."""
        return queryset


class UsageFilters(_Log):
    provider = IdOrName(field_name="provider", help_text="Id or name.")
    status = django_filters.ChoiceFilter(choices=UsageRecord.Status.choices)
    usage_source = django_filters.ChoiceFilter(choices=UsageRecord.Source.choices, help_text="Who counted the tokens.")

    class Meta:
        model = UsageRecord
        fields: list[str] = []


class ProviderIdOrName(IdOrName):
    """Rollups of requests alone know the name only, so an id stands for the names that it had."""

    def filter(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        try:
            names = Rollup.objects.filter(provider_id=str(uuid.UUID(value))).values("provider_name")
        except ValueError:
            return super().filter(queryset, value)
        return queryset.filter(provider_name__in=names)


class StatsFilters(StrictFilters):
    """Of rollups of either kind."""

    since = Moment(method="ignore", help_text=f"From the hour of this moment on, ISO 8601; {DEFAULT_DAYS} days before `until` by default.")
    until = Moment(method="ignore", help_text="Up to the end of the hour that holds the moment before; now by default.")
    group_by = django_filters.CharFilter(method="ignore", help_text=f"Comma list of {', '.join(GROUPS)}.")
    team = IdOrName(field_name="team", help_text="Id or name.")
    key = IdOrName(field_name="key", help_text="Id or name.")
    provider = ProviderIdOrName(field_name="provider", help_text="Id or name.")
    model = django_filters.CharFilter(field_name="alias", help_text="The alias that was asked for.")
    status = django_filters.ChoiceFilter(choices=UsageRecord.Status.choices)
    streamed = django_filters.BooleanFilter(help_text="true or false.")
    user = django_filters.CharFilter(field_name="end_user", help_text="Whom requests named.")
    task_type = django_filters.CharFilter()
    tag = django_filters.CharFilter(help_text="What requests said they were for.")

    def ignore(self, queryset: QuerySet[Any], name: str, value: Any) -> QuerySet[Any]:
        """Says which time is summed and how, which is not a matter of columns."""
        return queryset


class RequestFilters(_Log):
    provider = django_filters.CharFilter(field_name="provider_name", help_text="Name.")
    status = django_filters.NumberFilter(field_name="status_code", min_value=100, max_value=599, help_text="What the client got, e.g. 429.")
    prompt = Label(field_name="prompt_name", help_text="Name of the prompt template that was filled in.")
    prompt_version = django_filters.NumberFilter(min_value=1, max_value=2_147_483_647)
    cache = django_filters.ChoiceFilter(choices=RequestLog.Cache.choices, help_text="What the cache had to do with it.")

    class Meta:
        model = RequestLog
        fields: list[str] = []
