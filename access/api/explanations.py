"""GET /api/v1/requests/{id}/explain, for people and for programs with an API key of the scope `usage`."""

from __future__ import annotations

from typing import Any, cast

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings

from access.api.key_authentication import ApiKeyAuthentication, Program
from monitoring.api.serializers import ExplanationSerializer
from monitoring.api.views import RequestLogViewSet
from monitoring.explain import explanation
from monitoring.models import RequestLog


class ExplanationViewSet(RequestLogViewSet):
    """Why a request was answered by the model that answered it. It is there as soon as the request is in the log.

    People see it of the requests whose log they see, a program of its own key's.
    """

    queryset = RequestLog.objects.all()
    authentication_classes = [ApiKeyAuthentication, *cast(Any, api_settings.DEFAULT_AUTHENTICATION_CLASSES)]
    permission_for = {"explain": "monitoring.view_requestlog"}

    def get_queryset(self) -> QuerySet[RequestLog]:
        rows = super().get_queryset()
        user = self.request.user
        return rows.filter(key_id=str(user.key.pk)) if isinstance(user, Program) else rows

    @extend_schema(responses=ExplanationSerializer)
    def explain(self, request: Request, request_id: str) -> Response:
        return Response(ExplanationSerializer(explanation(self.get_object())).data)
