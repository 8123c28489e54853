"""OpenAI's embeddings where the vendor's wire is its own: what a client asks for, and the answer as OpenAI spells it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from core.chat import Answer
from core.config import ModelSpec
from core.conversation import Conversation
from core.errors import InvalidRequest, ProviderNonsense
from core.usage import Usage
from providers.adapters.openai_compatible import OUR_FIELDS
from providers.adapters.reading import UNREADABLE, packed
from providers.adapters.translated import Leftovers

_KNOWN = frozenset({"model", "input", "dimensions", "encoding_format", "user", "stream", *OUR_FIELDS})
_NOTHING = (b"null", b"false")


class Asked(msgspec.Struct, frozen=True):
    """`dimensions` None = not said."""

    texts: list[str]
    dimensions: int | None
    as_base64: bool


class _Item(msgspec.Struct):
    embedding: list[float] | str
    index: int
    object: Literal["embedding"] = "embedding"


def leftovers_of(fields: Mapping[str, msgspec.Raw], model: ModelSpec, vendor: str) -> Leftovers:
    """What of `fields` no such wire can carry. Raises InvalidRequest, unless the model's row drops it."""
    given = [name for name, value in fields.items() if bytes(value) not in _NOTHING]
    foreign = [name for name in given if name not in _KNOWN]
    return Leftovers(Conversation([], foreign=foreign, hints=["user"] if "user" in given else []), model, vendor)


def asked_for(fields: Mapping[str, msgspec.Raw]) -> Asked:
    """Raises InvalidRequest naming the field."""
    texts = _field(fields, "input", str | list[str], "a text or a list of texts: the provider of this model takes no token numbers")
    texts = [texts] if isinstance(texts, str) else texts
    if not texts:
        raise InvalidRequest("input must hold at least one text.", param="input")
    dimensions = _field(fields, "dimensions", int | None, "a whole number")
    encoding = _field(fields, "encoding_format", Literal["float", "base64"] | None, "float or base64")
    return Asked(texts, dimensions, encoding == "base64")


def answer_of(vectors: list[list[float]], usage: Usage | None, fields: Mapping[str, msgspec.Raw], model_name: str) -> Answer:
    """OpenAI's list of embeddings, one for each input in its order. Raises ProviderNonsense where they are not.

    Where the vendor counts no tokens, `usage` of the answer is None, and the body, whose schema wants it, says 0.
    """
    asked = asked_for(fields)
    if len(vectors) != len(asked.texts) or not all(vectors):
        raise ProviderNonsense("The provider did not give one embedding for each input.", detail=f"{len(vectors)} embeddings")
    try:
        data = [_Item(packed(vector) if asked.as_base64 else vector, index) for index, vector in enumerate(vectors)]
    except (OverflowError, struct.error) as exc:
        raise ProviderNonsense("The provider's embeddings cannot be read.", detail=type(exc).__name__) from None
    tokens = usage.input if usage is not None else 0
    counts = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = msgspec.json.encode({"object": "list", "data": data, "model": model_name, "usage": counts})
    return Answer(body, usage, "stop", 0)


def _field(fields: Mapping[str, msgspec.Raw], name: str, form: Any, must_be: str) -> Any:
    try:
        return msgspec.json.decode(fields.get(name, b"null"), type=form)
    except UNREADABLE:
        raise InvalidRequest(f"{name} must be {must_be}.", param=name) from None
