from __future__ import annotations

from django.urls import path
from rest_framework.routers import SimpleRouter

from models_registry.api.views import LLMModelViewSet, PriceViewSet, SyncModelsView

router = SimpleRouter(trailing_slash=False)
router.register("llm/models", LLMModelViewSet, basename="models")
router.register("llm/prices", PriceViewSet, basename="prices")
urlpatterns = [*router.urls, path("llm/providers/<uuid:provider_id>/sync-models", SyncModelsView.as_view(), name="sync-models")]
