"""OpenAI's chat wire and the event model: what clients of other dialects need of an OpenAI-compatible vendor.

`to_wire` for the request; `result_from_wire` and `OpenAIWireStream` for the answer. Only one choice is read. Clients that
speak OpenAI themselves are passed through by `openai_stream`, whose strictness holds here, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from core.errors import GatewayError, ProviderFault, ProviderNonsense
from core.events import Begun, ChatEvent, Ended, ReasoningDelta, RefusalDelta, Result, TextDelta, ToolBegun, ToolDelta, counted, gathered
from providers.adapters.openai_answers import require_message, why_not_an_answer
from providers.adapters.openai_errors import error_in_success, is_error
from providers.adapters.openai_request import to_wire
from providers.adapters.openai_stream import FINISH_REASONS, INTERRUPTED, made_up_id, read_usage
from providers.adapters.reading import UNREADABLE

__all__ = ["OpenAIWireStream", "result_from_wire", "to_wire"]


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None

    @property
    def arguments_text(self) -> str:
        """An object instead of its JSON text is what local servers give."""
        given = self.arguments
        return msgspec.json.encode(given).decode() if isinstance(given, dict) else given or ""


class _Google(msgspec.Struct):
    thought_signature: str | None = None


class _Extra(msgspec.Struct):
    google: _Google | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: _Extra | None = None

    @property
    def seal(self) -> str:
        google = self.extra_content.google if self.extra_content else None
        return (google.thought_signature if google else None) or ""


class _Sealed(msgspec.Struct):
    """An element of `thinking_blocks`, of a gateway like this one."""

    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class _Piece(msgspec.Struct):
    """Mistral's `content` may be a list of these. Types other than text and thinking (references) say nothing that we carry."""

    text: str | None = None
    thinking: str | list[_Piece] | None = None


class _Said(msgspec.Struct):
    """A message, or a piece of one."""

    content: str | list[_Piece] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking_blocks: list[_Sealed] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    usage: Any = None


class _GroqExtra(msgspec.Struct):
    usage: Any = None


class _Answer(msgspec.Struct):
    """A whole answer, or a chunk of one."""

    choices: list[_Choice] | None = None
    id: str | None = None
    model: str | None = None
    created: int | float | None = None
    usage: Any = None
    service_tier: Any = None
    error: Any = None
    x_groq: _GroqExtra | None = None


class _Call(msgspec.Struct):
    """A tool call while it is being told. `position` -1 = not begun, for want of a name."""

    id: str = ""
    name: str = ""
    held: str = ""
    position: int = -1


_decode = msgspec.json.Decoder(_Answer).decode
_DONE = b"[DONE]"
_LATEST_S = 2**53
_LEGACY_INDEX = -1  # of `function_call`, which is never one of several
# Any other word (eos, eos_token, function_call …) is an ordinary end.
_CUT_SHORT = {"length": "length", "content_filter": "content_filter"}


def result_from_wire(body: bytes, secrets: Sequence[str] = ()) -> Result:
    """A whole answer. `secrets` are masked in error messages.

    Raises ProviderNonsense for what is no answer, ProviderFault for one that broke off, or the typed error that hides in a 200.
    """
    try:
        answer = _read(body)
    except UNREADABLE as exc:
        raise why_not_an_answer(body, exc, secrets) from None
    if answer.error or not answer.choices:
        raise why_not_an_answer(body, None, secrets)
    choice = answer.choices[0]
    if not choice.finish_reason:
        raise ProviderNonsense("The provider's answer does not say how it ended: it has no finish_reason.")
    require_message(choice.message, choice.finish_reason)
    choice.index, choice.delta = 0, choice.message
    if choice.message is not None:
        _settle(choice.message)
    return gathered(_Teller().tell(answer))


def _settle(message: _Said) -> None:
    """In a whole message each call stands by itself, and sealed thoughts hold what `reasoning_content` joins together."""
    for index, call in enumerate(message.tool_calls or ()):
        call.index = index
    if any(block.signature or block.data for block in message.thinking_blocks or ()):
        message.reasoning_content = message.reasoning = None


def _read(body: bytes) -> _Answer:
    if not body.isascii():
        body.decode()  # skipped parts of JSON are not checked for UTF-8
    return _decode(body)


class OpenAIWireStream:
    """See `translated.WireStream`. `secrets` are masked in error messages."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self.done = False
        self._secrets = secrets
        self._teller = _Teller()

    def read(self, event: bytes) -> list[ChatEvent]:
        """See `translated.WireStream.read`."""
        if event.strip() == _DONE:
            self.finish()
            self.done = True
            return []
        try:
            chunk = _read(event)
        except UNREADABLE as exc:
            raise self._why_no_chunk(event, exc) from None
        if chunk.error or (chunk.choices is None and chunk.usage is None):
            raise self._why_no_chunk(event, None)
        return self._teller.tell(chunk)

    def _why_no_chunk(self, event: bytes, problem: Exception | None) -> GatewayError:
        try:
            content = msgspec.json.decode(event)
        except UNREADABLE as exc:
            return ProviderNonsense("The provider's stream holds an event that is not JSON.", detail=type(exc).__name__)
        if is_error(content):
            return error_in_success(content, secrets=self._secrets)
        detail = str(problem)[:200] if problem is not None else "no choices"
        return ProviderNonsense("The provider's stream holds an event that is no part of a chat answer.", detail=detail)

    def finish(self) -> None:
        """See `translated.WireStream.finish`. Some vendors never send an end mark: a finish_reason is what makes an answer whole."""
        if not self._teller.ended:
            raise ProviderNonsense("The provider's stream ended in the middle of the answer.")


def _seconds(created: int | float | None) -> int:
    """0 for what is no time: a client's parser must not meet an integer that its JSON cannot hold."""
    return int(created) if created and 0 < created < _LATEST_S else 0


class _Teller:
    """Makes events of chunks, of which a whole answer is but one."""

    def __init__(self) -> None:
        self.ended = False
        self._begun: Begun | None = None
        self._thinking = False  # something was thought that no seal has ended yet
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._begun_calls = 0

    def tell(self, chunk: _Answer) -> list[ChatEvent]:
        """Raises ProviderFault, ProviderNonsense."""
        events: list[ChatEvent] = []
        usage = chunk.usage
        if self._begun is None and (chunk.choices or chunk.id):  # Azure's first chunk has neither
            self._begun = Begun(chunk.id or "", chunk.model or "", _seconds(chunk.created))
            events.append(self._begun)
        for choice in chunk.choices or ():
            if choice.index == 0:
                if choice.delta is not None:
                    self._tell_said(choice.delta, events)
                if choice.finish_reason and not self.ended:
                    events.append(self._end(choice.finish_reason, choice.native_finish_reason))
            usage = choice.usage if usage is None else usage
        if usage is None and chunk.x_groq is not None:
            usage = chunk.x_groq.usage
        if usage is not None:
            events.append(counted(read_usage(usage, chunk.service_tier), usage))
        return events

    def _tell_said(self, said: _Said, events: list[ChatEvent]) -> None:
        if thought := said.reasoning_content or said.reasoning:  # some vendors send the same under both names
            self._think(thought, events)
        for block in said.thinking_blocks or ():
            self._seal(block, events)
        content = said.content
        if isinstance(content, str):
            self._speak(content, events)
        elif content:
            self._tell_pieces(content, events)
        if said.refusal:
            events.append(RefusalDelta(said.refusal))
        for call in said.tool_calls or ():
            self._tell_call(call, events)
        if said.function_call is not None:
            self._tell_call(_ToolCall(_LEGACY_INDEX, function=said.function_call), events)

    def _think(self, text: str, events: list[ChatEvent]) -> None:
        self._thinking = True
        events.append(ReasoningDelta(text))

    def _speak(self, text: str, events: list[ChatEvent]) -> None:
        if text:
            self._thinking = False
            events.append(TextDelta(text))

    def _tell_pieces(self, pieces: list[_Piece], events: list[ChatEvent]) -> None:
        for piece in pieces:
            inner = piece.thinking
            if thought := "".join(it.text or "" for it in inner) if isinstance(inner, list) else inner:
                self._think(thought, events)
            self._speak(piece.text or "", events)

    def _seal(self, block: _Sealed, events: list[ChatEvent]) -> None:
        """The text of a sealed block repeats what was thought before, unless nothing was."""
        if block.data:
            events.append(ReasoningDelta(redacted=block.data))
        elif block.signature:
            events.append(ReasoningDelta("" if self._thinking else block.thinking or "", block.signature))
        self._thinking = self._thinking and not (block.data or block.signature)

    def _tell_call(self, piece: _ToolCall, events: list[ChatEvent]) -> None:
        function = piece.function or _Function()
        call = self._call_of(piece, function.name)
        call.id = call.id or piece.id or ""
        call.name = call.name or function.name or ""
        arguments = function.arguments_text
        if call.position < 0:
            call.held += arguments
            if not call.name:
                return
            arguments = call.held
            call.position = self._begun_calls
            self._begun_calls += 1
            self._thinking = False
            events.append(ToolBegun(call.position, call.id or made_up_id(self._begun, call.position, call.name), call.name, piece.seal))
        if arguments:
            events.append(ToolDelta(call.position, arguments))

    def _call_of(self, piece: _ToolCall, name: str | None) -> _Call:
        """The call that a piece goes on with, or a new one.

        Pieces go by their index; where a vendor gives none, by their id, else with the call before. Whole calls that all
        bear the same index, or none, are told apart by a new name with another id, or without any.
        """
        index, call_id = piece.index, piece.id
        if index is not None:
            known = self._by_index.get(index)
            is_new = bool(name and known and known.name and call_id and call_id != known.id)
        else:
            same = [call for call in self._calls if call_id and call.id == call_id]
            known = next(reversed(same or self._calls), None)
            is_new = bool(name and known and known.name and not same)
        if known is None or is_new:
            known = _Call()
            self._calls.append(known)
        if index is not None:
            self._by_index[index] = known
        return known

    def _end(self, reason: str, native: str | None) -> Ended:
        if reason in INTERRUPTED:
            raise ProviderFault("The provider broke off in the middle of the answer.", detail=f"finish_reason {reason}")
        if any(call.position < 0 for call in self._calls):
            raise ProviderNonsense("The provider's answer calls a tool without naming it.")
        self.ended = True
        ordinary = "tool_calls" if self._calls else "stop"
        return Ended(_CUT_SHORT.get(FINISH_REASONS.get(reason, reason), ordinary), native or reason)
