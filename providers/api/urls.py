from __future__ import annotations

from django.urls import path
from rest_framework.routers import SimpleRouter

from providers.api.views import ProviderStateViewSet, ProviderViewSet

router = SimpleRouter(trailing_slash=False)
router.register("llm/providers", ProviderViewSet, basename="providers")
urlpatterns = [*router.urls, path("providers", ProviderStateViewSet.as_view({"get": "list"}), name="provider-states")]
