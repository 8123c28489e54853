"""What an adapter needs where its wire and the client's dialect differ: events in between, and a report of what is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from core.chat import Answer, ChatRequest
from core.config import ModelSpec
from core.conversation import Conversation
from core.errors import InvalidRequest, ProviderNonsense
from core.events import Begun, ChatEvent, Counted, Ended, Miscounted, Result, said_bytes
from providers.adapters.relay import Relay

# The vendors' words for an answer that ends in order to call tools.
_CALLING = frozenset({"tool_calls", "tool_use", "function_call"})


def require_calls(native: str) -> None:
    """An answer that says nothing may end so, unless its own word for the end promises calls. Raises ProviderNonsense."""
    if native in _CALLING:
        raise ProviderNonsense("The provider's answer says that it calls tools, and holds nothing.", detail=f"ended by {native}")


_NO_NAMES: Mapping[str, str] = MappingProxyType({})


class WireStream(Protocol):
    """Reads one streamed answer of one wire, strictly. One per stream."""

    done: bool
    """The wire's own end mark has come, and the answer is whole."""

    def read(self, event: bytes) -> Iterable[ChatEvent]:
        """What one SSE event's data says. Events given before a raise count as said.

        Raises ProviderNonsense for what is no part of an answer, the typed error of an error event, ProviderFault for a
        vendor that broke off.
        """
        ...

    def finish(self) -> None:
        """The vendor closed the stream without an end mark. Raises ProviderNonsense unless the answer is whole all the same."""
        ...


class TranslatedReader(Relay):
    """A `base.StreamReader` for any wire and any client dialect: SSE → `wire` → events → the dialect's writer."""

    def __init__(self, wire: WireStream, request: ChatRequest) -> None:
        super().__init__()
        self._wire = wire
        self._writer = request.dialect.stream_writer(request)
        self._begun = False
        self._ended: Ended | None = None

    def finish(self) -> bytes:
        """See `base.StreamReader.finish`."""
        self._wire.finish()
        return self._close()

    def _read_all(self, events: list[bytes], pieces: list[bytes]) -> None:
        for event in events:
            for said in self._wire.read(event):
                if piece := self._write(said):
                    pieces.append(piece)
            if self._wire.done:
                pieces.append(self._close())
                return

    def _write(self, said: ChatEvent) -> bytes:
        if isinstance(said, Counted):
            self.usage = said.usage
            return b""
        if isinstance(said, Miscounted):
            self.refused_counts = said.said
            return b""
        if isinstance(said, Ended):
            self._ended, self.finish_reason = said, said.reason
            return b""
        if isinstance(said, Begun):
            return b"" if self._begun else self._begin(said)
        opening = b"" if self._begun else self._begin(Begun())
        self._hear(said_bytes(said))
        return opening + self._writer.write(said)

    def _begin(self, begun: Begun) -> bytes:
        self._begun = True
        return self._writer.begin(begun)

    def _close(self) -> bytes:
        assert self._ended is not None, "a wire that is done has said how it ended"
        if not self.content_started:
            require_calls(self._ended.native)
        self.done = True
        opening = b"" if self._begun else self._begin(Begun())
        closing = self._writer.end(self._ended, self.usage)
        self.tail = self._writer.tail()
        return opening + closing


def translated_answer(request: ChatRequest, result: Result) -> Answer:
    """`result` as the client's dialect spells it. Raises ProviderNonsense for calls that were lost on the way."""
    if not result.parts and not result.refusal:
        require_calls(result.ended.native)
    return Answer(request.dialect.whole(request, result), result.usage, result.ended.reason, result.output_bytes, result.refused_counts)


def own_names(request: ChatRequest) -> Mapping[str, str]:
    """What the client calls the fields that wires name as OpenAI's chat does, where it calls them otherwise."""
    names: Mapping[str, str] = getattr(request.dialect, "FIELD_NAMES", _NO_NAMES)
    return names


class Leftovers:
    """Gathers what a wire cannot carry. It is refused by name, or dropped and reported where the model's row says so.

    `hints` of a conversation change no answer: they are always dropped, and reported.
    """

    def __init__(self, conversation: Conversation, model: ModelSpec, vendor: str, own_names: Mapping[str, str] = _NO_NAMES) -> None:
        """`vendor` is the label that a refusal names, `own_names` what that function gives. Raises InvalidRequest for a foreign field."""
        self._drop = model.drop_params
        self._own_names = own_names
        self._vendor = vendor
        self._names: list[str] = []
        for name in conversation.foreign:
            self.refuse(name)
        for name in conversation.hints:
            self.drop(name)

    @property
    def names(self) -> tuple[str, ...]:
        """What was dropped, as `WireCall.dropped` wants it."""
        return tuple(self._names)

    def refuse(self, name: str) -> None:
        """The wire has no place for the client's `name`, and leaving it out may change the answer. Raises InvalidRequest."""
        if not self._drop:
            name = self._own_names.get(name, name)
            raise InvalidRequest(
                f"{name!r} cannot be carried to {self._vendor}, which serves this model: leave it out, "
                "or let an administrator set the model to drop what its vendor cannot take.",
                param=name,
            )
        self.drop(name)

    def drop(self, name: str) -> None:
        name = self._own_names.get(name, name)
        if name not in self._names:
            self._names.append(name)
