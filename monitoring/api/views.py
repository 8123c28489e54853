"""The ledger, read only."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from monitoring.api.filters import RequestFilters, StatsFilters, UsageFilters
from monitoring.api.serializers import RequestLogSerializer, UsageRecordSerializer, UsageStatsSerializer
from monitoring.models import RequestLog, UsageRecord
from monitoring.stats import GROUPS, TooManyRows, usage_stats


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


class UsageStatsView(GenericAPIView):
    """Requests, errors, tokens and cost, summed by `group_by`; days are in UTC."""

    queryset = UsageRecord.objects.all()
    serializer_class = UsageStatsSerializer
    filterset_class = StatsFilters
    pagination_class = None
    permission_for = {"get": "monitoring.view_usagerecord"}

    @extend_schema(responses=UsageStatsSerializer)
    def get(self, request: Request) -> Response:
        group_by = list(filter(None, request.query_params.get("group_by", "").split(",")))
        if set(group_by) - set(GROUPS) or len(set(group_by)) < len(group_by):
            raise _bad_group(f"Write a comma list of {', '.join(GROUPS)}, each at most once.")
        try:
            return Response(usage_stats(self.filter_queryset(self.get_queryset()), group_by))
        except TooManyRows as error:
            raise _bad_group(str(error)) from error


def _bad_group(text: str) -> ValidationError:
    return ValidationError({"group_by": [ErrorDetail(text, code="invalid")]})
