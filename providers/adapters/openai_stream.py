"""A streamed answer in OpenAI's dialect: every event is parsed, the vendor's own bytes are passed on.

Strict about what would turn a broken stream into an empty success, lenient about vendors' additions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from core.errors import GatewayError, ProviderFault, ProviderNonsense
from core.usage import Usage, refused_counts
from providers.adapters.openai_errors import error_in_success, is_error
from providers.adapters.openai_usage import read_usage
from providers.adapters.reading import UNREADABLE
from providers.adapters.sse import EventTooLong, SseDecoder, frame
from providers.adapters.translated import require_calls

__all__ = [
    "FINISH_REASONS",
    "INTERRUPTED",
    "OpenAIStreamReader",
    "Text",
    "made_up_id",
    "plain_text",
    "read_usage",
    "utf8_bytes",
]

_DONE = b"[DONE]"
# Vendors' words for "our machine broke off": DeepSeek, Zhipu, OpenRouter.
INTERRUPTED = frozenset({"insufficient_system_resource", "network_error", "error"})
# Vendors' words for ends that OpenAI has a word for: Qianfan, Zhipu, Mistral.
FINISH_REASONS = {"normal": "stop", "sensitive": "content_filter", "model_length": "length"}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """A call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    type: Any = None
    function: _Function | None = None

    @property
    def is_unnamed(self) -> bool:
        """No client could tell which function it calls. Calls of another type (custom) have their name elsewhere."""
        return not (self.function.name if self.function is not None else self.type not in (None, "", "function"))

    @property
    def lacks_arguments(self) -> bool:
        return self.function is not None and self.function.arguments is None

    @property
    def has_blanks(self) -> bool:
        """DashScope and Ark repeat `id` and `type` as "". A client that takes the last, or OpenAI's own for `type`, loses the first."""
        return self.id == "" or self.type == "" or (self.function is not None and self.function.name == "")


class Text(msgspec.Struct):
    """What a model can say, in a message or a piece of one. Mistral's `content` may be a list of parts."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: _Function | None = None

    def count_bytes(self) -> int:
        """UTF-8 bytes of everything said: the ground for estimates, and 0 where nothing was."""
        content = self.content
        count = utf8_bytes(content) if content.__class__ is str else len(msgspec.json.encode(content)) if content else 0
        if self.reasoning_content or self.reasoning:  # some vendors send the same text under both names
            count += utf8_bytes(self.reasoning_content or self.reasoning or "")
        if self.refusal:
            count += utf8_bytes(self.refusal)
        if self.tool_calls or self.function_call:
            calls = [call.function for call in self.tool_calls or ()]
            for function in [*calls, self.function_call]:
                if function is not None:
                    count += utf8_bytes(function.name or "") + utf8_bytes(function.arguments or "")
        return count


class _Choice(msgspec.Struct):
    index: int = 0
    delta: Text | None = None
    finish_reason: str | msgspec.UnsetType | None = msgspec.UNSET
    usage: Any = None


class _GroqExtra(msgspec.Struct):
    usage: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    service_tier: Any = None
    error: Any = None
    x_groq: _GroqExtra | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


def utf8_bytes(text: Any) -> int:
    return len(text) if text.isascii() else len(text.encode())


class OpenAIStreamReader:
    """See `base.StreamReader`. `secrets` are masked in error messages."""

    tail = b"data: [DONE]\n\n"

    def __init__(self, wants_usage: bool, secrets: Sequence[str] = ()) -> None:
        self.usage: Usage | None = None
        self.refused_counts = ""
        self.finish_reason = ""
        self.output_bytes = 0
        self.content_started = False
        self.done = False
        self.salvaged = b""
        self._wants_usage = wants_usage
        self._secrets = secrets
        self._sse = SseDecoder()
        self._started: set[int] = set()
        self._finished: set[int] = set()
        self._named: set[tuple[int, int | None]] = set()
        self._has_name: dict[tuple[int, int | None], bool] = {}

    def feed(self, data: bytes) -> bytes:
        """See `base.StreamReader.feed`. The very object `data` comes back where nothing in it had to be changed or withheld."""
        if self.done:
            return b""
        event = self._sse.single(data)
        if event is not None:
            relayed = self._read(event)
            return data if relayed is event else frame(relayed) if relayed else b""
        try:
            events = self._sse.feed(data)
        except EventTooLong as exc:
            self.salvaged = self._relayed(exc.complete)
            raise
        return self._relayed(events, data if self._sse.canonical else None)

    def finish(self) -> bytes:
        """See `base.StreamReader.finish`. A missing `[DONE]` is no fault: some vendors never send it. One that comes too early is."""
        if not self._started or self._started - self._finished:
            raise ProviderNonsense("The provider's stream ended in the middle of the answer.")
        if not all(self._has_name.values()):
            raise ProviderNonsense("The provider's answer calls a tool without naming it.")
        if not self.content_started:
            require_calls(self.finish_reason)
        return b""

    def _relayed(self, events: list[bytes], original: bytes | None = None) -> bytes:
        """The events to pass on. `original` is their exact wire form, given back whole if all of them pass unchanged."""
        relayed: list[bytes] = []
        unchanged = True
        try:
            for event in events:
                out = b"" if self.done else self._read(event)
                unchanged = unchanged and out is event
                if out:
                    relayed.append(out)
        except GatewayError:
            self.salvaged = b"".join(map(frame, relayed))
            raise
        if unchanged and original is not None:
            return original
        return b"".join(map(frame, relayed))

    def _read(self, event: bytes) -> bytes:
        """Takes the facts from one event. Returns the event itself, a repaired one, or b"" where it is withheld."""
        try:
            if not event.isascii():
                event.decode()  # skipped parts of JSON are not checked for UTF-8
            chunk = _decode(event)
        except UNREADABLE as exc:
            return self._read_unusual(event, exc)
        choices = chunk.choices
        if choices is None or chunk.error:
            return self._read_unusual(event, None)
        usage = chunk.usage
        if not choices:
            if usage is not None:
                self._count(usage, chunk.service_tier)
                return event if self._wants_usage else b""
            return event
        whole = True
        for choice in choices:
            delta = choice.delta
            if delta is None:
                whole = False
            else:
                if said := delta.count_bytes():
                    self.output_bytes += said
                    self.content_started = True
                calls = delta.tool_calls
                if delta.content.__class__ is list or (calls and not self._calls_are_plain(choice.index, calls)):
                    whole = False
            reason = choice.finish_reason
            if reason is None:
                self._started.add(choice.index)
            elif reason is msgspec.UNSET:
                self._started.add(choice.index)
                whole = False
            else:
                self._finish_choice(choice.index, str(reason))
                whole = whole and reason not in FINISH_REASONS
            if choice.usage is not None and usage is None:
                usage = choice.usage
        if usage is None and chunk.x_groq is not None:
            usage = chunk.x_groq.usage
        if usage is not None:
            self._count(usage, chunk.service_tier)
        return event if whole else self._repaired(event)

    def _count(self, usage: Any, service_tier: Any = None) -> None:
        self.usage = read_usage(usage, service_tier)
        if self.usage is None:
            self.refused_counts = refused_counts(usage)

    def _finish_choice(self, index: int, reason: str) -> None:
        self._started.add(index)
        if reason in INTERRUPTED:
            raise ProviderFault("The provider broke off in the middle of the answer.", detail=f"finish_reason {reason}")
        if reason:
            self._finished.add(index)
            self.finish_reason = self.finish_reason or FINISH_REASONS.get(reason, reason)

    def _calls_are_plain(self, choice: int, calls: list[ToolCall]) -> bool:
        """Every call has its number and has had its id, and no blank would undo it."""
        plain = True
        for call in calls:
            place = (choice, call.index)
            if not self._has_name.get(place):
                self._has_name[place] = not call.is_unnamed
            if call.id and call.index is not None:
                self._named.add(place)
            elif place not in self._named:
                plain = False
            plain = plain and not call.has_blanks
        return plain

    def _repaired(self, event: bytes) -> bytes:
        """The same event as a client of OpenAI's needs it; what the vendor did say is kept."""
        content = msgspec.json.decode(event)
        for position, choice in enumerate(content["choices"]):
            choice.setdefault("index", position)
            reason = choice.setdefault("finish_reason", None)
            choice["finish_reason"] = FINISH_REASONS.get(reason, reason)
            if choice.get("delta") is None:
                choice["delta"] = {}
            if isinstance(choice["delta"].get("content"), list):
                plain_text(choice["delta"])
            for call in choice["delta"].get("tool_calls") or ():
                self._repair_call(call, choice["index"], content.get("id"))
        return msgspec.json.encode(content)

    def _repair_call(self, call: dict[str, Any], choice: int, answer_id: Any) -> None:
        """Blanks are left out; a call that begins without a number or an id is given one: OpenAI's own client fails without."""
        if call.get("index") is None:
            known = sum(named == choice for named, _ in self._named)
            call["index"] = known if call.get("id") or not known else known - 1
        place = (choice, call["index"])
        for holder, name in ((call, "id"), (call, "type"), (call.get("function") or {}, "name")):
            if holder.get(name) == "":
                del holder[name]
        if place not in self._named:
            self._named.add(place)
            call["id"] = call.get("id") or made_up_id(answer_id, *place)
            call.setdefault("type", "function")

    def _read_unusual(self, event: bytes, problem: Exception | None) -> bytes:
        """The end mark, an error event, a usage event without choices, or nothing that belongs here."""
        if event.strip() == _DONE:
            self.finish()
            self.done = True
            return b""
        try:
            content = msgspec.json.decode(event)
        except UNREADABLE as exc:
            raise ProviderNonsense("The provider's stream holds an event that is not JSON.", detail=type(exc).__name__) from None
        if is_error(content):
            raise error_in_success(content, secrets=self._secrets)
        if problem is None and content.get("usage") is not None:
            self._count(content["usage"], content.get("service_tier"))
            return msgspec.json.encode({**content, "choices": []}) if self._wants_usage else b""
        detail = str(problem) if isinstance(problem, msgspec.ValidationError) else "no choices"
        raise ProviderNonsense("The provider's stream holds an event that is no part of a chat answer.", detail=detail[:200])


def plain_text(part: dict[str, Any]) -> None:
    """Mistral's list of parts, in a message or a delta, becomes the text and the `reasoning_content` that clients know."""
    parts = [piece for piece in part["content"] if isinstance(piece, dict)]
    thought = "".join(_text_of(piece.get("thinking")) for piece in parts)
    if thought:
        part["reasoning_content"] = thought
    part["content"] = "".join(_text_of(piece.get("text")) for piece in parts)
    if others := [piece for piece in parts if "thinking" not in piece and "text" not in piece]:
        part["content_parts"] = others


def _text_of(value: Any) -> str:
    if isinstance(value, list):
        return "".join(_text_of(piece.get("text")) for piece in value if isinstance(piece, dict))
    return value if isinstance(value, str) else ""


def made_up_id(*ground: object) -> str:
    """An id for a tool call whose vendor gave none: the same for the same ground."""
    return "call_" + hashlib.sha256(repr(ground).encode()).hexdigest()[:24]
