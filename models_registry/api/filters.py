from __future__ import annotations

import django_filters

from models_registry.models import LLMModel, Price
from monitoring.api.filters import StrictFilters


class LLMModelFilters(StrictFilters):
    provider = django_filters.UUIDFilter(field_name="provider_id")

    class Meta:
        model = LLMModel
        fields = ["alias", "model_id", "is_active"]


class PriceFilters(StrictFilters):
    model = django_filters.UUIDFilter(field_name="model_id")

    class Meta:
        model = Price
        fields = ["currency"]
