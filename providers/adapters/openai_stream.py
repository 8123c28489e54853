"""A streamed answer in OpenAI's dialect: every event is parsed, the vendor's own bytes are passed on.

Strict about what would turn a broken stream into an empty success, lenient about vendors' additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from core.chat import Usage
from core.errors import GatewayError, ProviderFault, ProviderNonsense
from providers.adapters.openai_errors import error_in_success
from providers.adapters.sse import EventTooLong, SseDecoder, frame

MAX_TOKENS_COUNTED = 10**9
_DONE = b"[DONE]"
# Vendors' words for "our machine broke off": DeepSeek, Zhipu, OpenRouter.
INTERRUPTED = frozenset({"insufficient_system_resource", "network_error", "error"})


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class Text(msgspec.Struct):
    """What a model can say, in a message or a piece of one. Mistral's `content` may be a list of parts."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
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
    error: Any = None
    x_groq: _GroqExtra | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


def utf8_bytes(text: Any) -> int:
    return len(text) if text.isascii() else len(text.encode())


class OpenAIStreamReader:
    """See `base.StreamReader`. `secrets` are masked in error messages."""

    def __init__(self, wants_usage: bool, secrets: Sequence[str] = ()) -> None:
        self.usage: Usage | None = None
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

    def finish(self) -> None:
        """See `base.StreamReader.finish`. A missing `[DONE]` is no fault: some vendors never send it. One that comes too early is."""
        if not self._started or self._started - self._finished:
            raise ProviderNonsense("The provider's stream ended in the middle of the answer.")

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
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            return self._read_unusual(event, exc)
        choices = chunk.choices
        if choices is None or chunk.error:
            return self._read_unusual(event, None)
        usage = chunk.usage
        if not choices:
            if usage is not None:
                self.usage = read_usage(usage)
                return event if self._wants_usage else b""
            return event
        whole = True
        for choice in choices:
            delta = choice.delta
            if delta is None:
                whole = False
            elif said := delta.count_bytes():
                self.output_bytes += said
                self.content_started = True
            reason = choice.finish_reason
            if reason is None:
                self._started.add(choice.index)
            elif reason is msgspec.UNSET:
                self._started.add(choice.index)
                whole = False
            else:
                self._finish_choice(choice.index, str(reason))
            if choice.usage is not None and usage is None:
                usage = choice.usage
        if usage is None and chunk.x_groq is not None:
            usage = chunk.x_groq.usage
        if usage is not None:
            self.usage = read_usage(usage)
        return event if whole else _repaired(event)

    def _finish_choice(self, index: int, reason: str) -> None:
        self._started.add(index)
        if reason in INTERRUPTED:
            raise ProviderFault("The provider broke off in the middle of the answer.", detail=f"finish_reason {reason}")
        if reason:
            self._finished.add(index)
            self.finish_reason = self.finish_reason or reason

    def _read_unusual(self, event: bytes, problem: Exception | None) -> bytes:
        """The end mark, an error event, a usage event without choices, or nothing that belongs here."""
        if event.strip() == _DONE:
            self.finish()
            self.done = True
            return b""
        try:
            content = msgspec.json.decode(event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ProviderNonsense("The provider's stream holds an event that is not JSON.", detail=type(exc).__name__) from None
        if is_error(content):
            raise error_in_success(content, secrets=self._secrets)
        if problem is None and content.get("usage") is not None:
            self.usage = read_usage(content["usage"])
            return msgspec.json.encode({**content, "choices": []}) if self._wants_usage else b""
        detail = str(problem) if isinstance(problem, msgspec.ValidationError) else "no choices"
        raise ProviderNonsense("The provider's stream holds an event that is no part of a chat answer.", detail=detail[:200])


def is_error(content: Any) -> bool:
    """OpenAI's `{"error": …}`, and the flat `{"object": "error", …}` of older vLLM."""
    return isinstance(content, dict) and (bool(content.get("error")) or content.get("object") == "error")


def _repaired(event: bytes) -> bytes:
    """The same event with the keys that OpenAI's schema requires in a choice; only their absence is filled in."""
    content = msgspec.json.decode(event)
    for position, choice in enumerate(content["choices"]):
        choice.setdefault("index", position)
        choice.setdefault("finish_reason", None)
        if choice.get("delta") is None:
            choice["delta"] = {}
    return msgspec.json.encode(content)


def read_usage(content: Any) -> Usage | None:
    """OpenAI-shaped token counts as disjoint buckets; None where they make no sense.

    Cached and cache-writing tokens are part of `prompt_tokens`. They are found in `prompt_tokens_details`, or at the top
    as `prompt_cache_hit_tokens` (DeepSeek) or `cached_tokens` (Moonshot). Reasoning is part of `completion_tokens`, save
    at xAI, where only the total tells.
    """
    if not isinstance(content, dict):
        return None
    details, written = _object(content, "prompt_tokens_details"), _object(content, "completion_tokens_details")
    hits = details.get("cached_tokens")
    if hits is None:
        hits = content.get("prompt_cache_hit_tokens", content.get("cached_tokens"))
    counts: tuple[Any, ...] = (
        content.get("prompt_tokens"),
        content.get("completion_tokens"),
        hits or 0,
        details.get("cache_write_tokens") or 0,
        written.get("reasoning_tokens") or 0,
    )
    for count in counts:
        if type(count) is not int or not 0 <= count <= MAX_TOKENS_COUNTED:
            return None
    prompt, completion, cached, cache_write, reasoning = counts
    if cached + cache_write > prompt:  # seen from grok on Azure, 2026: the details cannot be right, the total is kept
        cached = cache_write = 0
    if reasoning and content.get("total_tokens") == prompt + completion + reasoning:
        completion += reasoning
    return Usage(
        input=prompt - cached - cache_write,
        cached_input=cached,
        cache_write=cache_write,
        output=completion,
        reasoning=reasoning if reasoning < completion else completion,
    )


def _object(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}
