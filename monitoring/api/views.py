"""The ledger, read only."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from django.utils import timezone
from django_filters.utils import translate_validation
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ErrorDetail, NotFound, ValidationError
from rest_framework.generics import GenericAPIView
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from monitoring import audit, bodies, stats
from monitoring.api.csv import CSVRenderer
from monitoring.api.filters import RequestFilters, StatsFilters, UsageFilters
from monitoring.api.serializers import (
    CostStatsSerializer,
    RequestBodiesSerializer,
    RequestLogSerializer,
    UsageRecordSerializer,
    UsageStatsSerializer,
)
from monitoring.models import AuditEvent, LabelRollup, RequestLog, Rollup, UsageRecord


class UsageRecordViewSet(ReadOnlyModelViewSet):
    """One row for each attempt at a vendor, newest first."""

    queryset = UsageRecord.objects.all()
    serializer_class = UsageRecordSerializer
    filterset_class = UsageFilters
    keyset = "-id"


class RequestLogViewSet(ReadOnlyModelViewSet):
    """One row for each client request, newest first."""

    queryset = RequestLog.objects.defer("decision")
    serializer_class = RequestLogSerializer
    filterset_class = RequestFilters
    lookup_field = "request_id"
    keyset = "-id"
    permission_for = {"bodies": "monitoring.view_requestbody"}

    @extend_schema(responses=RequestBodiesSerializer)
    def bodies(self, request: Request, request_id: str) -> Response:
        """What was asked and answered, word for word, where the API key has that kept; and the headers, without what could be a secret.
        That it was read is in the audit trail."""
        found = bodies.read(self.get_object())
        if found is None:
            raise NotFound("No bodies are kept of this request: its API key does not have them kept, or it was too long ago.")
        headers = bodies.headers_of(found.headers)
        return Response(
            {
                "request_id": found.request_id,
                "request": bodies.shown(found.request, found.request_bytes),
                "response": bodies.shown(found.response, found.response_bytes),
                "headers": bodies.as_json(headers) if headers else None,
            }
        )


class _Sums(GenericAPIView):
    """Sums by `group_by` over whole hours in UTC, or over whole days where users, task types or tags are asked for."""

    queryset = Rollup.objects.all()
    filterset_class = StatsFilters
    pagination_class = None
    renderer_classes = (JSONRenderer, CSVRenderer)
    permission_for = {"get": "monitoring.view_usagerecord"}
    with_durations = False
    needed: Collection[str] = stats.FOR_COSTS

    row: Callable[[stats.Sums], dict[str, Any]]

    def answer(self, request: Request) -> Response:
        group_by = [name for name in request.query_params.get("group_by", "").split(",") if name]
        try:
            rollups = stats.rollups_for({*group_by, *request.query_params})
            seen = self.filter_queryset(rollups)
            filters = self.filterset_class(request.query_params, queryset=rollups, request=request)
            if not filters.is_valid():
                raise translate_validation(filters.errors)
            asked = filters.form.cleaned_data
            period = stats.Period.around(asked["since"], asked["until"], timezone.now())
            if rollups.model is LabelRollup:
                period = period.whole_days()
            found = stats.sums(seen, period, group_by, self.with_durations, self.needed)
        except stats.Refused as refused:
            raise ValidationError({refused.parameter: [ErrorDetail(str(refused), code="invalid")]}) from refused
        if isinstance(request.accepted_renderer, CSVRenderer):
            sums_exported = {"what": (None, request.path), "query": (None, dict(request.query_params.lists()))}
            audit.record(AuditEvent.Action.EXPORTED, changes=sums_exported)
        rows = [{**dict(zip(group_by, group, strict=True)), **self.row(sums)} for group, sums in found.items()]
        totals = self.row(stats.total(found.values()))
        body = {
            "group_by": group_by,
            "since": period.since,
            "until": period.until,
            "rows": rows if group_by else [totals],
            "totals": totals,
        }
        return Response(body)


class UsageStatsView(_Sums):
    """Requests, errors, tokens, cost and durations, summed by `group_by`."""

    serializer_class = UsageStatsSerializer
    with_durations = True
    needed = stats.NUMBERS
    row = staticmethod(stats.usage_row)

    @extend_schema(responses=UsageStatsSerializer)
    def get(self, request: Request) -> Response:
        return self.answer(request)


class UsageCostsView(_Sums):
    """Money, summed by `group_by`; every currency by itself."""

    serializer_class = CostStatsSerializer
    row = staticmethod(stats.cost_row)

    @extend_schema(responses=CostStatsSerializer)
    def get(self, request: Request) -> Response:
        return self.answer(request)
