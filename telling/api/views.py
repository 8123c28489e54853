"""Webhooks over REST: what was sent, what was not, and the secrets that they are signed with."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import APIException
from rest_framework.mixins import CreateModelMixin, DestroyModelMixin, ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet, ReadOnlyModelViewSet

from access.models import PersonalToken
from telling import services, tickets
from telling.api.filters import WebhookFilters, WebhookSecretFilters
from telling.api.serializers import (
    NewWebhookSecretSerializer,
    TicketSerializer,
    WebhookSecretSerializer,
    WebhookSerializer,
    WholeWebhookSerializer,
)
from telling.models import Webhook, WebhookSecret


class WebhookViewSet(ReadOnlyModelViewSet):
    """What is to be told to the `callback_url` of tasks, newest first; `?status=dead` are the dead letters."""

    queryset = Webhook.objects.select_related("task")
    serializer_class = WebhookSerializer
    filterset_class = WebhookFilters
    keyset = "-created_at"
    permission_for = {"replay": "telling.replay_webhook"}

    @extend_schema(responses=WholeWebhookSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(WholeWebhookSerializer(self.get_object()).data)

    @extend_schema(request=None, responses=WebhookSerializer)
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: str) -> Response:
        """A dead letter is sent again, with the same webhook-id and all of its tries. 409 for any other."""
        webhook = self.get_object()
        try:
            services.replay(webhook)
        except services.NotDead as refused:
            conflict = APIException(refused.message, code=refused.code)
            conflict.status_code = refused.http_status
            raise conflict from None
        return Response(self.get_serializer(webhook).data)


class WebhookSecretViewSet(CreateModelMixin, ListModelMixin, RetrieveModelMixin, DestroyModelMixin, GenericViewSet):
    """Secrets of Standard Webhooks, one for each team. Making another one rotates it: for a while both sign."""

    queryset = WebhookSecret.objects.select_related("team")
    serializer_class = WebhookSecretSerializer
    filterset_class = WebhookSecretFilters
    keyset = "-created_at"

    @extend_schema(responses={201: NewWebhookSecretSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        serializer = NewWebhookSecretSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=201, headers={"Cache-Control": "no-store"})

    def perform_destroy(self, instance: WebhookSecret) -> None:
        """Retired, not removed: it signs nothing from now on."""
        services.retire_secret(instance)


class WsTicketView(APIView):
    """Opens one socket `/ws`, once, for whoever is logged in."""

    permission_for = {"post": ()}

    @extend_schema(request=None, responses={201: TicketSerializer})
    def post(self, request: Request) -> Response:
        token = request.auth if isinstance(request.auth, PersonalToken) else None
        session_key = "" if token is not None else request.session.session_key or ""
        ticket = tickets.make(request.user, token=token, session_key=session_key)
        return Response({"ticket": ticket, "expires_in": tickets.TTL_S}, status=201, headers={"Cache-Control": "no-store"})
