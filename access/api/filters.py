from __future__ import annotations

import django_filters

from access.models import ApiKey, Budget, Grant, TeamMember
from monitoring.api.filters import StrictFilters


class ApiKeyFilters(StrictFilters):
    team = django_filters.UUIDFilter(field_name="team_id")
    revoked = django_filters.BooleanFilter(field_name="revoked_at", lookup_expr="isnull", exclude=True)

    class Meta:
        model = ApiKey
        fields: list[str] = []


class BudgetFilters(StrictFilters):
    team = django_filters.UUIDFilter(field_name="team_id")
    key = django_filters.UUIDFilter(field_name="key_id")
    provider = django_filters.UUIDFilter(field_name="provider_id")
    user = django_filters.CharFilter(field_name="user")

    class Meta:
        model = Budget
        fields: list[str] = []


class MemberFilters(StrictFilters):
    team = django_filters.UUIDFilter(field_name="team_id")
    user = django_filters.CharFilter(field_name="user__username")

    class Meta:
        model = TeamMember
        fields = ["role"]


class GrantFilters(StrictFilters):
    team = django_filters.UUIDFilter(field_name="team_id")
    user = django_filters.CharFilter(field_name="user__username")
    provider = django_filters.UUIDFilter(field_name="provider_id")
    model = django_filters.UUIDFilter(field_name="model_id")
    route = django_filters.UUIDFilter(field_name="route_id")
    prompt = django_filters.UUIDFilter(field_name="prompt_id")

    class Meta:
        model = Grant
        fields: list[str] = []
