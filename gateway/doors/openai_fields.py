"""What the bodies of OpenAI's other dialects have in common: texts or tokens as input, fields that only hint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from core.errors import InvalidRequest
from gateway.doors import fields as bodies

T = TypeVar("T")
Fields = Mapping[str, msgspec.Raw]
# Fields that change cost, caching or book-keeping, and never the answer.
HINTS = frozenset(
    {
        "client_metadata",
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
    }
)
_NOTHING = (b"null", b"false")


class StreamOptions(msgspec.Struct):
    """How an answer travels. What else OpenAI has here only hints."""

    include_usage: bool = False


def reread(fields: Fields, decoder: msgspec.json.Decoder[T]) -> T:
    """The struct of `decoder` from the top level of a body. Raises InvalidRequest."""
    return bodies.read(msgspec.json.encode(fields), decoder)[0]


def foreign(fields: Fields, known: frozenset[str]) -> list[str]:
    """Fields that were given, are not `known`, and are no hints."""
    return [name for name, value in fields.items() if name not in known and name not in HINTS and bytes(value) not in _NOTHING]


def hints(fields: Fields) -> list[str]:
    """Hints that were given and ask for something."""
    return [name for name, value in fields.items() if name in HINTS and bytes(value) not in _NOTHING]


def require_texts(given: str | list[msgspec.Raw], name: str) -> None:
    """A text, several, a list of tokens, or several of those. Raises InvalidRequest naming the item that is something else."""
    if isinstance(given, str):
        return
    first = _kind(given[0])
    for position, item in enumerate(given):
        if not first or _kind(item) != first:
            at = f"{name}[{position}]"
            raise InvalidRequest(f"{at}: expected a string, or a list of token numbers, and the same throughout.", param=at)


def _kind(item: msgspec.Raw) -> str:
    head = bytes(item)[:1]
    return {b'"': "text", b"[": "tokens"}.get(head, "token" if head.isdigit() else "")
