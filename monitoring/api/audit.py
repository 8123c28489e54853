"""The audit trail over REST: read, filtered, paged; as JSON, or with `Accept: text/csv` or `application/x-ndjson` as a file."""

from __future__ import annotations

from typing import Any

import django_filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.viewsets import ReadOnlyModelViewSet

from monitoring import audit_export
from monitoring.api.filters import Moment, StrictFilters
from monitoring.audit_chain import Row
from monitoring.models import AuditEvent


class AuditFilters(StrictFilters):
    since = Moment(field_name="at", lookup_expr="gte", help_text="From this moment on, ISO 8601.")
    until = Moment(field_name="at", lookup_expr="lt", help_text="Up to, not including, this moment.")
    actor = django_filters.CharFilter(help_text="The name, exactly.")
    action = django_filters.ChoiceFilter(choices=AuditEvent.Action.choices)
    source = django_filters.CharFilter(help_text="admin, api, shell, command or data plane.")
    object_type = django_filters.CharFilter(help_text="E.g. providers.Provider.")
    object_id = django_filters.CharFilter()
    address = django_filters.CharFilter()
    request_id = django_filters.CharFilter()
    after = django_filters.NumberFilter(
        field_name="sequence",
        lookup_expr="gt",
        min_value=0,
        max_value=2**62,
        help_text="Rows after the one of this number; a file then begins with the oldest of them.",
    )

    class Meta:
        model = AuditEvent
        fields: list[str] = []


class AuditEventSerializer(serializers.ModelSerializer):
    changes = serializers.SerializerMethodField(help_text="Field → [before, after]. A keyed hash stands for each secret.")

    class Meta:
        model = AuditEvent
        fields = read_only_fields = Row._fields

    def get_changes(self, row: AuditEvent) -> dict[str, Any] | None:
        return row.changed


class _File(BaseRenderer):
    """Only so that the Accept header is met: the view writes the file itself. Errors are JSON all the same, and say so."""

    charset = "utf-8"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        renderer_context["response"]["Content-Type"] = JSONRenderer.media_type
        return JSONRenderer().render(data)


class _CSV(_File):
    media_type, format = audit_export.MEDIA_TYPES["csv"], "csv"


class _JSONLines(_File):
    media_type, format = audit_export.MEDIA_TYPES["jsonl"], "jsonl"


class AuditEventViewSet(ReadOnlyModelViewSet):
    """Who did what and what it changed, newest first.

    With `Accept: text/csv` or `application/x-ndjson` the answer is a file of up to 10,000 rows, for which the permission
    `monitoring.export_auditevent` is needed; where there are more, `x-next-after` says what `after` continues with.
    """

    queryset = AuditEvent.objects.all()
    serializer_class = AuditEventSerializer
    filterset_class = AuditFilters
    keyset = "-sequence"
    renderer_classes = (JSONRenderer, _CSV, _JSONLines)

    def get_renderers(self) -> list[BaseRenderer]:
        """Files are of lists."""
        return super().get_renderers() if self.action in ("list", None) else [JSONRenderer()]

    @extend_schema(responses=AuditEventSerializer(many=True))
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        kind = request.accepted_renderer.format
        if kind == "json":
            return super().list(request, *args, **kwargs)
        if not request.user.has_perm("monitoring.export_auditevent"):
            raise PermissionDenied("Taking the audit trail away as a file needs the permission monitoring.export_auditevent.")
        rows = self.filter_queryset(self.get_queryset()).order_by("sequence" if "after" in request.query_params else "-sequence")
        return audit_export.answer(rows, kind, request.query_params.urlencode())
