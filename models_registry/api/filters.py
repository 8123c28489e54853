from __future__ import annotations

import django_filters

from models_registry.models import ExchangeRate, LLMModel, Price, Route
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
        fields = ["currency", "service_tier"]


class ExchangeRateFilters(StrictFilters):
    class Meta:
        model = ExchangeRate
        fields = ["base", "quote"]


class RouteFilters(StrictFilters):
    class Meta:
        model = Route
        fields = ["alias", "is_active"]
