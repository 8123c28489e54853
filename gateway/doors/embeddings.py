"""OpenAI's embeddings: passed through to vendors that have them. A chat model cannot stand in."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Literal, NoReturn, cast

import msgspec

from core.chat import CacheWish, ChatRequest, Dialect, StreamWriter
from core.conversation import Conversation
from core.errors import InvalidRequest
from core.events import Result
from gateway.doors import fields as bodies
from gateway.doors.openai_chat import error_body, stream_error
from gateway.doors.openai_fields import require_texts

__all__ = ["NAME", "SCOPE", "conversation", "error_body", "parse", "stream_error", "stream_writer", "whole"]

NAME = "embeddings"
SCOPE = "embeddings"


class _Body(msgspec.Struct):
    """What we read or check. Everything else travels on untouched, for the vendor to judge."""

    model: bodies.ModelName
    input: str | Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    user: str | None = None
    stream: bool | None = None
    cache: CacheWish | None = None


_this = cast(Dialect, sys.modules[__name__])
_checked = msgspec.json.Decoder(_Body)


def parse(body: bytes) -> ChatRequest:
    """Raises InvalidRequest with the offending field in `param`."""
    checked, fields = bodies.read(body, _checked)
    bodies.drop_ours(fields)
    require_texts(checked.input, "input")
    if checked.stream:
        raise InvalidRequest("Embeddings are not streamed; leave 'stream' out.", param="stream")
    return ChatRequest(
        dialect=_this,
        model=checked.model,
        stream=False,
        wants_usage=True,
        max_output_tokens=None,
        body_bytes=len(body),
        fields=fields,
        cache=checked.cache,
    )


def conversation(fields: Mapping[str, msgspec.Raw]) -> Conversation:
    """Raises InvalidRequest, always: only a vendor with an embeddings endpoint can serve this."""
    _refuse()


def whole(request: ChatRequest, result: Result) -> bytes:
    _refuse()


def stream_writer(request: ChatRequest) -> StreamWriter:
    _refuse()


def _refuse() -> NoReturn:
    raise InvalidRequest(
        "The provider of this model offers no embeddings endpoint; ask for a model of type 'embedding' (GET /v1/models lists all).",
        param="model",
    )
