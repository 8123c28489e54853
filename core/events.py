"""What a chat model answered, in no vendor's dialect: the answer half of the one event model.

An adapter reads its wire into these, a door writes them in its client's dialect. A stream is `Begun`, then content, then
`Ended`; `Counted` may come anywhere and more than once, and the last one holds. A whole answer is the `Result` of the same.
One answer only: several choices (`n`) exist only where both sides speak one dialect, and there nothing is translated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from core.conversation import Reasoning, Text, ToolUse
from core.usage import Usage, refused_counts


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """`model` is the vendor's own string, `created` wall seconds or 0. Empty where the vendor does not say."""

    id: str = ""
    model: str = ""
    created: int = 0


class TextDelta(msgspec.Struct, frozen=True, tag="text"):
    text: str


class RefusalDelta(msgspec.Struct, frozen=True, tag="refusal"):
    """The model's own words of refusal, where the vendor keeps them apart from the answer."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, tag="reasoning"):
    """A piece of thought. A `signature` or `redacted` comes whole and ends the thought it belongs to; thought after it is a new one."""

    text: str = ""
    signature: str = ""
    redacted: str = ""


class ToolBegun(msgspec.Struct, frozen=True, tag="tool"):
    """Tool calls are numbered from 0 by `position`, in order of appearance. `id` is never empty: the adapter makes one up if need be."""

    position: int
    id: str
    name: str
    signature: str = ""


class ToolDelta(msgspec.Struct, frozen=True, tag="arguments"):
    """The next piece of JSON text of the arguments of the call at `position`. Pieces of several calls may alternate."""

    position: int
    arguments: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """`reason` is stop | length | tool_calls | content_filter, `native` the vendor's own word for it."""

    reason: str
    native: str = ""
    stop_sequence: str = ""


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    usage: Usage


class Miscounted(msgspec.Struct, frozen=True, tag="miscounted"):
    """The vendor gave numbers that cannot be; `said` as `core.usage.refused_counts` shows them. What it gave before holds."""

    said: str


def counted(usage: Usage | None, said: Any) -> Counted | Miscounted:
    """`usage` as it was read of what the vendor `said`."""
    return Miscounted(refused_counts(said)) if usage is None else Counted(usage)


Content = TextDelta | RefusalDelta | ReasoningDelta | ToolBegun | ToolDelta
ChatEvent = Begun | Content | Ended | Counted | Miscounted


class Result(msgspec.Struct):
    """A whole answer. `parts` in the order in which the model made them; `usage` None = the vendor gave no usable numbers."""

    parts: list[Text | Reasoning | ToolUse]
    ended: Ended
    id: str = ""
    model: str = ""
    created: int = 0
    refusal: str = ""
    usage: Usage | None = None
    refused_counts: str = ""

    @property
    def output_bytes(self) -> int:
        """UTF-8 bytes of everything said: the ground for estimates."""
        return len(self.refusal.encode()) + sum(map(_part_bytes, self.parts))


def _part_bytes(part: Text | Reasoning | ToolUse) -> int:
    if isinstance(part, ToolUse):
        return len(part.name.encode()) + len(part.arguments.encode())
    return len(part.text.encode())


def said_bytes(event: Content) -> int:
    """UTF-8 bytes that the event adds to what was said."""
    if isinstance(event, ToolBegun):
        return len(event.name.encode())
    text = event.arguments if isinstance(event, ToolDelta) else event.text
    return len(text) if text.isascii() else len(text.encode())


def gathered(events: Iterable[ChatEvent]) -> Result:
    """The whole answer that a stream tells. Raises ValueError where it has no end."""
    begun, ended, usage, refusal, miscounted = Begun(), None, None, "", ""
    parts: list[Text | Reasoning | ToolUse] = []
    calls: dict[int, ToolUse] = {}
    for event in events:
        match event:
            case Begun():
                begun = event
            case Ended():
                ended = event
            case Counted():
                usage = event.usage
            case Miscounted():
                miscounted = event.said
            case RefusalDelta():
                refusal += event.text
            case TextDelta():
                _add_text(parts, event.text)
            case ReasoningDelta():
                _add_reasoning(parts, event)
            case ToolBegun():
                calls[event.position] = ToolUse(event.id, event.name, signature=event.signature)
                parts.append(calls[event.position])
            case ToolDelta():
                calls[event.position].arguments += event.arguments
    if ended is None:
        raise ValueError("the stream has no end")
    return Result(parts, ended, begun.id, begun.model, begun.created, refusal, usage, "" if usage else miscounted)


def _add_text(parts: list[Text | Reasoning | ToolUse], text: str) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, Text):
        last.text += text
    elif text:
        parts.append(Text(text))


def _add_reasoning(parts: list[Text | Reasoning | ToolUse], event: ReasoningDelta) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, Reasoning) and not last.signature and not last.redacted and not event.redacted:
        last.text += event.text
        last.signature = event.signature
    elif event.text or event.signature or event.redacted:
        parts.append(Reasoning(event.text, event.signature, event.redacted))


def told(result: Result) -> list[ChatEvent]:
    """The stream that tells the same as `result`, each part in one piece."""
    events: list[ChatEvent] = [Begun(result.id, result.model, result.created)]
    position = 0
    for part in result.parts:
        match part:
            case Text():
                events.append(TextDelta(part.text))
            case Reasoning():
                events.append(ReasoningDelta(part.text, part.signature, part.redacted))
            case ToolUse():
                events.append(ToolBegun(position, part.id, part.name, part.signature))
                if part.arguments:
                    events.append(ToolDelta(position, part.arguments))
                position += 1
    if result.refusal:
        events.append(RefusalDelta(result.refusal))
    if result.usage is not None:
        events.append(Counted(result.usage))
    return [*events, result.ended]
