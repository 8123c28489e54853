"""Callers over REST."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.mixins import CreateModelMixin, DestroyModelMixin, ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet, ModelViewSet

from access import services
from access.api.budgets import BudgetSerializer, CorrectionSerializer
from access.api.filters import ApiKeyFilters, BudgetFilters, GrantFilters, MemberFilters
from access.api.serializers import ApiKeySerializer, GrantSerializer, MemberSerializer, NewApiKeySerializer, TeamSerializer
from access.budgets import correct
from access.models import ApiKey, Budget, Grant, Team, TeamMember
from monitoring.api.bodies import in_body_words
from monitoring.api.filters import NoFilters


class TeamViewSet(ModelViewSet):
    """Teams. Deleting one deletes its keys, so that they are refused from then on."""

    queryset = Team.objects.all()
    serializer_class = TeamSerializer
    filterset_class = NoFilters
    keyset = "name"


class MemberViewSet(ModelViewSet):
    """Who may do what in a team: a manager makes keys and members, a member makes keys, a viewer looks. Only `role` can be changed."""

    queryset = TeamMember.objects.select_related("team", "user")
    serializer_class = MemberSerializer
    filterset_class = MemberFilters
    keyset = "-created_at"


class GrantViewSet(CreateModelMixin, ListModelMixin, RetrieveModelMixin, DestroyModelMixin, GenericViewSet):
    """What is open to one team or person of the providers, models, routes and prompts whose `visibility` is `granted`."""

    queryset = Grant.objects.select_related("team", "user", "provider", "model", "route", "prompt")
    serializer_class = GrantSerializer
    filterset_class = GrantFilters
    keyset = "-created_at"


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


class BudgetViewSet(ModelViewSet):
    """What a team, key, user or provider may use in each period (UTC), and what is used, reserved and left of it now.

    A hard budget is never exceeded: each request reserves the most that it may use before a vendor is called, and gives back the
    rest at its end. Beyond it requests are refused with 429 `insufficient_quota`. Only `limit` and `hard` can be changed.
    """

    queryset = Budget.objects.select_related("team", "key", "provider")
    serializer_class = BudgetSerializer
    filterset_class = BudgetFilters
    keyset = "-created_at"
    permission_for = {"correct": "access.change_budget"}

    @extend_schema(request=CorrectionSerializer, responses=BudgetSerializer)
    @action(detail=True, methods=["post"])
    def correct(self, request: Request, pk: str) -> Response:
        """Adds to what is used in this period, or with a minus gives back. It is an entry of its own, and stays in the books."""
        budget = self.get_object()
        correction = CorrectionSerializer(data=request.data, context={"kind": budget.kind})
        correction.is_valid(raise_exception=True)
        with in_body_words():
            correct(budget, **correction.validated_data)
        return Response(self.get_serializer(budget).data)
