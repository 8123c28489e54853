"""Every URL of the control plane. Data-plane URLs never come here: see routing.py."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from llmcontrol.views import DocsView, InfoView, MetricsView, RedocView, SchemaView

handler404 = "llmcontrol.views.not_found"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/", include("providers.api.urls")),
    path("api/v1/", include("models_registry.api.urls")),
    path("api/v1/", include("access.api.urls")),
    path("api/v1/", include("monitoring.api.urls")),
    path("api/info", InfoView.as_view(), name="info"),
    path("api/schema/", SchemaView.as_view(), name="schema"),
    path("docs", DocsView.as_view(), name="docs"),
    path("redoc", RedocView.as_view(), name="redoc"),
    path("metrics", MetricsView.as_view(), name="metrics"),
]
