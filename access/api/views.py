"""Callers over REST."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ModelViewSet

from access import services
from access.api.filters import ApiKeyFilters
from access.api.serializers import ApiKeySerializer, NewApiKeySerializer, TeamSerializer
from access.models import ApiKey, Team
from monitoring.api.filters import NoFilters


class TeamViewSet(ModelViewSet):
    """Teams. Deleting one deletes its keys, so that they are refused from then on."""

    queryset = Team.objects.all()
    serializer_class = TeamSerializer
    filterset_class = NoFilters
    keyset = "name"


class ApiKeyViewSet(ModelViewSet):
    """The keys of programs. The key itself is in the answer to its creation, and never again."""

    queryset = ApiKey.objects.select_related("team")
    serializer_class = ApiKeySerializer
    filterset_class = ApiKeyFilters
    keyset = "-created_at"
    permission_for = {"revoke": "access.change_apikey"}

    @extend_schema(responses={201: NewApiKeySerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        serializer = NewApiKeySerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        serializer.save(created_by=request.user)
        return Response(serializer.data, status=201, headers={"Cache-Control": "no-store"})

    def perform_destroy(self, instance: ApiKey) -> None:
        """Revoked, not removed: what it did stays attributable."""
        services.revoke_api_key(instance)

    @extend_schema(request=None, responses=ApiKeySerializer)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:
        """For good. A second time changes nothing."""
        key = self.get_object()
        services.revoke_api_key(key)
        return Response(self.get_serializer(key).data)
