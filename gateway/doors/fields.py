"""Request bodies, checked: JSON in, a typed struct of what we read and the raw fields that travel on."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from core.errors import InvalidRequest

T = TypeVar("T")

_AT = re.compile(r" - at `\$\.?(.*?)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read(body: bytes, decoder: msgspec.json.Decoder[T]) -> tuple[T, dict[str, msgspec.Raw]]:
    """The struct of `decoder`, and each field of the top level as sent. Raises InvalidRequest, the offending field in `param`."""
    try:
        if not body.isascii():
            body.decode()  # the decoder skips values that travel on, and would let broken UTF-8 through to the vendor
        return decoder.decode(body), _fields.decode(body)
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.") from None
    except msgspec.ValidationError as exc:
        raise invalid(str(exc)) from None
    except msgspec.DecodeError as exc:
        raise InvalidRequest(f"The body is not valid JSON: {exc}.") from None
    except RecursionError:
        raise InvalidRequest("The JSON of the body is nested too deeply.") from None


def invalid(message: str) -> InvalidRequest:
    """msgspec's sentence, with the path that it names moved to `param`."""
    at, missing = _AT.search(message), _MISSING.search(message)
    path = at.group(1) if at else ""
    if missing:
        path = f"{path}.{missing.group(1)}" if path else missing.group(1)
    text = _AT.sub("", message)
    return InvalidRequest(f"{path}: {text}." if path else f"{text}.", param=path or None)
