"""An answer once more: as it was given or, to a client that asked the same in the other form, as a stream or as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from core.chat import Answer, ChatRequest
from core.errors import GatewayError
from core.events import Begun, ChatEvent, Counted, Ended, Miscounted, Result, gathered, told
from gateway.cache import Entry
from gateway.settlement import Attempt
from providers.adapters.anthropic_answer import result_from_wire as from_anthropic
from providers.adapters.anthropic_stream import AnthropicWireStream
from providers.adapters.base import StreamReader
from providers.adapters.openai_wire import OpenAIWireStream
from providers.adapters.openai_wire import result_from_wire as from_openai
from providers.adapters.sse import SseDecoder
from providers.adapters.translated import WireStream

# Dialects that are also a vendor's: what was written in them can be read again.
_READERS: dict[str, tuple[Callable[[bytes], Result], Callable[[], WireStream]]] = {
    "openai": (from_openai, OpenAIWireStream),
    "anthropic": (from_anthropic, AnthropicWireStream),
}


class Recorded:
    """A `StreamReader` that remembers what it gave the client, up to `max_bytes`. All else is the reader's own affair."""

    def __init__(self, reader: StreamReader, max_bytes: int) -> None:
        self.__dict__.update(_reader=reader, _left=max_bytes, pieces=[])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._reader, name, value)

    def feed(self, data: bytes) -> bytes:
        return self._remember(self._reader.feed(data))

    def finish(self) -> bytes:
        return self._remember(self._reader.finish())

    @property
    def body(self) -> bytes | None:
        """None where it was too long."""
        pieces: list[bytes] = self.__dict__["pieces"]
        return b"".join(pieces) if self.__dict__["_left"] >= 0 else None

    def _remember(self, piece: bytes) -> bytes:
        kept = self.__dict__
        kept["_left"] -= len(piece)
        if kept["_left"] >= 0:
            kept["pieces"].append(piece)
        else:
            kept["pieces"].clear()
        return piece


def recorded_of(attempt: Attempt) -> tuple[bytes, bytes, Answer | StreamReader] | None:
    """(body, tail, who knows the rest) of what the client was given; None where it was too long to remember."""
    if attempt.answer is not None:
        return attempt.answer.body, b"", attempt.answer
    reader = attempt.upstream.reader
    if not isinstance(reader, Recorded) or reader.body is None:
        return None
    return reader.body, reader.tail, reader


def form_of(request: ChatRequest) -> str:
    """ "" where a whole answer can be given as a stream and the other way round; else the form that the client asks for.

    Several choices, and what only OpenAI knows, have no words of ours, and would be lost on the way.
    """
    if request.dialect.NAME in _READERS:
        try:
            conversation = request.conversation()
            if conversation.n == 1 and not conversation.foreign:
                return ""
        except GatewayError:  # the vendor may know better
            pass
    return f"stream, usage {request.wants_usage}" if request.stream else "whole"


def as_asked(entry: Entry, request: ChatRequest) -> Entry | None:
    """`entry` in the form of this request. None where it cannot be read."""
    if entry.streamed == request.stream and (not request.stream or entry.with_usage == request.wants_usage):
        return entry
    try:
        result = _result(entry, request)
        body, tail = _streamed(result, request) if request.stream else (request.dialect.whole(request, result), b"")
    except (GatewayError, ValueError, KeyError):
        return None
    return msgspec.structs.replace(entry, body=body, tail=tail)


def _result(entry: Entry, request: ChatRequest) -> Result:
    """Raises GatewayError, ValueError, KeyError."""
    whole, wire_stream = _READERS[request.dialect.NAME]
    if not entry.streamed:
        result = whole(entry.body)
    else:
        stream, events = wire_stream(), list[ChatEvent]()
        for event in SseDecoder(len(entry.body) + len(entry.tail)).feed(entry.body + entry.tail):
            events += stream.read(event)
        result = gathered(events)
    result.usage = result.usage or entry.usage
    return result


def _streamed(result: Result, request: ChatRequest) -> tuple[bytes, bytes]:
    writer = request.dialect.stream_writer(request)
    pieces: list[bytes] = []
    for event in told(result):
        if isinstance(event, Begun):
            pieces.append(writer.begin(event))
        elif not isinstance(event, Counted | Miscounted | Ended):
            pieces.append(writer.write(event))
    pieces.append(writer.end(result.ended, result.usage))
    return b"".join(pieces), writer.tail()
