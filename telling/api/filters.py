from __future__ import annotations

import django_filters

from monitoring.api.filters import StrictFilters
from telling.models import Webhook, WebhookSecret


class WebhookFilters(StrictFilters):
    team = django_filters.UUIDFilter(field_name="team_id")
    task = django_filters.UUIDFilter(field_name="task_id", help_text="The id behind task_.")

    class Meta:
        model = Webhook
        fields = ["status", "event_type"]


class WebhookSecretFilters(StrictFilters):
    team = django_filters.UUIDFilter(field_name="team_id")

    class Meta:
        model = WebhookSecret
        fields: list[str] = []
