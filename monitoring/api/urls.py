from __future__ import annotations

from django.urls import path

from monitoring.api.audit import AuditEventViewSet
from monitoring.api.summaries import MetricsSummaryView, StatsView
from monitoring.api.views import RequestLogViewSet, UsageCostsView, UsageRecordViewSet, UsageStatsView

urlpatterns = [
    path("audit", AuditEventViewSet.as_view({"get": "list"}), name="audit"),
    path("audit/<int:pk>", AuditEventViewSet.as_view({"get": "retrieve"}), name="audit-event"),
    path("requests", RequestLogViewSet.as_view({"get": "list"}), name="requests"),
    path("requests/<str:request_id>", RequestLogViewSet.as_view({"get": "retrieve"}), name="request"),
    path("stats", StatsView.as_view(), name="stats"),
    path("metrics", MetricsSummaryView.as_view(), name="metrics-summary"),
    path("requests/<str:request_id>/bodies", RequestLogViewSet.as_view({"get": "bodies"}), name="request-bodies"),
    path("usage/records", UsageRecordViewSet.as_view({"get": "list"}), name="usage-records"),
    path("usage/stats", UsageStatsView.as_view(), name="usage-stats"),
    path("usage/costs", UsageCostsView.as_view(), name="usage-costs"),
]
