from __future__ import annotations

from monitoring.api.filters import StrictFilters
from providers.models import Provider


class ProviderFilters(StrictFilters):
    class Meta:
        model = Provider
        fields = ["name", "provider_type", "is_active"]
