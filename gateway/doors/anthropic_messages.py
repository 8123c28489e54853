"""Anthropic's messages dialect: request bodies in, error bodies and stream ends out."""

from __future__ import annotations

import sys
from typing import Annotated, Any, cast

import msgspec

from core.chat import CacheWish, ChatRequest, Dialect
from core.errors import BudgetExhausted, GatewayError
from gateway import prompting
from gateway.doors import fields
from gateway.doors.anthropic_reading import conversation
from gateway.doors.anthropic_writing import stream_writer, whole
from models_registry.prompt_building import Said

__all__ = [
    "FIELD_NAMES",
    "FORWARDED",
    "KEEP_ALIVE",
    "NAME",
    "REQUEST_ID_HEADER",
    "SCOPE",
    "conversation",
    "error_body",
    "parse",
    "parse_to_count",
    "put_prompt",
    "speaks",
    "stream_error",
    "stream_writer",
    "whole",
]

NAME = "anthropic"
SCOPE = "chat"
# Any version is taken, and both pass to a vendor of the same dialect: a beta's fields mean nothing without its header.
FORWARDED = frozenset((b"anthropic-version", b"anthropic-beta"))
REQUEST_ID_HEADER = b"request-id"
# Anthropic's own streams have these from time to time.
KEEP_ALIVE = b'event: ping\ndata: {"type": "ping"}\n\n'
# By the names of OpenAI's chat, which adapters use in what they refuse or report.
FIELD_NAMES = {
    "filename": "title",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "reasoning_content": "thinking",
    "reasoning_effort": "output_config.effort",
    "response_format": "output_config.format",
    "stop": "stop_sequences",
    "thinking_blocks": "signature",
    "thinking_budget": "thinking.budget_tokens",
    "user": "metadata.user_id",
}

_SYSTEM_ROLES = ("system", "developer")
_MAX_MESSAGES = 10_000  # Anthropic takes ten times as many; to translate those would hold up everybody else for a second


class _Message(msgspec.Struct):
    role: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    content: str | list[msgspec.Raw]


class _Counted(msgspec.Struct, kw_only=True):
    """What we read or check. Everything else travels on untouched, for the vendor to judge."""

    model: fields.ModelName
    messages: Annotated[list[_Message], msgspec.Meta(max_length=_MAX_MESSAGES)] | msgspec.UnsetType = msgspec.UNSET
    system: str | list[msgspec.Raw] | None = None
    tools: Annotated[list[dict[str, msgspec.Raw]], msgspec.Meta(max_length=10_000)] | None = None


class _Body(_Counted, kw_only=True):
    """`max_tokens` 0 asks Anthropic to fill its cache and say nothing."""

    max_tokens: fields.OutputTokensOrNone
    stream: bool | None = None
    temperature: fields.Temperature | None = None
    top_p: fields.TopP | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stop_sequences: Annotated[list[str], msgspec.Meta(max_length=1000)] | None = None
    cache: CacheWish | None = None


_this = cast(Dialect, sys.modules[__name__])
_body = msgspec.json.Decoder(_Body)
_counted = msgspec.json.Decoder(_Counted)


def parse(body: bytes) -> ChatRequest:
    """Raises InvalidRequest with the offending field in `param`. Anthropic's streams always tell their usage."""
    checked, raw = fields.read(body, _body)
    return _request(checked, raw, len(body), stream=bool(checked.stream), max_output_tokens=checked.max_tokens or None, cache=checked.cache)


def parse_to_count(body: bytes) -> ChatRequest:
    """The body of count_tokens: a request that need not say how long its answer may be. Raises InvalidRequest."""
    checked, raw = fields.read(body, _counted)
    return _request(checked, raw, len(body), stream=False, max_output_tokens=None)


def _request(
    checked: _Counted,
    raw: dict[str, msgspec.Raw],
    body_bytes: int,
    *,
    stream: bool,
    max_output_tokens: int | None,
    cache: CacheWish | None = None,
) -> ChatRequest:
    fields.drop_ours(raw)
    template = fields.template_in(raw, checked.messages)
    return ChatRequest(
        dialect=_this,
        model=checked.model,
        stream=stream,
        wants_usage=True,
        max_output_tokens=max_output_tokens,
        body_bytes=body_bytes,
        fields=raw,
        template=template,
        cache=cache,
    )


def put_prompt(raw: dict[str, msgspec.Raw], said: list[Said | msgspec.Raw]) -> None:
    """The messages of a prompt template, before those of the body; what it says as the system stands before the body's system."""
    system = [{"type": "text", "text": each.content} for each in said if isinstance(each, Said) and each.role in _SYSTEM_ROLES]
    turns = [each for each in said if not isinstance(each, Said) or each.role not in _SYSTEM_ROLES]
    if system:
        own = msgspec.json.decode(raw["system"], type=str | list[msgspec.Raw] | None) if "system" in raw else None
        blocks: list[Any] = [{"type": "text", "text": own}] if isinstance(own, str) else own or []
        raw["system"] = msgspec.Raw(msgspec.json.encode([*system, *blocks]))
    prompting.put_before(raw, turns)


def speaks(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request to an address that two dialects share comes from a client of this one."""
    return any(name == b"anthropic-version" for name, _ in headers)


# https://platform.claude.com/docs/en/api/errors, by status; ours where Anthropic has none of its own.
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(error: GatewayError) -> bytes:
    """`details` hold what OpenAI's clients find beside the message: our stable code, and the field that is wrong."""
    kind = "billing_error" if isinstance(error, BudgetExhausted) else _TYPES.get(error.http_status, "api_error")
    value: dict[str, Any] = {"type": kind, "message": error.message, "details": {"error_code": error.code, "param": error.param}}
    return msgspec.json.encode({"type": "error", "error": value, "request_id": error.request_id or None})


def stream_error(error: GatewayError) -> bytes:
    """The last event of a stream that failed: no message_stop follows it."""
    return b"event: error\ndata: " + error_body(error) + b"\n\n"
