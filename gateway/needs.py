"""What a model has to have for a request: tools, images, JSON. Read off the body's fields; only what looks like an image is read whole."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from core.chat import ChatRequest
from core.conversation import Image, ToolResult
from core.errors import GatewayError

_NOTHING = (b"null", b"[]", b"{}")
# As a key or a value of JSON, so never in the middle of somebody's text: there the quotes would be escaped.
_IMAGE_MARKS = (b'"image_url"', b'"input_image"', b'"image"')


class _Format(msgspec.Struct):
    type: str = ""


class _Wish(msgspec.Struct):
    format: _Format | None = None


def needs_of(request: ChatRequest) -> tuple[str, ...]:
    """Some of tools, json_schema, json, images. What cannot be read needs nothing: the vendor judges it."""
    return tuple(_needs(request))


def _needs(request: ChatRequest) -> Iterable[str]:
    fields = request.fields
    if any(name in fields and bytes(fields[name]) not in _NOTHING for name in ("tools", "functions")):
        yield "tools"
    format_ = _format_of(fields)
    if format_ in ("json_schema", "json_object"):
        yield "json_schema" if format_ == "json_schema" else "json"
    if _has_images(request):
        yield "images"


def _format_of(fields: dict[str, msgspec.Raw]) -> str:
    """Chat has `response_format`, Responses `text.format`."""
    try:
        if "response_format" in fields:
            found = msgspec.json.decode(fields["response_format"], type=_Format | None)
        elif "text" in fields:
            wish = msgspec.json.decode(fields["text"], type=_Wish | None)
            found = wish.format if wish is not None else None
        else:
            return ""
    except (msgspec.MsgspecError, RecursionError):
        return ""
    return found.type if found is not None else ""


def _has_images(request: ChatRequest) -> bool:
    bodies = [bytes(request.fields[name]) for name in ("messages", "input") if name in request.fields]
    if request.dialect.SCOPE == "embeddings" or not any(mark in body for body in bodies for mark in _IMAGE_MARKS):
        return False
    try:
        messages = request.conversation().messages
    except (GatewayError, RecursionError):
        return False
    parts = [part for message in messages for part in message.parts]
    inner = [part for result in parts if isinstance(result, ToolResult) for part in result.parts]
    return any(isinstance(part, Image) for part in (*parts, *inner))
