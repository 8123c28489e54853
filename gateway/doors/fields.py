"""Request bodies, checked: JSON in, a typed struct of what we read and the raw fields that travel on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import inspect

from core.errors import InvalidRequest

T = TypeVar("T")

# What bodies of several dialects are checked for alike.
MAX_OUTPUT_TOKENS = 10_000_000
ModelName = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
OutputTokens = Annotated[int, msgspec.Meta(ge=1, le=MAX_OUTPUT_TOKENS)]
OutputTokensOrNone = Annotated[int, msgspec.Meta(ge=0, le=MAX_OUTPUT_TOKENS)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
TopP = Annotated[float, msgspec.Meta(ge=0, le=1)]

_AT = re.compile(r" - at `\$\.?(.*?)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_TOO_DEEP = "The JSON of the body is nested too deeply."
_MAX_FIELDS = 1000
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read(body: bytes, decoder: msgspec.json.Decoder[T]) -> tuple[T, dict[str, msgspec.Raw]]:
    """The struct of `decoder`, and each field of the top level as sent. Raises InvalidRequest, the offending field in `param`."""
    try:
        if not body.isascii():
            body.decode()  # the decoder skips values that travel on, and would let broken UTF-8 through to the vendor
        checked, fields = decoder.decode(body), _fields.decode(body)
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.") from None
    except msgspec.ValidationError as exc:
        raise invalid(str(exc)) from None
    except msgspec.DecodeError as exc:
        raise InvalidRequest(f"The body is not valid JSON: {exc}.") from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None
    if len(fields) > _MAX_FIELDS:
        raise InvalidRequest(f"The body has {len(fields)} fields; at most {_MAX_FIELDS} are read.")
    return checked, fields


def invalid(message: str) -> InvalidRequest:
    """msgspec's sentence, with the path that it names moved to `param`."""
    at, missing = _AT.search(message), _MISSING.search(message)
    path = at.group(1) if at else ""
    if missing:
        path = f"{path}.{missing.group(1)}" if path else missing.group(1)
    text = _AT.sub("", message)
    return InvalidRequest(f"{path}: {text}." if path else f"{text}.", param=path or None)


def drop_ours(fields: dict[str, msgspec.Raw]) -> None:
    """Takes out `cache`, which is ours and was read: no vendor is to judge it."""
    fields.pop("cache", None)


def template_in(fields: dict[str, msgspec.Raw], messages: object) -> msgspec.Raw | None:
    """What the body says of a prompt template, taken out of `fields`. Raises InvalidRequest where there are no messages either."""
    template = fields.pop("prompt", None)
    if template is not None and bytes(template) == b"null":
        template = None
    if not messages and template is None:
        missing = messages is msgspec.UNSET
        raise invalid("Object missing required field `messages`" if missing else "Expected `array` of length >= 1 - at `$.messages`")
    return template


def unread_below(fields: Mapping[str, msgspec.Raw], struct: type, skip: Collection[str] = ()) -> list[str]:
    """Keys below the top level that say something and that no struct knows by which a body is read as `struct`.

    Each by its own name, as it comes. The fields of the top level are the dialect's to sort; `skip` names those to pass
    by: left out altogether, or looked through by the dialect.
    """
    inner = [(name, held) for name, held in _known(struct).items() if held is not None and name in fields and name not in skip]
    return [key for name, held in inner for key in unread(decoded(fields[name]), held)]


def decoded(value: msgspec.Raw) -> Any:
    """Raises InvalidRequest: what could be skipped once may be too deep for where we stand now."""
    try:
        return msgspec.json.decode(value)
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None


def unread(value: Any, struct: type) -> Iterator[str]:
    """The same of a decoded value, which is a `struct` or a list of them."""
    if isinstance(value, list):
        for item in value:
            yield from unread(item, struct)
    elif isinstance(value, dict):
        known = _known(struct)
        for key, inner in value.items():
            held = known.get(key)
            if held is not None:
                yield from unread(inner, held)
            elif inner and key not in known:
                yield key


@cache
def _known(struct: type) -> dict[str, type | None]:
    """Field → the struct that it holds, by itself or in a list; None where what it holds is not ours to know."""
    described = inspect.type_info(struct)
    assert isinstance(described, inspect.StructType)
    return {field.encode_name: _held(field.type) for field in described.fields}


def _held(kind: inspect.Type) -> type | None:
    if isinstance(kind, inspect.StructType):
        return kind.cls
    if isinstance(kind, inspect.ListType):
        return _held(kind.item_type)
    if isinstance(kind, inspect.UnionType):
        return next((held for held in map(_held, kind.types) if held is not None), None)
    return None
