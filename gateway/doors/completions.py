"""OpenAI's older completions: passed through to vendors that have them, otherwise asked as a chat of one user message."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from typing import Annotated, Any, cast

import msgspec

from core.chat import CacheWish, ChatRequest, Dialect
from core.clock import SystemClock
from core.conversation import Conversation, Message, Text
from core.errors import InvalidRequest
from core.events import Begun, Content, Ended, RefusalDelta, Result, TextDelta
from core.usage import Usage
from gateway.doors import fields as bodies
from gateway.doors.openai_chat import error_body, stream_error
from gateway.doors.openai_fields import StreamOptions, foreign, hints, require_texts, reread

__all__ = ["NAME", "SCOPE", "conversation", "error_body", "parse", "stream_error", "stream_writer", "whole"]

NAME = "completions"
SCOPE = "chat"

_Count = Annotated[int, msgspec.Meta(ge=1, le=128)]
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]


class _Body(msgspec.Struct):
    """What we read or check. Everything else travels on untouched, for the vendor to judge."""

    model: bodies.ModelName
    prompt: str | Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: bodies.OutputTokensOrNone | None = None
    temperature: bodies.Temperature | None = None
    top_p: bodies.TopP | None = None
    n: _Count | None = None
    best_of: _Count | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=16)] | None = None
    seed: int | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    echo: bool | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    suffix: str | None = None
    user: str | None = None
    cache: CacheWish | None = None


_this = cast(Dialect, sys.modules[__name__])
_checked = msgspec.json.Decoder(_Body)
_encode = msgspec.json.Encoder().encode
_KNOWN = frozenset(_Body.__struct_fields__)


def parse(body: bytes) -> ChatRequest:
    """Raises InvalidRequest with the offending field in `param`."""
    checked, fields = bodies.read(body, _checked)
    bodies.drop_ours(fields)
    require_texts(checked.prompt, "prompt")
    return ChatRequest(
        dialect=_this,
        model=checked.model,
        stream=bool(checked.stream),
        wants_usage=checked.stream_options is not None and checked.stream_options.include_usage,
        max_output_tokens=checked.max_tokens,
        body_bytes=len(body),
        fields=fields,
        cache=checked.cache,
    )


def conversation(fields: Mapping[str, msgspec.Raw]) -> Conversation:
    """See `core.chat.Dialect.conversation`."""
    asked = reread(fields, _checked)
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    return Conversation(
        messages=[Message("user", [Text(_only_prompt(asked.prompt))])],
        max_output_tokens=asked.max_tokens or None,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=stop or [],
        seed=asked.seed,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        n=asked.n or 1,
        user=asked.user or "",
        foreign=[*_only_completions(asked), *foreign(fields, _KNOWN)],
        hints=[*hints(fields), *bodies.unread_below(fields, _Body)],
    )


def _only_prompt(prompt: str | list[msgspec.Raw]) -> str:
    if isinstance(prompt, list):
        if len(prompt) > 1 or not bytes(prompt[0]).startswith(b'"'):
            raise InvalidRequest(
                "Several prompts, or a prompt of token numbers, cannot be carried to the provider of this model, which has chat only; "
                "send one prompt as a string.",
                param="prompt",
            )
        return msgspec.json.decode(prompt[0], type=str)
    return prompt


def _only_completions(asked: _Body) -> list[str]:
    """What was asked for and has no meaning in a chat."""
    given = {
        "echo": asked.echo,
        "logprobs": asked.logprobs is not None,
        "suffix": asked.suffix,
        "best_of": (asked.best_of or 1) > 1,
        "max_tokens": asked.max_tokens == 0,
    }
    return [name for name, value in given.items() if value]


def whole(request: ChatRequest, result: Result) -> bytes:
    """See `core.chat.Dialect.whole`."""
    text = "".join(part.text for part in result.parts if isinstance(part, Text)) + result.refusal
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": _finish_reason(result.ended)}
    answer: dict[str, Any] = {**_head(Begun(result.id, result.model, result.created), request), "choices": [choice]}
    if result.usage is not None:
        answer["usage"] = _usage(result.usage)
    return _encode(answer)


def _head(begun: Begun, request: ChatRequest) -> dict[str, Any]:
    return {
        "id": begun.id or "cmpl-" + secrets.token_hex(12),
        "object": "text_completion",
        "created": begun.created or int(SystemClock.wall()),
        "model": begun.model or request.model,
    }


def _finish_reason(ended: Ended) -> str:
    """`tool_calls` cannot be: no tools are offered."""
    return ended.reason if ended.reason in ("length", "content_filter") else "stop"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


class _Writer:
    """Text, and nothing but text: thoughts have no place in this dialect."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._head: dict[str, Any] = {}
        self._before = self._after = b""

    def begin(self, begun: Begun) -> bytes:
        self._head = _head(begun, self._request)
        nothing_yet = b',"usage":null' if self._request.wants_usage else b""
        self._before = b"data: " + _encode(self._head)[:-1] + b',"choices":[{"text":'
        self._after = b',"index":0,"logprobs":null,"finish_reason":null}]' + nothing_yet + b"}\n\n"
        return b""

    def write(self, event: Content) -> bytes:
        if isinstance(event, TextDelta | RefusalDelta):
            return self._before + _encode(event.text) + self._after
        return b""

    def end(self, ended: Ended, usage: Usage | None) -> bytes:
        choice = {"text": "", "index": 0, "logprobs": None, "finish_reason": _finish_reason(ended)}
        last: dict[str, Any] = {**self._head, "choices": [choice]}
        if not self._request.wants_usage or usage is None:
            return b"data: " + _encode(last) + b"\n\n"
        counted = {**self._head, "choices": [], "usage": _usage(usage)}
        return b"data: " + _encode({**last, "usage": None}) + b"\n\ndata: " + _encode(counted) + b"\n\n"

    def tail(self) -> bytes:
        return b"data: [DONE]\n\n"


def stream_writer(request: ChatRequest) -> _Writer:
    """See `core.chat.Dialect.stream_writer`."""
    return _Writer(request)
