"""Every URL of the control plane. Data-plane URLs never come here: see routing.py."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.i18n import set_language

from llmcontrol import costs, decrypt_health, playground
from llmcontrol.portable import page as configuration
from llmcontrol.portable.api import ConfigExportView, ConfigImportView
from llmcontrol.views import DecryptHealthView, DocsView, InfoView, MetricsView, RedocView, SchemaView
from monitoring import audit_admin

handler404 = "llmcontrol.views.not_found"

urlpatterns = [
    path("admin/language/", set_language, name="set_language"),
    path("admin/costs/", admin.site.admin_view(costs.page), name="costs"),
    path("admin/playground/", admin.site.admin_view(playground.page), name="playground"),
    path("admin/configuration/", admin.site.admin_view(configuration.page), name="configuration"),
    path("admin/decrypt-health/", admin.site.admin_view(decrypt_health.page), name="decrypt-health"),
    # In place of Django's own history, of every page in the admin.
    path("admin/<slug:app>/<slug:name>/<path:object_id>/history/", admin.site.admin_view(audit_admin.history), name="audit-history"),
    path("admin/", admin.site.urls),
    path("api/v1/", include("providers.api.urls")),
    path("api/v1/", include("models_registry.api.urls")),
    path("api/v1/", include("access.api.urls")),
    path("api/v1/", include("monitoring.api.urls")),
    path("api/v1/", include("tasks.api.urls")),
    path("api/v1/llm/secrets/health", DecryptHealthView.as_view(), name="secrets-health"),
    path("api/v1/", include("telling.api.urls")),
    path("api/v1/config/export", ConfigExportView.as_view(), name="config-export"),
    path("api/v1/config/import", ConfigImportView.as_view(), name="config-import"),
    path("api/info", InfoView.as_view(), name="info"),
    path("api/schema/", SchemaView.as_view(), name="schema"),
    path("docs", DocsView.as_view(), name="docs"),
    path("redoc", RedocView.as_view(), name="redoc"),
    path("metrics", MetricsView.as_view(), name="metrics"),
]
