from __future__ import annotations

from django.urls import path

from monitoring.api.views import RequestLogViewSet, UsageRecordViewSet

urlpatterns = [
    path("requests", RequestLogViewSet.as_view({"get": "list"}), name="requests"),
    path("requests/<str:request_id>", RequestLogViewSet.as_view({"get": "retrieve"}), name="request"),
    path("usage/records", UsageRecordViewSet.as_view({"get": "list"}), name="usage-records"),
]
