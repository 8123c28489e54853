"""What Gemini answers, streamed or whole, as events: a whole answer has the shape of one event of a stream.

Facts: https://ai.google.dev/api/generate-content (GenerateContentResponse), /gemini-api/docs/thought-signatures.
A seal on a piece of text becomes a `ReasoningDelta` of its own before that text; `gemini_wire` puts it back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from core.errors import GatewayError, ProviderNonsense, ProviderRefused, ProviderRejectedOurKey
from core.events import Begun, ChatEvent, Ended, ReasoningDelta, Result, TextDelta, ToolBegun, ToolDelta, counted, gathered
from providers.adapters.gemini_errors import error_in_success
from providers.adapters.gemini_usage import read_usage
from providers.adapters.reading import UNREADABLE, not_an_answer

MAX_PATH_STEPS = 32
_FILTERED = (
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "ESCALATION",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
)  # fmt: skip
_REASONS = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length", **dict.fromkeys(_FILTERED, "content_filter")}
# The model failed, not the request: another try may do better, and no client could use what there is.
_BROKEN = frozenset({"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"})
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,6})\]|\['([^']*)'\]")


class _PartialArg(msgspec.Struct, rename="camel"):
    json_path: str = ""
    string_value: str | None = None
    number_value: int | float | None = None
    bool_value: bool | None = None


class _Call(msgspec.Struct, rename="camel"):
    name: str | None = None
    id: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"")
    partial_args: list[_PartialArg] | None = None
    will_continue: bool | None = None


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None
    inline_data: msgspec.Raw = msgspec.Raw(b"")


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Answer(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: Any = None
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


def result_from_wire(body: bytes, secrets: Sequence[str] = ()) -> Result:
    """A whole answer. Raises ProviderNonsense, or the error that hides in a 200."""
    wire = GeminiWireStream(secrets)
    try:
        answer = _parsed(body)
        if answer is None:
            raise wire.not_an_answer(body, "The provider's answer is not JSON.", "The provider's answer is JSON, but not a chat answer.")
        return gathered(wire.events(answer))
    except ValueError:
        raise ProviderNonsense("The provider's answer does not say how it ended: it has no finishReason.") from None


def _parsed(data: bytes) -> _Answer | None:
    """None where `data` is no part of an answer."""
    try:
        if not data.isascii():
            data.decode()  # skipped parts of JSON are not checked for UTF-8
        answer = _decode(data)
    except UNREADABLE:
        return None
    known = answer.candidates is not None or answer.prompt_feedback is not None or answer.usage_metadata is not None
    return answer if known and not answer.error else None


class GeminiWireStream:
    """See `translated.WireStream`. There is no end mark: an answer is whole that has said why it ended when the stream closes.

    Google names tool calls from Gemini 3 on; for those without an id one is made up of the answer's id and the call itself.
    """

    done = False

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        """`secrets` are masked in error messages."""
        self._secrets = secrets
        self._begun = self._said = self._ended = False
        self._id = ""
        self._calls = 0
        self._open: _OpenCall | None = None

    def read(self, event: bytes) -> Iterator[ChatEvent]:
        """See `translated.WireStream.read`."""
        answer = _parsed(event)
        if answer is None:
            words = "The provider's stream holds an event that is "
            raise self.not_an_answer(event, words + "not JSON.", words + "no part of a chat answer.")
        yield from self.events(answer)

    def finish(self) -> None:
        """See `translated.WireStream.finish`."""
        if not self._ended:
            raise ProviderNonsense("The provider's stream ended in the middle of the answer.")

    def not_an_answer(self, data: bytes, not_json: str, other: str) -> GatewayError:
        """See the function of this name."""
        return not_an_answer(data, lambda content: error_in_success(content, secrets=self._secrets), not_json, other)

    def events(self, answer: _Answer) -> Iterator[ChatEvent]:
        if not self._begun:
            self._begun, self._id = True, answer.response_id or ""
            yield Begun(self._id, answer.model_version or "")
        if answer.usage_metadata is not None:
            yield counted(read_usage(answer.usage_metadata), answer.usage_metadata)
        if answer.candidates:
            candidate = answer.candidates[0]
            for part in (candidate.content and candidate.content.parts) or ():
                yield from self._part(part)
            if candidate.finish_reason:
                yield self._end(candidate.finish_reason, candidate.finish_message or "")
        elif answer.prompt_feedback is not None and answer.prompt_feedback.block_reason:
            self._ended = True
            yield Ended("content_filter", answer.prompt_feedback.block_reason)

    def _part(self, part: _Part) -> Iterator[ChatEvent]:
        seal = part.thought_signature or ""
        self._said = self._said or bool(part.text) or part.function_call is not None
        if part.function_call is not None:
            yield from self._call(part.function_call, seal)
            return
        if not _absent(part.inline_data):
            raise ProviderNonsense("The provider answered with a picture or a sound, which a chat answer cannot carry here.")
        if part.thought and (part.text or seal):
            yield ReasoningDelta(part.text or "", seal)
            return
        if seal:
            yield ReasoningDelta(signature=seal)
        if part.text:
            yield TextDelta(part.text)

    def _call(self, call: _Call, seal: str) -> Iterator[ChatEvent]:
        if self._open is None or call.name:
            if not call.name:
                raise ProviderNonsense("The provider's answer holds a tool call without a name.")
            yield from self._close_call()
            position, self._calls = self._calls, self._calls + 1
            yield ToolBegun(position, call.id or self._made_up_id(position, call), call.name, seal)
            if not call.will_continue and call.partial_args is None:
                yield ToolDelta(position, _arguments(call.args))
                return
            self._open = _OpenCall(position)
        for arg in call.partial_args or ():
            self._open.add(arg)
        if not call.will_continue:
            yield from self._close_call()

    def _close_call(self) -> Iterator[ChatEvent]:
        if self._open is not None:
            yield ToolDelta(self._open.position, self._open.arguments)
            self._open = None

    def _made_up_id(self, position: int, call: _Call) -> str:
        seed = f"{self._id} {position} {call.name} ".encode() + bytes(call.args)
        return "call_" + hashlib.sha256(seed).hexdigest()[:24]

    def _end(self, native: str, words: str) -> Ended:
        reason = _REASONS.get(native)
        if native in _BROKEN or (self._open is not None and reason == "stop"):
            raise ProviderNonsense(
                "The model broke off in a tool call or an answer that cannot be read.", detail=f"{native}: {words}"[:200]
            )
        if native == "MISSING_THOUGHT_SIGNATURE":
            text = "The provider refused the request: an earlier tool call lacks the thought signature that came with it."
            raise ProviderRefused(text, param="messages", detail=native)
        if native == "PUP_LIMITED_DISABLED":
            text = "Our account at the provider is limited for a breach of its policy. An administrator must look."
            raise ProviderRejectedOurKey(text, detail=native)
        if reason is None and not self._said:
            raise ProviderNonsense("The provider ended an empty answer without a reason that is known.", detail=f"{native}: {words}"[:200])
        self._ended = True
        return Ended("tool_calls" if self._calls and reason in ("stop", None) else reason or "stop", native)


class _OpenCall:
    """A call whose arguments come piece by piece, each with its place (Vertex's `streamFunctionCallArguments`)."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._found: dict[str, Any] = {}

    @property
    def arguments(self) -> str:
        return msgspec.json.encode(self._found).decode()

    def add(self, arg: _PartialArg) -> None:
        """Raises ProviderNonsense for a place that there cannot be."""
        steps: list[str | int] = [int(index) if index else name or quoted for name, index, quoted in _STEP.findall(arg.json_path)]
        if _STEP.sub("", arg.json_path) != "$" or not 0 < len(steps) <= MAX_PATH_STEPS:
            raise self._nowhere(arg)
        holder: Any = self._found
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if isinstance(holder, list) and isinstance(step, int) and step <= len(holder):
                holder.extend([None] * (step == len(holder)))
            elif isinstance(holder, dict) and isinstance(step, str):
                holder.setdefault(step, None)
            else:
                raise self._nowhere(arg)
            if following is None:
                self._put(holder, step, arg)
            elif holder[step] is None:
                holder[step] = [] if isinstance(following, int) else {}
            holder = holder[step]

    @staticmethod
    def _put(holder: Any, step: str | int, arg: _PartialArg) -> None:
        if arg.string_value is not None:
            before = holder[step]
            holder[step] = before + arg.string_value if isinstance(before, str) else arg.string_value
        else:
            holder[step] = arg.number_value if arg.number_value is not None else arg.bool_value

    @staticmethod
    def _nowhere(arg: _PartialArg) -> ProviderNonsense:
        return ProviderNonsense("The provider's answer holds a tool call that cannot be read.", detail=f"path {arg.json_path[:100]!r}")


def _absent(value: msgspec.Raw) -> bool:
    return bytes(value) in (b"", b"null")


def _arguments(args: msgspec.Raw) -> str:
    data = bytes(args)
    if _absent(args):
        return "{}"
    if not data.startswith(b"{"):
        raise ProviderNonsense("The provider's answer holds a tool call whose arguments are no object.")
    return data.decode()
