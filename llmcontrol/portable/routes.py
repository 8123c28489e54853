"""Routes: names for chains of models, which they name by alias."""

from __future__ import annotations

from llmcontrol.portable.kind import Serialized
from models_registry.api.serializers import RouteSerializer
from models_registry.models import Route


class Routes(Serialized):
    section, model, serializer = "routes", Route, RouteSerializer
    key = ("alias",)
    ordered = ("weights",)
