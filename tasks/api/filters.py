"""Filters of the list of tasks."""

from __future__ import annotations

import django_filters

from monitoring.api.filters import StrictFilters
from tasks.states import Priority, Status


class TaskFilters(StrictFilters):
    status = django_filters.ChoiceFilter(choices=Status.choices)
    type = django_filters.CharFilter(field_name="kind", help_text="Of the task, e.g. translation.")
    priority = django_filters.TypedChoiceFilter(
        choices=[(each.label.lower(), each.label) for each in Priority], coerce=lambda name: Priority[name.upper()]
    )
    batch = django_filters.UUIDFilter(help_text="The `batch_id` of the submission.")
