"""OpenAI's chat dialect: request bodies in, error bodies and stream ends out."""

from __future__ import annotations

import sys
from typing import Annotated, Any, cast

import msgspec

from core.chat import CacheWish, ChatRequest, Dialect
from core.errors import GatewayError
from gateway.doors import fields as bodies
from gateway.doors.openai_fields import StreamOptions
from gateway.doors.openai_reading import conversation
from gateway.doors.openai_writing import stream_writer, whole

__all__ = ["NAME", "SCOPE", "conversation", "error_body", "error_value", "parse", "stream_error", "stream_writer", "whole"]

NAME = "openai"
SCOPE = "chat"

_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]


class _Message(msgspec.Struct):
    role: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    content: str | list[msgspec.Raw] | None = None


class _Body(msgspec.Struct):
    """What we read or check. Everything else travels on untouched, for the vendor to judge."""

    model: bodies.ModelName
    messages: Annotated[list[_Message], msgspec.Meta(max_length=2000)] | msgspec.UnsetType = msgspec.UNSET
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: bodies.OutputTokens | None = None
    max_completion_tokens: bodies.OutputTokens | None = None
    temperature: bodies.Temperature | None = None
    top_p: bodies.TopP | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=16)] | None = None
    tools: Annotated[list[dict[str, msgspec.Raw]], msgspec.Meta(max_length=1024)] | None = None
    user: str | None = None
    cache: CacheWish | None = None


_this = cast(Dialect, sys.modules[__name__])
_checked = msgspec.json.Decoder(_Body)
_true, _with_usage = msgspec.Raw(b"true"), msgspec.Raw(b'{"include_usage":true}')


def parse(body: bytes, *, force_stream: bool = False) -> ChatRequest:
    """Raises InvalidRequest with the offending field in `param`. `force_stream`: whatever the body says, stream with usage."""
    checked, fields = bodies.read(body, _checked)
    bodies.drop_ours(fields)
    template = bodies.template_in(fields, checked.messages)
    if force_stream:
        fields["stream"] = _true
        fields["stream_options"] = _with_usage
    # Which of the two counts where both are said is the vendor's choice: what is reserved must do for either.
    most = checked.max_completion_tokens
    if most is None or (checked.max_tokens is not None and checked.max_tokens > most):
        most = checked.max_tokens
    return ChatRequest(
        dialect=_this,
        model=checked.model,
        stream=force_stream or bool(checked.stream),
        wants_usage=force_stream or (checked.stream_options is not None and checked.stream_options.include_usage),
        max_output_tokens=most,
        body_bytes=len(body),
        fields=fields,
        template=template,
        cache=checked.cache,
    )


def error_value(error: GatewayError) -> dict[str, Any]:
    """All four keys, always: clients read each of them."""
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def error_body(error: GatewayError) -> bytes:
    return msgspec.json.encode({"error": error_value(error)})


def stream_error(error: GatewayError) -> bytes:
    """The last event of a stream that failed: no end mark follows it."""
    return b"data: " + error_body(error) + b"\n\n"
