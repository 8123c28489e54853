"""OpenAI's embeddings on DashScope's text-embedding service.

Facts: https://help.aliyun.com/zh/model-studio/text-embedding-synchronous-api (DashScope).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from core.chat import Answer
from core.config import ModelSpec
from core.errors import ProviderNonsense
from core.shapes import known
from core.usage import Usage
from providers.adapters.dashscope_errors import error_in_success
from providers.adapters.dashscope_usage import Count
from providers.adapters.embeddings_answer import answer_of, asked_for, leftovers_of
from providers.adapters.reading import UNREADABLE


class _Embedding(msgspec.Struct):
    text_index: int
    embedding: list[float]


class _Output(msgspec.Struct):
    embeddings: list[_Embedding]


class _Counted(msgspec.Struct):
    total_tokens: Count


class _Embedded(msgspec.Struct):
    output: _Output
    usage: Any = None


def to_wire(fields: Mapping[str, msgspec.Raw], model: ModelSpec, vendor: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body for `model`, and the names of what was dropped. Raises InvalidRequest."""
    leftovers, asked = leftovers_of(fields, model, vendor), asked_for(fields)
    parameters: dict[str, Any] = {"output_type": "dense"}
    if asked.dimensions is not None:
        parameters["dimension"] = asked.dimensions
    return {"model": model.model_id, "input": {"texts": asked.texts}, "parameters": parameters}, leftovers.names


def answer_from_wire(body: bytes, fields: Mapping[str, msgspec.Raw], model_name: str, secrets: tuple[str, ...]) -> Answer:
    """OpenAI's list of embeddings. Raises ProviderNonsense, or the error that hides in a 200."""
    try:
        content = msgspec.json.decode(body)
        if (error := error_in_success(content, secrets=secrets)) is not None:
            raise error
        found = msgspec.convert(content, _Embedded)
    except UNREADABLE as exc:
        raise ProviderNonsense("The provider's embeddings cannot be read.", detail=f"{len(body)} bytes, {type(exc).__name__}") from None
    items = sorted(found.output.embeddings, key=lambda item: item.text_index)
    if [item.text_index for item in items] != list(range(len(items))):
        raise ProviderNonsense("The provider did not give one embedding for each input.", detail="the indexes do not count from 0")
    return answer_of([item.embedding for item in items], _usage(found.usage), fields, model_name)


def _usage(content: Any) -> Usage | None:
    try:
        return Usage(input=msgspec.convert(content, _Counted).total_tokens)
    except msgspec.ValidationError:
        return None


known(_Embedded, _Counted)
