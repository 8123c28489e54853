"""`POST /responses`, as OpenAI defined it, passed through: read strictly on the way, the vendor's bytes kept.

Sources: OpenAI's API reference (responses, responses-streaming), recorded exchanges with OpenAI and Azure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from core.chat import Answer, ChatRequest
from core.errors import GatewayError, ProviderFault, ProviderNonsense
from core.usage import Usage, refused_counts
from providers.adapters.openai_errors import error_in_success, is_error, why_not
from providers.adapters.openai_stream import read_usage, utf8_bytes
from providers.adapters.reading import UNREADABLE
from providers.adapters.relay import Relay
from providers.adapters.sse import frame

_LAST = frozenset({"response.completed", "response.incomplete"})
# Their `delta` is a text; those of other kinds may be anything.
_SAYING = frozenset(
    f"response.{name}.delta" for name in ("output_text", "refusal", "function_call_arguments", "reasoning_summary_text", "reasoning_text")
)
_BROKEN = frozenset({"error", "response.failed", "response.cancelled"})
_INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}
# Codes of a failed response that speak of the request; every other one speaks of the vendor.
_REQUEST_CODES = re.compile(
    "invalid_|image_|unsupported_|empty_image|failed_to_download|bio_policy|misalignment_policy|data_residency|context_length|content_"
)


class _Why(msgspec.Struct):
    reason: str | None = None


class _Part(msgspec.Struct):
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct):
    type: str
    call_id: Any = None
    name: str | None = None
    arguments: Any = None
    input: Any = None
    content: list[_Part] | None = None
    summary: list[_Part] | None = None

    def require_call(self) -> None:
        """Raises ProviderNonsense for a function call that no client could make."""
        if self.type == "function_call" and not (
            self.name and self.call_id and isinstance(self.call_id, str) and isinstance(self.arguments, str)
        ):
            raise ProviderNonsense("The provider's answer holds a tool call without a name, an id or arguments.")

    def count_bytes(self) -> int:
        """UTF-8 bytes of everything said: the ground for estimates."""
        said: list[Any] = [self.name, self.arguments, self.input]
        for part in [*(self.content or ()), *(self.summary or ())]:
            said += (part.text, part.refusal)
        return sum(utf8_bytes(text) for text in said if isinstance(text, str))


class _Response(msgspec.Struct):
    status: str
    output: list[_Item]
    object: str = ""
    usage: Any = None
    service_tier: Any = None
    error: Any = None
    incomplete_details: _Why | None = None

    @property
    def finish_reason(self) -> str:
        """In the words of `core.events.Ended`."""
        if self.status == "incomplete":
            why = self.incomplete_details.reason if self.incomplete_details else None
            return _INCOMPLETE.get(why or "", "length")
        return "tool_calls" if any(item.type.endswith("_tool_call") or item.type == "function_call" for item in self.output) else "stop"


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    item: msgspec.Raw = msgspec.Raw(b"")
    response: msgspec.Raw = msgspec.Raw(b"")


_decode = msgspec.json.Decoder(_Response).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_item = msgspec.json.Decoder(_Item).decode


def read_responses(body: bytes, request: ChatRequest, secrets: Sequence[str]) -> Answer:
    """A whole response. Raises ProviderNonsense where it is none or not at its end, the typed error of a failed one."""
    try:
        if not body.isascii():
            body.decode()  # skipped parts of JSON are not checked for UTF-8
        response = _decode(body)
    except UNREADABLE as exc:
        raise why_not(body, exc, "The provider's answer is JSON, but not a response.", secrets) from None
    _require_end(response, secrets)
    usage = read_responses_usage(response.usage, response.service_tier)
    return Answer(
        body=body,
        usage=usage,
        refused_counts=refused_counts(response.usage) if usage is None else "",
        finish_reason=response.finish_reason,
        output_bytes=sum(item.count_bytes() for item in response.output),
    )


def _require_end(response: _Response, secrets: Sequence[str]) -> None:
    if response.error or response.status == "failed":
        raise _failure(response.error, secrets)
    if response.status == "cancelled":
        raise ProviderFault("The provider broke off in the middle of the answer.", detail="status cancelled")
    if response.status not in ("completed", "incomplete"):
        raise ProviderNonsense("The provider's answer does not say how it ended.", detail=f"status {response.status[:50]!r}")
    for item in response.output:
        item.require_call()
    if response.status == "completed" and not response.output:
        raise ProviderNonsense("The provider's answer is JSON, but holds no output.", detail="output is empty")


def _failure(error: Any, secrets: Sequence[str]) -> GatewayError:
    """The typed error of `response.error` or of an error event. A failed response has no HTTP status; its code implies one."""
    error = error if isinstance(error, dict) else {"message": error if isinstance(error, str) else ""}
    code = error.get("code")
    if isinstance(code, str) and _REQUEST_CODES.match(code):
        error = {**error, "status_code": 400}
    return error_in_success({"error": error}, secrets=secrets)


def read_responses_usage(content: Any, service_tier: Any = None) -> Usage | None:
    """Token counts under the Responses API's names; see `openai_stream.read_usage` for the rest."""
    if not isinstance(content, dict):
        return None
    return read_usage(
        {
            "prompt_tokens": content.get("input_tokens"),
            "completion_tokens": content.get("output_tokens"),
            "total_tokens": content.get("total_tokens"),
            "prompt_tokens_details": content.get("input_tokens_details"),
            "completion_tokens_details": content.get("output_tokens_details"),
        },
        service_tier,
    )


class ResponsesStreamReader(Relay):
    """See `base.StreamReader`. Each event goes on with its `event:` line; the last one is withheld and becomes the `tail`."""

    def __init__(self, request: ChatRequest, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self._secrets = secrets

    def finish(self) -> bytes:
        """See `base.StreamReader.finish`."""
        if not self.done:
            raise ProviderNonsense("The provider's stream ended in the middle of the answer.")
        return b""

    def _read_all(self, events: list[bytes], pieces: list[bytes]) -> None:
        for event in events:
            if self.done:  # some servers add a [DONE]
                return
            pieces.append(self._read(event))

    def _read(self, event: bytes) -> bytes:
        """Takes the facts from one event. Returns what goes on to the client."""
        try:
            if not event.isascii():
                event.decode()  # skipped parts of JSON are not checked for UTF-8
            told = _decode_event(event)
        except UNREADABLE as exc:
            raise self._why_not_an_event(event, exc) from None
        kind = told.type
        if kind in _LAST:
            self._end(told)
            self.tail = _framed(kind, event)
            return b""
        if not kind or kind in _BROKEN:
            raise self._broken(event, kind)
        if kind.endswith(".delta") and isinstance(told.delta, str):
            self._hear(utf8_bytes(told.delta))
        elif kind in _SAYING:
            raise self._no_part(f"{kind} without a text")
        elif kind == "response.output_item.added":
            self._hear(self._item(told.item).count_bytes())
        return _framed(kind, event)

    def _item(self, raw: msgspec.Raw) -> _Item:
        try:
            item = _decode_item(raw)
        except msgspec.DecodeError as exc:
            raise self._no_part(str(exc)) from None
        item.require_call()
        return item

    def _end(self, told: _Event) -> None:
        try:
            response = _decode(told.response)
        except msgspec.DecodeError as exc:
            raise self._no_part(str(exc)) from None
        _require_end(response, self._secrets)
        self.usage = read_responses_usage(response.usage, response.service_tier)
        if self.usage is None:
            self.refused_counts = refused_counts(response.usage)
        self.finish_reason = response.finish_reason
        if not self.output_bytes:  # a server that tells all in its last event
            self._hear(sum(item.count_bytes() for item in response.output))
        self.done = True

    def _broken(self, event: bytes, kind: str) -> GatewayError:
        try:
            content = msgspec.json.decode(event)
        except RecursionError:
            return self._no_part("nested too deeply")
        if kind == "response.failed":
            response = content.get("response")
            return _failure(response.get("error") if isinstance(response, dict) else None, self._secrets)
        if kind == "response.cancelled":
            return ProviderFault("The provider broke off in the middle of the answer.", detail=kind)
        if kind == "error" or is_error(content):
            return _failure(content.get("error") or content, self._secrets)
        return self._no_part("no type")

    def _why_not_an_event(self, event: bytes, problem: Exception) -> GatewayError:
        if event.strip() == b"[DONE]":
            return ProviderNonsense("The provider's stream ended in the middle of the answer.", detail="[DONE] before response.completed")
        if isinstance(problem, msgspec.ValidationError):
            return self._no_part(str(problem))
        return ProviderNonsense("The provider's stream holds an event that is not JSON.", detail=type(problem).__name__)

    @staticmethod
    def _no_part(detail: str) -> ProviderNonsense:
        return ProviderNonsense("The provider's stream holds an event that is no part of a response.", detail=detail[:200])


def _framed(kind: str, event: bytes) -> bytes:
    """The wire form of one event: its type is its name."""
    return b"event: %b\n%b" % (kind.replace("\n", "").replace("\r", "").encode(), frame(event))
