"""What DashScope answers, streamed or whole, as events: a whole answer has the shape of one event of a stream.

Facts: https://help.aliyun.com/en/model-studio/qwen-api-via-dashscope (response object, chunk object), and recorded streams.
A finish reason of "null", a text, means that the answer goes on. There is no end mark, and errors come as events of a 200.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from core.errors import GatewayError, ProviderNonsense
from core.events import Begun, ChatEvent, Ended, ReasoningDelta, Result, TextDelta, ToolBegun, ToolDelta, counted, gathered
from providers.adapters.dashscope_errors import error_in_success
from providers.adapters.dashscope_usage import read_usage
from providers.adapters.reading import UNREADABLE, not_an_answer

_REASONS = {
    "stop": "stop", "length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter",
    "sensitive": "content_filter", "data_inspection_failed": "content_filter",
}  # fmt: skip
_RUNNING = frozenset({None, "", "null"})
# So much of an answer's beginning, said again at the start of a longer piece, is no chance.
CERTAIN_CHARS = 12
_NULL = msgspec.Raw(b"null")


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None
    id: str | None = None
    index: int | None = None


class _Piece(msgspec.Struct):
    text: str | None = None
    image: msgspec.Raw = _NULL
    audio: msgspec.Raw = _NULL
    video: msgspec.Raw = _NULL


class _Message(msgspec.Struct):
    content: str | list[_Piece] | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None


class _Output(msgspec.Struct):
    choices: list[_Choice] | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    output: _Output | None = None
    usage: msgspec.Raw = _NULL
    request_id: str | None = None
    code: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


def result_from_wire(body: bytes, secrets: Sequence[str] = ()) -> Result:
    """A whole answer. Raises ProviderNonsense, or the error that hides in a 200."""
    wire = DashScopeWireStream(secrets)
    answer = _parsed(body)
    if answer is None:
        raise wire.not_an_answer(body, "The provider's answer is not JSON.", "The provider's answer is JSON, but not a chat answer.")
    try:
        result = gathered(wire.events(answer))
    except ValueError:
        raise ProviderNonsense("The provider's answer does not say how it ended: it has no finish_reason.") from None
    output = answer.output
    if output is None or (output.choices[0].message if output.choices else output.text) is None:
        raise ProviderNonsense("The provider's answer is JSON, but not a chat answer.", detail="no message")
    return result


def _parsed(data: bytes) -> _Answer | None:
    """None where `data` is no part of an answer."""
    try:
        if not data.isascii():
            data.decode()  # skipped parts of JSON are not checked for UTF-8
        answer = _decode(data)
    except UNREADABLE:
        return None
    return None if answer.output is None or answer.code else answer


class DashScopeWireStream:
    """See `translated.WireStream`. An answer is whole that has said why it ended when the stream closes."""

    done = False

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        """`secrets` are masked in error messages."""
        self._secrets = secrets
        self._begun = False
        self._ended: Ended | None = None
        self._id = ""
        self._thought, self._text = _Increments(), _Increments()
        self._calls: list[_Call] = []
        self._open: dict[int | str, _Call] = {}

    def read(self, event: bytes) -> Iterator[ChatEvent]:
        """See `translated.WireStream.read`."""
        answer = _parsed(event)
        if answer is None:
            words = "The provider's stream holds an event that is "
            raise self.not_an_answer(event, words + "not JSON.", words + "no part of a chat answer.")
        yield from self.events(answer)

    def finish(self) -> None:
        """See `translated.WireStream.finish`."""
        if self._ended is None:
            raise ProviderNonsense("The provider's stream ended in the middle of the answer.")

    def not_an_answer(self, data: bytes, not_json: str, other: str) -> GatewayError:
        """See the function of this name."""
        return not_an_answer(data, lambda content: error_in_success(content, secrets=self._secrets), not_json, other)

    def events(self, answer: _Answer) -> Iterator[ChatEvent]:
        if not self._begun:
            self._begun, self._id = True, answer.request_id or ""
            yield Begun(self._id)
        if answer.usage is not _NULL:
            yield counted(read_usage(answer.usage), answer.usage)
        output = answer.output
        if output is None:
            return
        if output.choices:
            choice = output.choices[0]
            if choice.message is not None:
                yield from self._said(choice.message)
            native = choice.finish_reason
        else:  # result_format "text"
            yield from self._said(_Message(output.text))
            native = output.finish_reason
        if native not in _RUNNING:
            yield from self._end(native or "")

    def _said(self, message: _Message) -> Iterator[ChatEvent]:
        if message.reasoning_content and (piece := self._thought.add(message.reasoning_content)):
            yield ReasoningDelta(piece)
        content = message.content
        text = _joined(content) if isinstance(content, list) else content
        if text:
            yield from self._settle(self._thought)
            if piece := self._text.add(text):
                yield TextDelta(piece)
        for place, call in enumerate(message.tool_calls or ()):
            yield from self._settle(self._thought, self._text)
            yield from self._call(call, place)

    def _settle(self, *kept: _Increments) -> Iterator[ChatEvent]:
        for increments in kept:
            if piece := increments.settle():
                yield ReasoningDelta(piece) if increments is self._thought else TextDelta(piece)

    def _call(self, piece: _ToolCall, place: int) -> Iterator[ChatEvent]:
        """`index` tells which call a piece belongs to; an empty id, which later pieces have, says nothing, another id a new call."""
        key = piece.index if piece.index is not None else piece.id or place
        call = self._open.get(key)
        if call is None or (piece.id and call.id and piece.id != call.id):
            call = self._open[key] = _Call(len(self._calls))
            self._calls.append(call)
        call.id = call.id or piece.id or ""
        function = piece.function or _Function()
        if not call.name and function.name:
            call.name = function.name
            yield ToolBegun(call.position, call.id or self._made_up_id(call), call.name)
        if function.arguments:
            if not call.name:
                raise ProviderNonsense("The provider's answer holds a tool call without a name.")
            if said := call.arguments.add(function.arguments):
                yield ToolDelta(call.position, said)

    def _made_up_id(self, call: _Call) -> str:
        return "call_" + hashlib.sha256(f"{self._id} {call.position} {call.name}".encode()).hexdigest()[:24]

    def _end(self, native: str) -> Iterator[ChatEvent]:
        yield from self._settle(self._thought, self._text)
        for call in self._calls:
            if not call.name:
                raise ProviderNonsense("The provider's answer holds a tool call without a name.")
            if piece := call.arguments.settle() or ("" if call.arguments.said else call.arguments.add("{}")):
                yield ToolDelta(call.position, piece)
        reason = _REASONS.get(native)
        if reason is None and not (self._calls or self._text.said or self._thought.said):
            raise ProviderNonsense("The provider ended an empty answer without a reason that is known.", detail=native[:200])
        self._ended = Ended("tool_calls" if self._calls and reason in ("stop", None) else reason or "stop", native)
        yield self._ended


class _Call:
    def __init__(self, position: int) -> None:
        self.position = position
        self.id = self.name = ""
        self.arguments = _Increments()


class _Increments:
    """Pieces of one text as increments, which is what we ask for.

    Models that do not know `incremental_output` send with each event all that was said so far (recorded: a stream that was
    not asked for increments). Such a stream gives itself away: each piece begins with the piece before it. While it has
    hardly begun that may be chance, e.g. "ha", "ha": such pieces are kept back until it is clear, which in a stream of
    increments is with the first piece that begins otherwise. From then on nothing is compared or kept.
    """

    def __init__(self) -> None:
        self.said = False
        self._certain = self._cumulative = self._grown = False
        self._told = 0
        self._last = ""
        self._kept: list[str] = []

    def add(self, piece: str) -> str:
        """What is new, "" while that is not clear. `piece` is not empty."""
        self.said = True
        if self._certain:
            return self._rest(piece) if self._cumulative else piece
        last, self._last = self._last, piece
        if not last:
            self._told = len(piece)
            return piece
        self._kept.append(piece)
        if not piece.startswith(last):
            self._grown = False
            return self.settle()
        self._grown = self._grown or len(piece) > len(last)
        return self.settle() if self._grown and len(last) >= CERTAIN_CHARS else ""

    def settle(self) -> str:
        """What was kept back. Where no more can make it clear, pieces that grew were all that was said so far."""
        kept, self._kept = self._kept, []
        if not kept:
            return ""
        self._certain, self._cumulative = True, self._grown
        return self._rest(kept[-1]) if self._cumulative else "".join(kept)

    def _rest(self, piece: str) -> str:
        rest, self._told = piece[self._told :], max(self._told, len(piece))
        return rest


def _joined(pieces: list[_Piece]) -> str:
    if any(bytes(media) not in (b"null", b'""', b"[]") for piece in pieces for media in (piece.image, piece.audio, piece.video)):
        raise ProviderNonsense("The provider answered with a picture or a sound, which a chat answer cannot carry here.")
    return "".join(piece.text or "" for piece in pieces)
