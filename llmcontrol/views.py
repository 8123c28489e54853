"""What belongs to no app: what this server is, its metrics, and the pages that describe its REST."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views.defaults import page_not_found
from django_prometheus.exports import ExportToDjangoView
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, NotAuthenticated, ValidationError
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gateway.config.publisher import current_version
from llmcontrol import VERSION, decrypt_health
from llmcontrol.middleware import STRICT
from monitoring import metrics


class InfoView(APIView):
    """Which server this is, and the version of its configuration."""

    permission_for = {"get": ()}

    @extend_schema(
        responses=inline_serializer(
            "Info",
            {"name": serializers.CharField(), "version": serializers.CharField(), "config_version": serializers.IntegerField()},
        )
    )
    def get(self, request: Request) -> Response:
        return Response({"name": "llmcontrol", "version": VERSION, "config_version": current_version()})


class _SecretHealth(serializers.Serializer):
    """`state`: opens, away (the service that has its key does not answer), does_not_open; `problem` says what to do."""

    kind = serializers.CharField()
    id = serializers.CharField()
    name = serializers.CharField()
    key = serializers.IntegerField(source="kek_id", allow_null=True)
    key_version = serializers.CharField(source="kek_version", allow_blank=True)
    current = serializers.BooleanField()
    state = serializers.ChoiceField(choices=["opens", "away", "does_not_open"])
    problem = serializers.CharField(allow_blank=True)


class _DecryptHealth(serializers.Serializer):
    total = serializers.IntegerField()
    by_key = serializers.DictField(child=serializers.IntegerField())
    damaged = serializers.IntegerField()
    current_key = serializers.IntegerField()
    page = serializers.IntegerField()
    pages = serializers.IntegerField()
    results = _SecretHealth(many=True)


class DecryptHealthView(APIView):
    """Does every stored secret open, and under which key? A hundred a page; no secret is in the answer."""

    permission_for = {"get": decrypt_health.PERMISSION}

    @extend_schema(responses=_DecryptHealth, parameters=[OpenApiParameter("page", int, description="From 1 on.")])
    def get(self, request: Request) -> Response:
        page = _page_asked_for(request)
        look = decrypt_health.seen_by(request.user, page)
        return Response(_DecryptHealth({**look._asdict(), "by_key": {str(key): count for key, count in look.by_key.items()}}).data)


def _page_asked_for(request: Request) -> int:
    """Raises ValidationError for a page that is none, and for every other parameter: a typo must not answer with something else."""
    unknown = set(request.query_params) - {"page"}
    if unknown:
        raise ValidationError({name: [ErrorDetail("Unknown parameter; there is page.", code="unknown")] for name in sorted(unknown)})
    page = decrypt_health.page_number(request.query_params.get("page", "1"))
    if page is None:
        raise ValidationError({"page": [ErrorDetail("Write a whole number from 1 on.", code="invalid")]})
    return page


class _PlainText(BaseRenderer):
    """Only so that a scraper's Accept header is met; the exposition writes itself."""

    media_type = "text/plain"
    format = "txt"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return str(data).encode()


@extend_schema(exclude=True)
class MetricsView(APIView):
    """The Prometheus exposition, of every worker where PROMETHEUS_MULTIPROC_DIR is set. For those who may see what all teams used:
    labels name every vendor, model and budget, so a role in a team is not enough."""

    permission_for = {"get": "monitoring.view_usagerecord"}
    renderer_classes = [JSONRenderer, _PlainText]

    def perform_content_negotiation(self, request: Request, force: bool = False) -> tuple[BaseRenderer, str]:
        return super().perform_content_negotiation(request, force=True)

    def get(self, request: Request) -> HttpResponse:
        exposition = ExportToDjangoView(request)
        exposition.content = metrics.with_aliases(exposition.content)
        return exposition


class SchemaView(SpectacularAPIView):
    """OpenAPI 3 of the control plane."""

    permission_classes = APIView.permission_classes
    permission_for = {"get": ()}


class _Page(APIView):
    """A page for people: somebody who is not logged in is sent to do so, and comes back."""

    permission_classes = APIView.permission_classes
    permission_for = {"get": ()}
    http_method_names = ["get", "head"]
    policy = STRICT

    def handle_exception(self, exc: Exception) -> Any:
        if isinstance(exc, NotAuthenticated) and "text/html" in self.request.headers.get("Accept", ""):
            return redirect_to_login(self.request.get_full_path(), reverse("admin:login"))
        return super().handle_exception(exc)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Response:
        final = super().finalize_response(request, response, *args, **kwargs)
        final.headers["Content-Security-Policy"] = self.policy
        return final


class DocsView(_Page, SpectacularSwaggerSplitView):
    """Swagger UI, its script in a file of its own: inline scripts are forbidden."""


class RedocView(_Page, SpectacularRedocView):
    """Redoc builds its search in a worker that it makes from a blob."""

    template_name = "llmcontrol/redoc.html"
    policy = f"{STRICT}; worker-src 'self' blob:"


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Under /api/ in the shape that every other error has there."""
    if not request.path_info.startswith("/api/"):
        return page_not_found(request, exception)
    error = {"code": "not_found", "detail": "There is nothing at this address.", "attr": None}
    return JsonResponse({"type": "client_error", "errors": [error]}, status=404)
