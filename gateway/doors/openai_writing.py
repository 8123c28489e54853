"""Answers in our own words as OpenAI's chat completions.

Beyond OpenAI's schema: `reasoning_content` for thoughts, `thinking_blocks` for those that a vendor has sealed,
`extra_content.google.thought_signature` for a sealed tool call, `native_finish_reason` where the vendor's word differs.
"""

from __future__ import annotations

import secrets
from typing import Literal

import msgspec

from core.chat import ChatRequest
from core.clock import SystemClock
from core.conversation import Reasoning, Text, ToolUse
from core.events import Begun, Content, Ended, ReasoningDelta, RefusalDelta, Result, TextDelta, ToolBegun
from core.usage import Usage

wall = SystemClock.wall
_encode = msgspec.json.Encoder().encode
_UNSET = msgspec.UNSET
_Optional = msgspec.UnsetType
_DONE = b"data: [DONE]\n\n"


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _Google(msgspec.Struct):
    thought_signature: str


class _Extra(msgspec.Struct):
    google: _Google


class _Call(msgspec.Struct):
    id: str
    function: _Function
    type: Literal["function"] = "function"
    index: int | _Optional = _UNSET
    extra_content: _Extra | _Optional = _UNSET


class _Thinking(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str


class _Redacted(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    data: str


class _Message(msgspec.Struct):
    content: str | None
    refusal: str | None
    reasoning_content: str | _Optional
    thinking_blocks: list[_Thinking | _Redacted] | _Optional
    tool_calls: list[_Call] | _Optional
    role: Literal["assistant"] = "assistant"


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str
    native_finish_reason: str | _Optional
    logprobs: None = None
    index: int = 0


class _SentDetails(msgspec.Struct):
    cached_tokens: int
    cache_write_tokens: int
    audio_tokens: int
    image_tokens: int | _Optional


class _MadeDetails(msgspec.Struct):
    reasoning_tokens: int
    audio_tokens: int
    image_tokens: int | _Optional


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _SentDetails
    completion_tokens_details: _MadeDetails


class _Completion(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[_Choice]
    usage: _Usage | _Optional
    object: Literal["chat.completion"] = "chat.completion"


def whole(request: ChatRequest, result: Result) -> bytes:
    """See `core.chat.Dialect.whole`."""
    thoughts = [part for part in result.parts if isinstance(part, Reasoning)]
    calls = [_call(part.id, part.name, part.arguments, part.signature) for part in result.parts if isinstance(part, ToolUse)]
    text = "".join(part.text for part in result.parts if isinstance(part, Text))
    message = _Message(
        content=text if text or not (calls or result.refusal) else None,
        refusal=result.refusal or None,
        reasoning_content="".join(thought.text for thought in thoughts) or _UNSET,
        thinking_blocks=[_sealed(thought) for thought in thoughts if thought.signature or thought.redacted] or _UNSET,
        tool_calls=calls or _UNSET,
    )
    completion = _Completion(
        id=result.id or _made_id(),
        created=result.created or int(wall()),
        model=result.model or request.model,
        choices=[_Choice(message, result.ended.reason, _native(result.ended))],
        usage=_UNSET if result.usage is None else _counted(result.usage),
    )
    return _encode(completion)


def stream_writer(request: ChatRequest) -> _Writer:
    """See `core.chat.Dialect.stream_writer`."""
    return _Writer(request)


class _Writer:
    """A chunk is a prefix that is the same for all, what is new, and a suffix."""

    def __init__(self, request: ChatRequest) -> None:
        self._model = request.model
        self._wants_usage = request.wants_usage
        self._usage = b',"usage":null' if request.wants_usage else b""
        self._head = self._prefix = self._suffix = b""
        self._thought = ""

    def begin(self, begun: Begun) -> bytes:
        created = begun.created or int(wall())
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            _encode(begun.id or _made_id()),
            created,
            _encode(begun.model or self._model),
        )
        self._prefix = self._head + b'{"index":0,"delta":{'
        self._suffix = b'},"logprobs":null,"finish_reason":null}]' + self._usage + b"}\n\n"
        return self._chunk(b'"role":"assistant","content":""')

    def write(self, event: Content) -> bytes:
        if isinstance(event, TextDelta):
            self._thought = ""
            return self._chunk(b'"content":' + _encode(event.text))
        if isinstance(event, ReasoningDelta):
            return self._reasoning(event)
        if isinstance(event, ToolBegun):
            self._thought = ""
            call = _call(event.id, event.name, "", event.signature)
            call.index = event.position
            return self._chunk(b'"tool_calls":[' + _encode(call) + b"]")
        if isinstance(event, RefusalDelta):
            return self._chunk(b'"refusal":' + _encode(event.text))
        arguments = _encode(event.arguments)
        return self._chunk(b'"tool_calls":[{"index":%d,"function":{"arguments":%b}}]' % (event.position, arguments))

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        """A sealed thought is given whole once more, as the one piece that the client must send back."""
        fields: list[bytes] = []
        if event.text:
            self._thought += event.text
            fields.append(b'"reasoning_content":' + _encode(event.text))
        if event.signature or event.redacted:
            sealed = _sealed(Reasoning(self._thought, event.signature, event.redacted))
            self._thought = ""
            fields.append(b'"thinking_blocks":[' + _encode(sealed) + b"]")
        return self._chunk(b",".join(fields)) if fields else b""

    def end(self, ended: Ended, usage: Usage | None) -> bytes:
        native = _native(ended)
        said = b"" if native is _UNSET else b',"native_finish_reason":' + _encode(native)
        last = self._prefix + b'},"logprobs":null,"finish_reason":' + _encode(ended.reason) + said + b"}]" + self._usage + b"}\n\n"
        if not self._wants_usage or usage is None:
            return last
        return last + self._head + b'],"usage":' + _encode(_counted(usage)) + b"}\n\n"

    def tail(self) -> bytes:
        return _DONE

    def _chunk(self, delta: bytes) -> bytes:
        return self._prefix + delta + self._suffix


def _call(call_id: str, name: str, arguments: str, signature: str) -> _Call:
    call = _Call(call_id, _Function(name, arguments))
    if signature:
        call.extra_content = _Extra(_Google(signature))
    return call


def _sealed(thought: Reasoning) -> _Thinking | _Redacted:
    return _Redacted(thought.redacted) if thought.redacted else _Thinking(thought.text, thought.signature)


def _native(ended: Ended) -> str | _Optional:
    return ended.native if ended.native and ended.native != ended.reason else _UNSET


def _counted(usage: Usage) -> _Usage:
    return _Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        _SentDetails(usage.cached_input, usage.cache_write + usage.cache_write_1h, usage.input_audio, usage.input_image or _UNSET),
        _MadeDetails(usage.reasoning, usage.output_audio, usage.output_image or _UNSET),
    )


def _made_id() -> str:
    return "chatcmpl-" + secrets.token_hex(12)
