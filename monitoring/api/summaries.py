"""Two summaries for scripts and wallboards that want one answer and no query: the last 24 hours, and the metrics as JSON."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from monitoring import metrics, stats
from monitoring.api.filters import NoFilters
from monitoring.api.serializers import UsageSumSerializer
from monitoring.models import Rollup

_HOURS = 24
_TOP = 10


class _NamedSum(UsageSumSerializer):
    name = serializers.CharField()


class _Summary(serializers.Serializer):
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    totals = UsageSumSerializer()
    providers = _NamedSum(many=True, help_text=f"The {_TOP} that were asked most.")
    models = _NamedSum(many=True, help_text=f"The {_TOP} that were asked for most.")


class StatsView(GenericAPIView):
    """What the last 24 hours were like: sums of all, of each provider and of each model."""

    queryset = Rollup.objects.all()
    pagination_class = None
    permission_for = {"get": "monitoring.view_usagerecord"}
    serializer_class = _Summary
    filterset_class = NoFilters

    @extend_schema(responses=_Summary)
    def get(self, request: Request) -> Response:
        now = timezone.now()
        period = stats.Period.around(now - timedelta(hours=_HOURS), now, now)
        grouped = stats.sums(self.filter_queryset(self.get_queryset()), period, ("provider", "model"))
        body = {
            "since": period.since,
            "until": period.until,
            "totals": stats.usage_row(stats.total(grouped.values())),
            "providers": _busiest(grouped, 0),
            "models": _busiest(grouped, 1),
        }
        return Response(body)


def _busiest(grouped: stats.Grouped, place: int) -> list[dict[str, Any]]:
    """By the name at this place of the group; what no vendor was asked for has none."""
    by_name: dict[str, list[stats.Sums]] = defaultdict(list)
    for group, sums in grouped.items():
        if group[0]:
            by_name[group[place]].append(sums)
    rows = [{"name": name, **stats.usage_row(stats.total(of_name))} for name, of_name in by_name.items()]
    return sorted(rows, key=lambda row: (-row["requests"], row["name"]))[:_TOP]


class MetricsSummaryView(APIView):
    """The product's own metrics, as `/metrics` has them: by name, each with its labels and value."""

    permission_for = {"get": "monitoring.view_usagerecord"}

    @extend_schema(responses=inline_serializer("Metrics", {"metrics": serializers.DictField(child=serializers.ListField())}))
    def get(self, request: Request) -> Response:
        NoFilters(request.query_params, queryset=Rollup.objects.none()).is_valid()
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for sample in metrics.samples():
            found[sample.name].append({"labels": sample.labels, "value": sample.value})
        return Response({"metrics": found})
