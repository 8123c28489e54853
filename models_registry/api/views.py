"""Models and prices over REST."""

from __future__ import annotations

import uuid

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ErrorDetail, PermissionDenied, ValidationError
from rest_framework.mixins import CreateModelMixin, ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet, ModelViewSet

from core.errors import GatewayError
from core.secrets import CannotOpen
from models_registry import services
from models_registry.api.filters import ExchangeRateFilters, LLMModelFilters, PriceFilters, RouteFilters
from models_registry.api.serializers import (
    ExchangeRateSerializer,
    LLMModelSerializer,
    PriceSerializer,
    RouteSerializer,
    SyncDiffSerializer,
    SyncRequestSerializer,
)
from models_registry.models import ExchangeRate, LLMModel, Price, Route
from monitoring.api.bodies import in_body_words
from providers.models import Provider


class LLMModelViewSet(ModelViewSet):
    """What callers may ask for. Several models of one alias are tried in order of `priority`."""

    queryset = LLMModel.objects.all()
    serializer_class = LLMModelSerializer
    filterset_class = LLMModelFilters
    keyset = "alias"


class RouteViewSet(ModelViewSet):
    """Names that callers use for a chain of models. A route comes before a model of the same name.

    The models of `targets` are tried in the order of `strategy`: `priority` (as listed), `weighted`, `cost`, `speed`, `quality` or
    `least_busy`; then `fallbacks`, as listed; then those of `degrade_to`, also where no more retries are left, and
    then `fixed_answer` is given, which calls no vendor and costs nothing. Such an answer has the header `x-llm-degraded: 1`.
    """

    queryset = Route.objects.all()
    serializer_class = RouteSerializer
    filterset_class = RouteFilters
    keyset = "alias"


class PriceViewSet(CreateModelMixin, ListModelMixin, RetrieveModelMixin, GenericViewSet):
    """Prices, newest first. None is ever edited or removed: a new one ends the one before it."""

    queryset = Price.objects.all()
    serializer_class = PriceSerializer
    filterset_class = PriceFilters
    keyset = "-created_at"


class ExchangeRateViewSet(CreateModelMixin, ListModelMixin, RetrieveModelMixin, GenericViewSet):
    """Exchange rates, newest first. None is ever edited or removed: a later one takes its place."""

    queryset = ExchangeRate.objects.all()
    serializer_class = ExchangeRateSerializer
    filterset_class = ExchangeRateFilters
    keyset = "-created_at"


class SyncModelsView(APIView):
    """Compares a provider's models with the vendor's list; `{"apply": true}` takes the difference over.

    `proposals` are what an offline catalogue knows of the models; they are taken only with `accept_proposals`, and only where
    a model has nothing of its own. 502 where the vendor does not answer as it should; nothing is changed then.
    """

    permission_for = {"post": ("providers.sync_provider", "models_registry.add_llmmodel", "models_registry.change_llmmodel")}

    @extend_schema(request=SyncRequestSerializer, responses=SyncDiffSerializer)
    def post(self, request: Request, provider_id: uuid.UUID) -> Response:
        provider = get_object_or_404(Provider, pk=provider_id)
        wanted = SyncRequestSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        accept = wanted.validated_data["accept_proposals"]
        if accept and not request.user.has_perm("models_registry.add_price"):
            raise PermissionDenied("You may sync models, but not take proposals: they may hold prices.")
        try:
            with in_body_words():
                difference = services.sync_models(provider, wanted.validated_data["apply"], accept)
        except GatewayError as error:
            # Not an exception of ours, so it is answered and not raised: nothing here needs to be reported as a crash.
            failed = {"code": error.code, "detail": error.message, "attr": None}
            return Response({"type": "server_error", "errors": [failed]}, status=502)
        except CannotOpen as error:
            raise ValidationError({"config.api_key": [ErrorDetail(str(error), code="cannot_open")]}) from error
        return Response(SyncDiffSerializer(difference).data)
