"""Anthropic's streamed answers: one reading for both ways through, strict and lenient as that of whole answers.

Source: https://docs.anthropic.com/en/docs/build-with-claude/streaming and the types of the official SDK.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from core.errors import ProviderNonsense
from core.events import (
    Begun,
    ChatEvent,
    Counted,
    Ended,
    Miscounted,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolBegun,
    ToolDelta,
    counted,
    said_bytes,
)
from providers.adapters.anthropic_answer import Block, Message, Stop, arguments_of, call_of, ended_by, read_usage, refusal_of
from providers.adapters.anthropic_errors import error_inside
from providers.adapters.reading import UNREADABLE
from providers.adapters.relay import Relay
from providers.adapters.sse import frame
from providers.adapters.translated import require_calls

_DELTAS = frozenset({"text_delta", "thinking_delta", "input_json_delta", "signature_delta"})


class _Delta(Stop):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None


class Event(msgspec.Struct):
    """Any event of a stream; what it holds depends on `type`."""

    type: str
    index: int = -1
    message: Message | None = None
    content_block: Block | None = None
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


class _Open(msgspec.Struct):
    """A block that has begun and not ended: `position` of a tool call, -1 for what is none."""

    block: Block
    position: int = -1
    argued: bool = False


_decode = msgspec.json.Decoder(Event).decode


def decoded(event: bytes) -> Event:
    """One event's data. Raises ProviderNonsense."""
    try:
        if not event.isascii():
            event.decode()  # skipped parts of JSON are not checked for UTF-8
        return _decode(event)
    except msgspec.ValidationError as exc:
        raise _no_part(str(exc)) from None
    except UNREADABLE as exc:
        raise ProviderNonsense("The provider's stream holds an event that is not JSON.", detail=type(exc).__name__) from None


def _no_part(detail: str) -> ProviderNonsense:
    return ProviderNonsense("The provider's stream holds an event that is no part of a chat answer.", detail=detail[:200])


class AnthropicWireStream:
    """See `translated.WireStream`. `secrets` are masked in error messages.

    Usage is told once the vendor has counted the answer: a stream that is cut before has no count of its output.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self.done = False
        self._secrets = secrets
        self._begun = Begun()
        self._started = False
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._usage: dict[str, Any] = {}
        self._stop = Stop()

    def read(self, event: bytes) -> Sequence[ChatEvent]:
        """See `translated.WireStream.read`."""
        return self.tell(decoded(event))

    def tell(self, event: Event) -> Sequence[ChatEvent]:
        """What a decoded event says. Raises as `read`."""
        match event.type:
            case "content_block_delta":
                return self._add(event)
            case "content_block_start":
                return self._open_block(event)
            case "content_block_stop":
                return self._close_block(self._open.pop(event.index, None))
            case "message_start":
                return self._begin(event)
            case "message_delta":
                return self._wind_up(event)
            case "message_stop":
                return self._end()
            case "error":
                raise error_inside(event.error, secrets=self._secrets)
        return ()

    @property
    def stop_reason(self) -> str:
        return self._stop.stop_reason or ""

    def finish(self) -> None:
        """See `translated.WireStream.finish`. Without message_stop no answer is whole."""
        raise ProviderNonsense("The provider's stream ended in the middle of the answer.")

    def _begin(self, event: Event) -> Sequence[ChatEvent]:
        message = event.message
        if message is None:
            raise _no_part("message_start without a message")
        self._started = True
        self._note_usage(message.usage)
        self._begun = Begun(message.id or "", message.model or "")
        return (self._begun,)

    def _open_block(self, event: Event) -> Sequence[ChatEvent]:
        block = event.content_block
        if block is None or not self._started:
            raise _no_part("content_block_start without a block, or before message_start")
        opened = self._open[event.index] = _Open(block)
        match block.type:
            case "text" if block.text:
                return (TextDelta(block.text),)
            case "thinking" if block.thinking:
                return (ReasoningDelta(block.thinking),)
            case "redacted_thinking" if isinstance(block.data, str):
                return (ReasoningDelta(redacted=block.data),)
            case "tool_use":
                opened.position = self._calls
                self._calls += 1
                return (ToolBegun(opened.position, *call_of(block, self._begun.id, opened.position)),)
        return ()

    def _add(self, event: Event) -> Sequence[ChatEvent]:
        delta, opened = event.delta, self._open.get(event.index)
        if delta is None or opened is None:
            raise _no_part("content_block_delta without a delta, or outside a block")
        kind = delta.type
        if kind == "text_delta" and delta.text is not None:
            return (TextDelta(delta.text),) if delta.text else ()
        if kind == "input_json_delta" and delta.partial_json is not None:
            if opened.position < 0 or not delta.partial_json:  # of a tool that runs at the vendor, or nothing yet
                return ()
            opened.argued = True
            return (ToolDelta(opened.position, delta.partial_json),)
        if kind == "thinking_delta" and delta.thinking is not None:
            return (ReasoningDelta(delta.thinking),) if delta.thinking else ()
        if kind == "signature_delta" and delta.signature is not None:
            opened.block.signature = delta.signature
        elif kind in _DELTAS or not kind:
            raise _no_part(f"{kind or 'a delta'} without its content")
        return ()

    def _close_block(self, opened: _Open | None) -> Sequence[ChatEvent]:
        if opened is None:
            return ()
        if opened.position >= 0 and not opened.argued:
            return (ToolDelta(opened.position, arguments_of(opened.block)),)
        if opened.block.type == "thinking" and opened.block.signature:
            return (ReasoningDelta(signature=opened.block.signature),)
        return ()

    def _wind_up(self, event: Event) -> Sequence[ChatEvent]:
        delta = event.delta
        if delta is None or not self._started:
            raise _no_part("message_delta without a delta, or before message_start")
        said: list[ChatEvent] = []
        if delta.stop_reason:
            self._stop = delta
            if refusal := refusal_of(delta):
                said.append(RefusalDelta(refusal))
        if self._note_usage(event.usage):
            said.append(counted(read_usage(self._usage), self._usage))
        return said

    def _end(self) -> Sequence[ChatEvent]:
        if not self._stop.stop_reason:
            self.finish()
        said = [event for opened in self._open.values() for event in self._close_block(opened)]
        self.done = True
        return [*said, ended_by(self._stop, calls=self._calls > 0)]

    def _note_usage(self, usage: Any) -> bool:
        """The counts of one event, each over the same of an earlier one: they are totals, never added up."""
        if not isinstance(usage, dict):
            return False
        self._usage.update({name: value for name, value in usage.items() if value is not None})
        return True


class AnthropicStreamReader(Relay):
    """A `base.StreamReader` for a client of the same dialect: every event is read as `AnthropicWireStream` does, and passed on.

    Each goes out under the `event:` name that its data gives, because Anthropic's SDKs skip events without one.
    """

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self._wire = AnthropicWireStream(secrets)

    def finish(self) -> bytes:
        """See `base.StreamReader.finish`."""
        self._wire.finish()
        return b""

    def _read_all(self, events: list[bytes], pieces: list[bytes]) -> None:
        for event in events:
            known = decoded(event)
            for said in self._wire.tell(known):
                self._note(said)
            if self._wire.done:
                if not self.content_started:
                    require_calls(self._wire.stop_reason)
                self.done, self.tail = True, _named(known.type, event)
                return
            pieces.append(_named(known.type, event))

    def _note(self, said: ChatEvent) -> None:
        if isinstance(said, Counted):
            self.usage = said.usage
        elif isinstance(said, Miscounted):
            self.refused_counts = said.said
        elif isinstance(said, Ended):
            self.finish_reason = said.reason
        elif not isinstance(said, Begun):
            self._hear(said_bytes(said))


def _named(kind: str, event: bytes) -> bytes:
    if not kind.isprintable():
        raise _no_part("a type that is no name")
    return b"event: %b\n%b" % (kind.encode(), frame(event))
