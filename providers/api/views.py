"""Vendors over REST: the same services as the admin."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet, ModelViewSet

from monitoring.api.bodies import Strict, in_body_words
from monitoring.api.filters import NoFilters
from providers import services, states
from providers.api.filters import ProviderFilters
from providers.api.serializers import (
    ConnectionReportSerializer,
    KeyChangeSerializer,
    KeyDetailSerializer,
    KeySerializer,
    NewKeySerializer,
    ProviderSerializer,
    ProviderStatusSerializer,
    SecretSerializer,
    TestRequestSerializer,
)
from providers.models import Provider, ProviderKey

_KEY_ID = OpenApiParameter("key_id", {"type": "string", "format": "uuid"}, OpenApiParameter.PATH)


class ProviderViewSet(ModelViewSet):
    """Vendors and their credentials. Secrets go in and never come out; deleting a provider deletes its models."""

    queryset = Provider.objects.prefetch_related("keys")
    serializer_class = ProviderSerializer
    filterset_class = ProviderFilters
    keyset = "name"
    permission_for = {
        "test": "providers.test_provider",
        "disable": "providers.change_provider",
        "reset_breaker": "providers.change_provider",
        "change_key": "providers.change_providerkey",
        "add_key": "providers.add_providerkey",
        "rotate_key": "providers.rotate_providerkey",
        "delete_key": "providers.delete_providerkey",
    }

    @extend_schema(request=TestRequestSerializer, responses=ConnectionReportSerializer)
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        """Ten short, real calls of the vendor, of at most a minute together. 200 also where they fail: see `ok` and each check.

        They cost a few hundred tokens. What was found is kept at the model, as `tested`, and in its `capabilities`.
        """
        provider, values = self.get_object(), self._valid(TestRequestSerializer)
        with in_body_words():
            report = services.test_connection(provider, values["model"])
        return Response(ConnectionReportSerializer(report).data)

    @extend_schema(request=None, responses=ProviderSerializer)
    @action(detail=True, methods=["post"])
    def disable(self, request: Request, pk: str) -> Response:
        """No request goes there from now on."""
        provider = self.get_object()
        services.disable_provider(provider)
        return Response(self.get_serializer(provider).data)

    @extend_schema(request=None, responses=ProviderSerializer)
    @action(detail=True, methods=["post"], url_path="reset-breaker")
    def reset_breaker(self, request: Request, pk: str) -> Response:
        """Closes every breaker of this provider and ends its keys' rests, in every process within two seconds."""
        provider = self.get_object()
        services.reset_breaker(provider)
        return Response(self.get_serializer(provider).data)

    @extend_schema(request=NewKeySerializer, responses={201: KeySerializer})
    @action(detail=True, methods=["post"], url_path="keys")
    def add_key(self, request: Request, pk: str) -> Response:
        """One more key beside those that are there."""
        provider, values = self.get_object(), self._valid(NewKeySerializer)
        with in_body_words():
            key = services.add_key(provider, values["api_key"], values["name"])
        return Response(KeySerializer(key).data, status=201)

    @extend_schema(request=SecretSerializer, responses=KeySerializer, parameters=[_KEY_ID])
    @action(detail=True, methods=["post"], url_path="keys/(?P<key_id>[^/]+)/rotate")
    def rotate_key(self, request: Request, pk: str, key_id: str) -> Response:
        """Replaces the secret of one key."""
        key = self._key(self.get_object(), key_id)
        values = self._valid(SecretSerializer)
        with in_body_words():
            services.rotate_key(key, values["api_key"])
        return Response(KeySerializer(key).data)

    @extend_schema(request=None, responses={204: None}, parameters=[_KEY_ID])
    @action(detail=True, methods=["delete"], url_path="keys/(?P<key_id>[^/]+)")
    def delete_key(self, request: Request, pk: str, key_id: str) -> Response:
        """Removes one key; the others stay."""
        services.delete_key(self._key(self.get_object(), key_id))
        return Response(status=204)

    @extend_schema(request=KeyChangeSerializer, responses=KeyDetailSerializer, parameters=[_KEY_ID])
    @delete_key.mapping.patch
    def change_key(self, request: Request, pk: str, key_id: str) -> Response:
        """Changes one key's name or weight, or switches it on or off; its secret is rotated instead."""
        key = self._key(self.get_object(), key_id)
        values = self._valid(KeyChangeSerializer)
        with in_body_words():
            services.change_key(key, values)
        return Response(KeyDetailSerializer(key).data)

    def _valid(self, serializer_class: type[Strict]) -> dict[str, Any]:
        serializer = serializer_class(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return serializer.validated_data

    def _key(self, provider: Provider, key_id: str) -> ProviderKey:
        for key in provider.keys.all():
            if str(key.id) == key_id:
                return key
        raise Http404


class ProviderStatusViewSet(GenericViewSet):
    """The vendors as those see them who only look: what works, what rests and why, as all gateway processes together know it."""

    queryset = Provider.objects.prefetch_related("keys")
    serializer_class = ProviderStatusSerializer
    filterset_class = NoFilters
    keyset = "name"
    lookup_field = "name"

    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(self.get_serializer(states.statuses(page), many=True).data)

    def retrieve(self, request: Request, name: str) -> Response:
        return Response(self.get_serializer(states.statuses([self.get_object()])[0]).data)
