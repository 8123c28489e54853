from __future__ import annotations

from django.urls import path
from rest_framework.routers import SimpleRouter

from providers.api.views import ProviderStatusViewSet, ProviderViewSet

router = SimpleRouter(trailing_slash=False)
router.register("llm/providers", ProviderViewSet, basename="providers")
urlpatterns = [
    *router.urls,
    path("providers", ProviderStatusViewSet.as_view({"get": "list"}), name="providers-overview"),
    path("providers/status", ProviderStatusViewSet.as_view({"get": "list"}), name="provider-states"),
    path("providers/<str:name>/status", ProviderStatusViewSet.as_view({"get": "retrieve"}), name="provider-state"),
]
