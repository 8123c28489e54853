"""Models, each by its provider, the vendor's name for it and the name that callers use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmcontrol.portable.document import Entry
from llmcontrol.portable.kind import Serialized, found_by
from models_registry.api.serializers import LLMModelSerializer
from models_registry.models import LLMModel
from providers.models import Provider

NAMES = ("provider", "model_id", "alias")


class Models(Serialized):
    section, model, serializer = "models", LLMModel, LLMModelSerializer
    key = NAMES
    references = {"provider": Provider}

    def rows(self) -> Iterable[LLMModel]:
        return LLMModel.objects.select_related("provider")


def named(row: LLMModel) -> Entry:
    """As other entries speak of it."""
    return {"provider": row.provider.name, "model_id": row.model_id, "alias": row.alias}


def found(entry: Any) -> LLMModel:
    """Raises ValidationError."""
    said = {name: entry.get(name, "") for name in NAMES} if isinstance(entry, dict) else {"alias": entry}
    row: LLMModel = found_by("model", LLMModel, **{"provider__name" if name == "provider" else name: value for name, value in said.items()})
    return row
