"""OpenAI's embeddings on Google's `batchEmbedContents`. Facts: https://ai.google.dev/api/embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from core.chat import Answer
from core.config import ModelSpec
from core.errors import ProviderNonsense
from core.shapes import known
from core.usage import Usage
from providers.adapters.embeddings_answer import answer_of, asked_for, leftovers_of
from providers.adapters.gemini_errors import error_in_success
from providers.adapters.openai_usage import is_count
from providers.adapters.reading import UNREADABLE


class _Embedding(msgspec.Struct):
    values: list[float]


class _Embedded(msgspec.Struct, rename="camel"):
    embeddings: list[_Embedding]
    usage_metadata: Any = None


def to_wire(fields: Mapping[str, msgspec.Raw], model: ModelSpec, vendor: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body for `model`, and the names of what was dropped. Raises InvalidRequest."""
    leftovers, asked = leftovers_of(fields, model, vendor), asked_for(fields)
    common: dict[str, Any] = {"model": resource(model.model_id)}
    if asked.dimensions is not None:
        common["outputDimensionality"] = asked.dimensions
    requests = [{**common, "content": {"parts": [{"text": text}]}} for text in asked.texts]
    return {"requests": requests}, leftovers.names


def answer_from_wire(body: bytes, fields: Mapping[str, msgspec.Raw], model_name: str, secrets: tuple[str, ...]) -> Answer:
    """OpenAI's list of embeddings. Raises ProviderNonsense, or the error that hides in a 200. Google usually counts no tokens."""
    try:
        found = msgspec.json.decode(body, type=_Embedded)
    except UNREADABLE as exc:
        raise _hidden_error(body, secrets) or ProviderNonsense(
            "The provider's embeddings cannot be read.", detail=f"{len(body)} bytes, {type(exc).__name__}"
        ) from None
    return answer_of([item.values for item in found.embeddings], _usage(found.usage_metadata), fields, model_name)


def resource(model_id: str) -> str:
    """Google's name of a model: `models/…`, unless the id already says what it is, e.g. `tunedModels/…`."""
    return model_id if "/" in model_id else f"models/{model_id}"


def _usage(content: Any) -> Usage | None:
    tokens = content.get("promptTokenCount") if isinstance(content, dict) else None
    return Usage(input=tokens) if is_count(tokens) else None


def _hidden_error(body: bytes, secrets: tuple[str, ...]) -> Exception | None:
    try:
        return error_in_success(msgspec.json.decode(body), secrets=secrets)
    except UNREADABLE:
        return None


known(_Embedded)
