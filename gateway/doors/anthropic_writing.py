"""Answers in our own words as Anthropic's messages."""

from __future__ import annotations

import re
import secrets
from typing import Any

import msgspec

from core.chat import ChatRequest, StreamWriter
from core.conversation import Reasoning, Text, ToolUse
from core.errors import ProviderNonsense
from core.events import Begun, Content, Ended, ReasoningDelta, RefusalDelta, Result, TextDelta, ToolBegun, ToolDelta, said_bytes
from core.usage import Usage
from gateway.doors.anthropic_marks import TOOL_SEAL, shown_id

# https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
_STOP_REASONS = frozenset(("end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "model_context_window_exceeded"))
_OURS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_BYTES_PER_TOKEN = 4
# Of one answer's tool arguments, and of what waits behind an unfinished call.
_MAX_KEPT_BYTES = 32 * 2**20
_NO_ID_CHARACTERS = re.compile(r"[^a-zA-Z0-9_-]+")

_encode = msgspec.json.Encoder().encode
_decode_arguments = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_START = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":'
_TEXT_DELTA = _DELTA + b'"text_delta","text":%b}}\n\n'
_THINKING_DELTA = _DELTA + b'"thinking_delta","thinking":%b}}\n\n'
_SIGNATURE_DELTA = _DELTA + b'"signature_delta","signature":%b}}\n\n'
_INPUT_DELTA = _DELTA + b'"input_json_delta","partial_json":%b}}\n\n'
_MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_TEXT_BLOCK = b'{"type":"text","text":""}'
_THINKING_BLOCK = b'{"type":"thinking","thinking":"","signature":""}'


def whole(request: ChatRequest, result: Result) -> bytes:
    """See `core.chat.Dialect.whole`. Raises ProviderNonsense for a tool call whose arguments are no JSON object."""
    content = [block for part in result.parts for block in _blocks(part, result.ended)]
    if result.refusal:
        content.append({"type": "text", "text": result.refusal})
    message = {
        "id": _message_id(result.id),
        "type": "message",
        "role": "assistant",
        "model": result.model or request.model,
        "content": content,
        "stop_reason": _stop_reason(result.ended, refused=bool(result.refusal)),
        "stop_sequence": result.ended.stop_sequence or None,
        "usage": _usage(result.usage or _estimated(request, result.output_bytes)),
    }
    return _encode(message)


def _blocks(part: Text | Reasoning | ToolUse, ended: Ended) -> list[dict[str, Any]]:
    """Empty ones are left out: Anthropic would refuse them on the next turn."""
    if isinstance(part, Text):
        return [{"type": "text", "text": part.text}] if part.text else []
    if isinstance(part, Reasoning):
        if part.redacted:
            return [{"type": "redacted_thinking", "data": part.redacted}]
        return [{"type": "thinking", "thinking": part.text, "signature": part.signature}] if part.text or part.signature else []
    seal = {"type": "thinking", "thinking": "", "signature": TOOL_SEAL + part.signature}
    call = {"type": "tool_use", "id": shown_id(part.id), "name": part.name, "input": _input(part.arguments, ended)}
    return [seal, call] if part.signature else [call]


def _input(arguments: str, ended: Ended) -> msgspec.Raw:
    """Anthropic's clients get an object, not its text. A call that the token limit cut off has none: its stop reason says so."""
    if _is_object(arguments):
        return msgspec.Raw(arguments.encode())
    if arguments and ended.reason != "length":
        raise _broken_arguments(arguments)
    return msgspec.Raw(b"{}")


def _is_object(arguments: str) -> bool:
    try:
        _decode_arguments(arguments)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _broken_arguments(arguments: str) -> ProviderNonsense:
    return ProviderNonsense("The provider's tool call has arguments that are not a JSON object.", detail=f"{len(arguments)} characters")


def _message_id(vendors: str) -> str:
    """Clients tell messages apart by it, so one is made up where the vendor has none."""
    if vendors.startswith("msg_"):
        return vendors
    return "msg_" + (_NO_ID_CHARACTERS.sub("_", vendors)[:100] or secrets.token_hex(12))


def _stop_reason(ended: Ended, *, refused: bool) -> str:
    if ended.reason == "tool_calls":  # whatever the vendor's word: an agent stops at any other
        return "tool_use"
    if ended.native in _STOP_REASONS:
        return ended.native
    if refused:
        return "refusal"
    if ended.reason == "stop" and ended.stop_sequence:
        return "stop_sequence"
    return _OURS.get(ended.reason, "end_turn")


def _estimated(request: ChatRequest, output_bytes: int) -> Usage:
    """Clients need numbers where the vendor gave none; the usage record counts alike, and says that it is a guess."""
    output = (output_bytes + _BYTES_PER_TOKEN - 1) // _BYTES_PER_TOKEN
    return Usage(input=request.estimated_input_tokens, output=output, estimated=True)


def _usage(usage: Usage) -> dict[str, Any]:
    """Anthropic's `input_tokens` leave both cache buckets out; its `output_tokens` hold the thoughts."""
    return {
        "input_tokens": usage.input + usage.input_audio + usage.input_image,
        "cache_creation_input_tokens": usage.cache_write + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cached_input,
        "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": usage.cache_write_1h},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def stream_writer(request: ChatRequest) -> StreamWriter:
    """See `core.chat.Dialect.stream_writer`."""
    return MessageWriter(request)


class MessageWriter:
    """See `core.chat.StreamWriter`.

    Anthropic's blocks come one after the other, while the pieces of parallel tool calls may alternate. The call that came
    first streams on; what follows it waits until the answer ends, unless its arguments were complete by then, as they
    nearly always are. So the order holds, and nothing is lost.
    """

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._index = -1  # of the last block
        self._open: type[Content] | None = None  # what the open block takes
        self._position = -1  # of the tool call whose block is open
        self._arguments: list[str] = []
        self._waiting: list[Content] = []
        self._kept_bytes = 0
        self._said_bytes = 0
        self._refused = False

    def begin(self, begun: Begun) -> bytes:
        """Its usage is an estimate: most vendors count at the end, where `message_delta` repeats the whole of it."""
        message: dict[str, Any] = {
            "id": _message_id(begun.id),
            "type": "message",
            "role": "assistant",
            "model": begun.model or self._request.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(_estimated(self._request, 0)),
        }
        return b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n' % _encode(message)

    def write(self, event: Content) -> bytes:
        """Raises ProviderNonsense where more waits than can be kept, or a call goes on that was complete."""
        self._said_bytes += said_bytes(event)
        return self._write(event) if _says_something(event) else b""

    def end(self, ended: Ended, usage: Usage | None) -> bytes:
        """Raises ProviderNonsense for a tool call whose arguments are no JSON object, unless the token limit cut them off."""
        pieces = [self._close(ended)]
        self._kept_bytes = 0  # what waited is written now, and counted again
        for event in _by_call(self._waiting):
            if self._open is ToolBegun and not isinstance(event, ToolDelta):
                pieces.append(self._close(ended))
            pieces.append(self._write(event))
        pieces.append(self._close(ended))
        delta = {"stop_reason": _stop_reason(ended, refused=self._refused), "stop_sequence": ended.stop_sequence or None}
        counted = _usage(usage or _estimated(self._request, self._said_bytes))
        data = _encode({"type": "message_delta", "delta": delta, "usage": counted})
        return b"".join((*pieces, b"event: message_delta\ndata: ", data, b"\n\n"))

    def tail(self) -> bytes:
        return _MESSAGE_STOP

    def _write(self, event: Content) -> bytes:
        match event:
            case ToolDelta():
                return self._write_arguments(event)
            case _ if self._open is ToolBegun and (self._waiting or not _is_object("".join(self._arguments))):
                return self._wait(event)
            case TextDelta() | RefusalDelta():
                self._refused = self._refused or isinstance(event, RefusalDelta)
                opening = b"" if self._open is TextDelta else self._start(TextDelta, _TEXT_BLOCK)
                return opening + _TEXT_DELTA % (self._index, _encode(event.text))
            case ReasoningDelta():
                return self._write_thought(event)
            case ToolBegun():
                return self._begin_call(event)

    def _write_arguments(self, event: ToolDelta) -> bytes:
        if self._open is ToolBegun and event.position == self._position:
            self._keep(len(event.arguments))
            self._arguments.append(event.arguments)
            return _INPUT_DELTA % (self._index, _encode(event.arguments))
        if event.position > self._position:
            return self._wait(event)
        if event.arguments.isspace():  # behind a call that was complete
            return b""
        raise _broken_arguments(event.arguments)

    def _write_thought(self, event: ReasoningDelta) -> bytes:
        """A signature ends its thought, and with it the block."""
        if event.redacted:
            block = _encode({"type": "redacted_thinking", "data": event.redacted})
            return self._start(ReasoningDelta, block) + self._close()
        piece = b"" if self._open is ReasoningDelta else self._start(ReasoningDelta, _THINKING_BLOCK)
        if event.text:
            piece += _THINKING_DELTA % (self._index, _encode(event.text))
        if event.signature:
            piece += _SIGNATURE_DELTA % (self._index, _encode(event.signature)) + self._close()
        return piece

    def _begin_call(self, event: ToolBegun) -> bytes:
        seal = b""
        if event.signature:
            seal = self._close() + self._write_thought(ReasoningDelta(signature=TOOL_SEAL + event.signature))
        block = {"type": "tool_use", "id": shown_id(event.id), "name": event.name, "input": {}}
        start = self._start(ToolBegun, _encode(block))
        self._position, self._arguments = event.position, []
        return seal + start

    def _start(self, kind: type[Content], block: bytes) -> bytes:
        closing = self._close()
        self._index += 1
        self._open = kind
        return closing + _START % (self._index, block)

    def _close(self, ended: Ended | None = None) -> bytes:
        """`ended`: nothing can follow, and arguments that are not complete never will be."""
        if self._open is None:
            return b""
        if ended is not None and self._open is ToolBegun:
            _input("".join(self._arguments), ended)
        self._open = None
        return _STOP % self._index

    def _wait(self, event: Content) -> bytes:
        self._keep(said_bytes(event))
        self._waiting.append(event)
        return b""

    def _keep(self, size: int) -> None:
        self._kept_bytes += size
        if self._kept_bytes > _MAX_KEPT_BYTES:
            raise ProviderNonsense(f"The provider's tool calls are longer than {_MAX_KEPT_BYTES} bytes.")


def _says_something(event: Content) -> bool:
    """Some vendors send empty pieces with everything: they would open blocks, which must not be empty."""
    match event:
        case ToolBegun():
            return True
        case ToolDelta():
            return bool(event.arguments)
        case ReasoningDelta():
            return bool(event.text or event.signature or event.redacted)
        case _:
            return bool(event.text)


def _by_call(events: list[Content]) -> list[Content]:
    """All that will ever be said of a call, put behind its beginning."""
    arguments: dict[int, list[str]] = {}
    for event in events:
        if type(event) is ToolDelta:
            arguments.setdefault(event.position, []).append(event.arguments)
    ordered: list[Content] = []
    for event in events:
        if type(event) is not ToolDelta:
            ordered.append(event)
        if type(event) is ToolBegun and event.position in arguments:
            ordered.append(ToolDelta(event.position, "".join(arguments[event.position])))
    return ordered
