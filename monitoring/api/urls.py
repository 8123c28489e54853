from __future__ import annotations

from django.urls import path

from monitoring.api.views import RequestLogViewSet, UsageRecordViewSet, UsageStatsView

urlpatterns = [
    path("requests", RequestLogViewSet.as_view({"get": "list"}), name="requests"),
    path("requests/<str:request_id>", RequestLogViewSet.as_view({"get": "retrieve"}), name="request"),
    path("usage/records", UsageRecordViewSet.as_view({"get": "list"}), name="usage-records"),
    path("usage/stats", UsageStatsView.as_view(), name="usage-stats"),
]
