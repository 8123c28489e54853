"""POST /api/generate: a prompt, as a text or by a template, and one text back. The simplest dialect there is.

It is always translated, so any chat model answers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, cast

import msgspec

from core.chat import CacheWish, ChatRequest, Dialect
from core.config import CallerSpec
from core.conversation import Conversation, Message, Text
from core.errors import InvalidRequest
from core.events import Begun, Content, Ended, RefusalDelta, Result, TextDelta
from core.usage import Usage
from gateway.doors import fields as bodies
from gateway.doors import openai_messages
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
    prompt: Annotated[str, msgspec.Meta(min_length=1)] | dict[str, msgspec.Raw]
    model: bodies.ModelName | None = None
    max_tokens: bodies.OutputTokens | None = None
    temperature: bodies.Temperature | None = None
    stream: bool | None = None
    cache: CacheWish | None = None
    task_type: str | None = None
    models: list[str] | None = None


class _Filled(msgspec.Struct):
    """What a body is once a prompt template has been put into it."""

    messages: list[openai_messages.Message]
    max_tokens: int | None = None
    temperature: float | None = None


_this = cast(Dialect, sys.modules[__name__])
_checked = msgspec.json.Decoder(_Body)
_filled = msgspec.json.Decoder(_Filled)
_encode = msgspec.json.Encoder().encode


class GenerateDoor(GenerationDoor):
    """Fills in what the body does not name: the model, and the operator's defaults."""

    def __init__(self, gateway: Gateway, *, max_tokens: int = 0, temperature: float | None = None) -> None:
        """`max_tokens` 0, `temperature` None: as the vendor has it."""
        super().__init__(gateway, cast(DoorDialect, _this))
        given = {"max_tokens": max_tokens or None, "temperature": temperature}
        self._defaults = {name: msgspec.Raw(_encode(value)) for name, value in given.items() if value is not None}
        self._max_tokens = max_tokens or None

    def read(self, body: bytes, scope: Scope, view: View, caller: CallerSpec) -> ChatRequest:
        request = parse(body)
        if not request.model:
            request.model = AUTO if "task_type" in request.fields else default_alias(view, caller)
        request.fields = {**self._defaults, **request.fields}
        request.max_output_tokens = request.max_output_tokens or self._max_tokens
        return request


def parse(body: bytes) -> ChatRequest:
    """`model` is "" where the body names none. Raises InvalidRequest with the offending field in `param`."""
    asked, fields = bodies.read(body, _checked)
    for name in fields:
        if name not in _Body.__struct_fields__:
            raise InvalidRequest(f"{name!r} is not known here; this endpoint takes {', '.join(_Body.__struct_fields__)}.", param=name[:100])
    template = fields.pop("prompt") if isinstance(asked.prompt, dict) else None
    return ChatRequest(
        dialect=_this,
        model=asked.model or "",
        stream=bool(asked.stream),
        wants_usage=False,
        max_output_tokens=asked.max_tokens,
        body_bytes=len(body),
        fields=fields,
        template=template,
        cache=asked.cache,
    )


def conversation(fields: Mapping[str, msgspec.Raw]) -> Conversation:
    """See `core.chat.Dialect.conversation`."""
    if "messages" in fields:
        filled = reread(fields, _filled)
        messages = openai_messages.read(filled.messages)
        return Conversation(messages, max_output_tokens=filled.max_tokens, temperature=filled.temperature)
    asked = reread(fields, _checked)
    assert isinstance(asked.prompt, str)
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
