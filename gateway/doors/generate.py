"""POST /api/generate: one prompt, one text. The simplest dialect there is; always translated, so any chat model answers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, cast

import msgspec

from core.chat import ChatRequest, Dialect
from core.config import CallerSpec
from core.conversation import Conversation, Message, Text
from core.errors import InvalidRequest
from core.events import Begun, Content, Ended, RefusalDelta, Result, TextDelta
from core.usage import Usage
from gateway.doors import fields as bodies
from gateway.doors.answer import DoorDialect
from gateway.doors.body import Scope
from gateway.doors.http import Gateway, GenerationDoor
from gateway.doors.openai_chat import error_body, stream_error
from gateway.doors.openai_fields import reread
from gateway.router import AUTO, View, default_alias

__all__ = ["NAME", "SCOPE", "GenerateDoor", "conversation", "error_body", "parse", "stream_error", "stream_writer", "whole"]

NAME = "generate"
SCOPE = "chat"


class _Body(msgspec.Struct):
    prompt: Annotated[str, msgspec.Meta(min_length=1)]
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=300)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    stream: bool | None = None
    task_type: str | None = None
    models: list[str] | None = None


_this = cast(Dialect, sys.modules[__name__])
_checked = msgspec.json.Decoder(_Body)
_encode = msgspec.json.Encoder().encode


class GenerateDoor(GenerationDoor):
    """Fills in the model where the body names none."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway, cast(DoorDialect, _this))

    def read(self, body: bytes, scope: Scope, view: View, caller: CallerSpec) -> ChatRequest:
        request = parse(body)
        if not request.model:
            request.model = AUTO if "task_type" in request.fields else default_alias(view, caller)
        return request


def parse(body: bytes) -> ChatRequest:
    """`model` is "" where the body names none. Raises InvalidRequest with the offending field in `param`."""
    asked, fields = bodies.read(body, _checked)
    for name in fields:
        if name not in _Body.__struct_fields__:
            raise InvalidRequest(f"{name!r} is not known here; this endpoint takes {', '.join(_Body.__struct_fields__)}.", param=name[:100])
    return ChatRequest(
        dialect=_this,
        model=asked.model or "",
        stream=bool(asked.stream),
        wants_usage=False,
        max_output_tokens=asked.max_tokens,
        body_bytes=len(body),
        fields=fields,
    )


def conversation(fields: Mapping[str, msgspec.Raw]) -> Conversation:
    """See `core.chat.Dialect.conversation`."""
    asked = reread(fields, _checked)
    return Conversation([Message("user", [Text(asked.prompt)])], max_output_tokens=asked.max_tokens, temperature=asked.temperature)


def whole(request: ChatRequest, result: Result) -> bytes:
    """See `core.chat.Dialect.whole`. `model` is the vendor's own name for it; usage is null where the vendor gave none."""
    usage = result.usage
    return _encode(
        {
            "text": "".join(part.text for part in result.parts if isinstance(part, Text)) + result.refusal,
            "model": result.model or request.model,
            "provider": request.served_by,
            "usage": usage
            and {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            },
            "finish_reason": result.ended.reason,
        }
    )


class _Writer:
    """`data: {"delta": "…"}`; spaces as the contract spells them."""

    def begin(self, begun: Begun) -> bytes:
        return b""

    def write(self, event: Content) -> bytes:
        if isinstance(event, TextDelta | RefusalDelta) and event.text:
            return b'data: {"delta": ' + _encode(event.text) + b"}\n\n"
        return b""

    def end(self, ended: Ended, usage: Usage | None) -> bytes:
        return b'data: {"delta": "", "finish_reason": ' + _encode(ended.reason) + b"}\n\n"

    def tail(self) -> bytes:
        return b"data: [DONE]\n\n"


def stream_writer(request: ChatRequest) -> _Writer:
    """See `core.chat.Dialect.stream_writer`."""
    return _Writer()
