from __future__ import annotations

import django_filters

from access.models import ApiKey
from monitoring.api.filters import StrictFilters


class ApiKeyFilters(StrictFilters):
    team = django_filters.UUIDFilter(field_name="team_id")
    revoked = django_filters.BooleanFilter(field_name="revoked_at", lookup_expr="isnull", exclude=True)

    class Meta:
        model = ApiKey
        fields: list[str] = []
