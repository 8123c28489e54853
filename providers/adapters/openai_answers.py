"""A whole answer in OpenAI's dialect: parsed, and given on as it is unless a client of OpenAI's could not read it.

`openai_stream` is the same for streams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from core.chat import Answer
from core.errors import GatewayError, ProviderFault, ProviderNonsense
from core.usage import refused_counts
from providers.adapters.openai_errors import why_not
from providers.adapters.openai_stream import FINISH_REASONS, INTERRUPTED, Text, made_up_id, plain_text, read_usage
from providers.adapters.reading import UNREADABLE
from providers.adapters.translated import require_calls

_ABSENT = msgspec.Raw(b"")


class _Message(Text):
    content: str | list[Any] | msgspec.UnsetType | None = msgspec.UNSET  # type: ignore[assignment]
    refusal: str | msgspec.UnsetType | None = msgspec.UNSET  # type: ignore[assignment]
    role: str = ""


class _Choice(msgspec.Struct):
    index: int | msgspec.UnsetType = msgspec.UNSET
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _ABSENT
    usage: Any = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    id: str | None = None
    object: str = ""
    created: int | float | None = None
    model: str | None = None
    usage: Any = None
    service_tier: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Completion).decode


def read_chat_answer(body: bytes, secrets: Sequence[str]) -> Answer:
    """See `base.Adapter.read_answer`. The vendor's bytes as they are, unless something of OpenAI's schema is missing or empty."""
    try:
        if not body.isascii():
            body.decode()  # skipped parts of JSON are not checked for UTF-8
        answer = _decode(body)
    except UNREADABLE as exc:
        raise why_not_an_answer(body, exc, secrets) from None
    if answer.error or not answer.choices:
        raise why_not_an_answer(body, None, secrets)
    complete = bool(answer.id and answer.model) and answer.object == "chat.completion" and isinstance(answer.created, int)
    output_bytes = 0
    usage = answer.usage
    for choice in answer.choices:
        if not choice.finish_reason:
            raise ProviderNonsense("The provider's answer does not say how it ended: it has no finish_reason.")
        if choice.finish_reason in INTERRUPTED:
            raise ProviderFault("The provider broke off in the middle of the answer.", detail=f"finish_reason {choice.finish_reason}")
        usage = choice.usage if usage is None else usage
        message = choice.message
        require_message(message, choice.finish_reason)
        complete = complete and message is not None and _conforms(choice, message)
        if message is not None:
            output_bytes += message.count_bytes()
            if message.tool_calls and any(call.is_unnamed for call in message.tool_calls):
                raise ProviderNonsense("The provider's answer calls a tool without naming it.")
    reason = answer.choices[0].finish_reason or ""
    if not output_bytes:
        require_calls(reason)
    counted = read_usage(usage, answer.service_tier)
    refused = "" if counted is not None else refused_counts(usage)
    return Answer(body if complete else _repaired(body), counted, FINISH_REASONS.get(reason, reason), output_bytes, refused)


def require_message(message: object, finish_reason: str) -> None:
    """Raises ProviderNonsense for a choice without a message, which is no answer; Azure leaves out one that it has blocked."""
    if message is None and finish_reason != "content_filter":
        raise ProviderNonsense("The provider's answer is JSON, but not a chat answer.", detail="no message")


def why_not_an_answer(body: bytes, problem: Exception | None, secrets: Sequence[str]) -> GatewayError:
    """See `openai_errors.why_not`."""
    return why_not(body, problem or "no choices", "The provider's answer is JSON, but not a chat answer.", secrets)


def _conforms(choice: _Choice, message: _Message) -> bool:
    return (
        choice.index is not msgspec.UNSET
        and choice.logprobs is not _ABSENT
        and choice.finish_reason not in FINISH_REASONS
        and message.refusal is not msgspec.UNSET
        and message.content is not msgspec.UNSET
        and message.content.__class__ is not list
        and message.role == "assistant"
        and not (message.tool_calls and any(not call.id or call.has_blanks or call.lacks_arguments for call in message.tool_calls))
    )


def _repaired(body: bytes) -> bytes:
    """The same answer with the keys that OpenAI's schema requires; what the vendor did say is kept."""
    answer = msgspec.json.decode(body)
    answer["id"] = answer.get("id") or "chatcmpl-" + hashlib.sha256(body).hexdigest()[:24]
    answer["object"] = "chat.completion"
    answer["created"] = int(answer.get("created") or 0)
    answer["model"] = answer.get("model") or "unknown"
    for position, choice in enumerate(answer["choices"]):
        choice.setdefault("index", position)
        choice.setdefault("logprobs", None)
        choice["finish_reason"] = FINISH_REASONS.get(choice["finish_reason"], choice["finish_reason"])
        message = choice["message"] = choice.get("message") or {}
        message["role"] = "assistant"
        message.setdefault("content", None)
        message.setdefault("refusal", None)
        if isinstance(message["content"], list):
            plain_text(message)
        for number, call in enumerate(message.get("tool_calls") or ()):
            call["id"] = call.get("id") or made_up_id(answer["id"], position, number)
            call["type"] = call.get("type") or "function"
            if call["type"] == "function" and call["function"].get("arguments") is None:
                call["function"]["arguments"] = "{}"
    return msgspec.json.encode(answer)
