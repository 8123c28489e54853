from __future__ import annotations

import django_filters

from monitoring.api.filters import StrictFilters
from telling.alert_models import Alert, AlertChannel, AlertRule
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


class AlertFilters(StrictFilters):
    firing = django_filters.BooleanFilter(field_name="resolved_at", lookup_expr="isnull")
    rule = django_filters.UUIDFilter(field_name="rule_id")

    class Meta:
        model = Alert
        fields = ["condition"]


class AlertRuleFilters(StrictFilters):
    class Meta:
        model = AlertRule
        fields = ["condition", "is_active"]


class AlertChannelFilters(StrictFilters):
    class Meta:
        model = AlertChannel
        fields = ["kind", "is_active"]
