from __future__ import annotations

from django.urls import path
from rest_framework.routers import SimpleRouter

from models_registry.api.prompts import PromptViewSet
from models_registry.api.views import ExchangeRateViewSet, LLMModelViewSet, PriceViewSet, RouteViewSet, SyncModelsView

router = SimpleRouter(trailing_slash=False)
router.register("llm/models", LLMModelViewSet, basename="models")
router.register("llm/routes", RouteViewSet, basename="routes")
router.register("llm/prompts", PromptViewSet, basename="prompts")
router.register("llm/prices", PriceViewSet, basename="prices")
router.register("llm/exchange-rates", ExchangeRateViewSet, basename="exchange-rates")
urlpatterns = [*router.urls, path("llm/providers/<uuid:provider_id>/sync-models", SyncModelsView.as_view(), name="sync-models")]
