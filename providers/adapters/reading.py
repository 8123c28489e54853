"""What the reading of every wire has in common: what is no JSON, lists of models, vectors of embeddings."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from core.errors import GatewayError, ProviderNonsense
from core.shapes import known

Listing = TypeVar("Listing")

# What msgspec raises for bytes that are no JSON of the wanted shape, no UTF-8, or nested too deeply.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def listed_models(body: bytes, listing: type[Listing], ids_of: Callable[[Listing], Iterable[str]]) -> list[str]:
    """See `Adapter.read_models`."""
    try:
        found = msgspec.json.decode(body, type=listing)
    except UNREADABLE as exc:
        raise ProviderNonsense("The provider's list of models cannot be read.", detail=str(exc)[:200]) from None
    return sorted({*ids_of(found)} - {""})


class NamedModel(msgspec.Struct):
    id: str


class ModelList(msgspec.Struct):
    """As OpenAI lists models, and Anthropic and DashScope's compatible mode."""

    data: list[NamedModel]

    def ids(self) -> Iterable[str]:
        return (model.id for model in self.data)


def not_an_answer(data: bytes, error_of: Callable[[Any], GatewayError | None], not_json: str, other: str) -> GatewayError:
    """What to raise for `data`: the error that `error_of` finds in it, else ProviderNonsense with one of the two sentences."""
    try:
        if not data.isascii():
            data.decode()  # skipped parts of JSON are not checked for UTF-8
        content = msgspec.json.decode(data)
    except UNREADABLE as exc:
        return ProviderNonsense(not_json, detail=f"{len(data)} bytes, {type(exc).__name__}")
    return error_of(content) or ProviderNonsense(other, detail=f"{len(data)} bytes")


def packed(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats in base64, which is what OpenAI means by "base64". Raises OverflowError, struct.error."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


known(ModelList)
