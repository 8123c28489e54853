"""Anthropic's answers in our own words: a whole one, and what streamed ones share with it.

Strict about what would turn a broken answer into an empty success, lenient about types of blocks that are new.
Source: https://docs.anthropic.com/en/api/messages and the types of the official SDK.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from core.conversation import Reasoning, Text, ToolUse
from core.errors import ProviderNonsense
from core.events import Ended, Result
from core.usage import Usage, refused_counts, tier_of
from providers.adapters.anthropic_errors import error_inside
from providers.adapters.openai_stream import made_up_id
from providers.adapters.openai_usage import is_count
from providers.adapters.reading import UNREADABLE

# What is not here counts as stop: end_turn, stop_sequence, tool_use without a call of ours, pause_turn, and what is new.
_REASONS = {"max_tokens": "length", "model_context_window_exceeded": "length", "refusal": "content_filter"}
_NO_INPUT = (b"", b"{}", b"null")


class Block(msgspec.Struct):
    """One content block, or the start of one. `data` is a string in redacted_thinking; other types may use the name otherwise."""

    type: str
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: Any = None
    input: msgspec.Raw = msgspec.Raw(b"")


class _StopDetails(msgspec.Struct):
    explanation: str | None = None


class Stop(msgspec.Struct):
    """How an answer ended."""

    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: _StopDetails | None = None


class Message(Stop):
    """A whole answer, or the beginning of a streamed one."""

    type: str = ""
    id: str | None = None
    model: str | None = None
    content: list[Block] | None = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(Message).decode


def result_from_wire(body: bytes, secrets: Sequence[str] = ()) -> Result:
    """A whole answer in our own words. Raises ProviderNonsense, or the typed error that hides in a 200; `secrets` are masked in it."""
    message = _message(body)
    if message.type == "error" or message.error:
        raise error_inside(message.error, secrets=secrets)
    if message.content is None:
        raise ProviderNonsense("The provider's answer is JSON, but not a chat answer.", detail="no content")
    if not message.stop_reason:
        raise ProviderNonsense("The provider's answer does not say how it ended: it has no stop_reason.")
    parts: list[Text | Reasoning | ToolUse] = []
    calls = 0
    for block in message.content:
        if block.type == "text":
            if block.text is None:
                raise ProviderNonsense("The provider's answer is JSON, but not a chat answer.", detail="a text block without text")
            if block.text:
                parts.append(Text(block.text))
        elif block.type == "thinking" and (block.thinking or block.signature):
            parts.append(Reasoning(block.thinking or "", block.signature or ""))
        elif block.type == "redacted_thinking" and isinstance(block.data, str):
            parts.append(Reasoning(redacted=block.data))
        elif block.type == "tool_use":
            parts.append(ToolUse(*call_of(block, message.id or "", calls), arguments=arguments_of(block)))
            calls += 1
    ended = ended_by(message, calls=calls > 0)
    usage = read_usage(message.usage)
    refused = refused_counts(message.usage) if usage is None else ""
    return Result(parts, ended, message.id or "", message.model or "", refusal=refusal_of(message), usage=usage, refused_counts=refused)


def _message(body: bytes) -> Message:
    try:
        if not body.isascii():
            body.decode()
        return _decode(body)
    except msgspec.ValidationError as exc:
        raise ProviderNonsense("The provider's answer is JSON, but not a chat answer.", detail=str(exc)[:200]) from None
    except UNREADABLE as exc:
        raise ProviderNonsense("The provider's answer is not JSON.", detail=f"{len(body)} bytes, {type(exc).__name__}") from None


def call_of(block: Block, message_id: str, position: int) -> tuple[str, str]:
    """The id and name of a tool call; an id is made up, the same for the same place, where there is none."""
    if not block.name:
        raise ProviderNonsense("The provider's answer calls a tool without naming it.")
    return block.id or made_up_id(message_id, position), block.name


def arguments_of(block: Block) -> str:
    """The arguments as JSON text; what the model left empty is an empty object. Raises ProviderNonsense for what is none."""
    given = bytes(block.input)
    if given in _NO_INPUT:
        return "{}"
    if not given.startswith(b"{"):
        raise ProviderNonsense("The provider's answer holds a tool call whose arguments are no object.")
    return given.decode()


def refusal_of(stop: Stop) -> str:
    """The vendor's explanation of a refusal, "" where it gives none."""
    return (stop.stop_details.explanation or "") if stop.stop_reason == "refusal" and stop.stop_details else ""


def ended_by(stop: Stop, *, calls: bool) -> Ended:
    """The end in our own words; `calls` says whether the answer holds a tool call."""
    native = stop.stop_reason or ""
    reason = _REASONS.get(native) or ("tool_calls" if calls else "stop")
    return Ended(reason, native, stop.stop_sequence or "")


def read_usage(content: Any) -> Usage | None:
    """Anthropic's counts as disjoint buckets; None where they make no sense.

    What the cache gave and took is not part of `input_tokens`; thinking is part of `output_tokens`.
    """
    if not isinstance(content, dict):
        return None
    written, made = content.get("cache_creation") or {}, content.get("output_tokens_details") or {}
    if not isinstance(written, dict) or not isinstance(made, dict):
        return None
    hour = written.get("ephemeral_1h_input_tokens") or 0
    minutes = written.get("ephemeral_5m_input_tokens") or 0
    counts: tuple[Any, ...] = (
        content.get("input_tokens"),
        content.get("output_tokens"),
        content.get("cache_read_input_tokens") or 0,
        content.get("cache_creation_input_tokens") or 0,
        made.get("thinking_tokens") or 0,
        hour,
        minutes,
    )
    if not all(map(is_count, counts)):
        return None
    sent, output, cached, all_written, thought, _, _ = counts
    all_written = all_written or hour + minutes
    hour = min(hour, all_written)
    thought = min(thought, output)
    return Usage(
        input=sent,
        cached_input=cached,
        cache_write=all_written - hour,
        cache_write_1h=hour,
        output=output - thought,
        reasoning=thought,
        service_tier=tier_of(content.get("service_tier")),
    )
