"""The ledger, read only."""

from __future__ import annotations

from rest_framework.viewsets import ReadOnlyModelViewSet

from monitoring.api.filters import RequestFilters, UsageFilters
from monitoring.api.serializers import RequestLogSerializer, UsageRecordSerializer
from monitoring.models import RequestLog, UsageRecord


class UsageRecordViewSet(ReadOnlyModelViewSet):
    """One row for each attempt at a vendor, newest first."""

    queryset = UsageRecord.objects.all()
    serializer_class = UsageRecordSerializer
    filterset_class = UsageFilters
    keyset = "-id"


class RequestLogViewSet(ReadOnlyModelViewSet):
    """One row for each client request, newest first."""

    queryset = RequestLog.objects.all()
    serializer_class = RequestLogSerializer
    filterset_class = RequestFilters
    lookup_field = "request_id"
    keyset = "-id"
