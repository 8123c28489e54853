"""A prompt template and values in, messages out. Pure, one pass; what a caller sends is text here and never a template.

Where there is less room than text, whole texts of a context and the oldest turns of a history are left out, nothing is cut in two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from core.errors import ContextTooLong, InvalidRequest
from core.prompts import MessageSpec, PromptVersionSpec
from models_registry import prompt_values
from models_registry.prompt_values import FIELD, Listed, Turned, Value, characters_in
from models_registry.tokens import estimate

# An estimate may be off by this much: what is to fit is counted that much larger.
_DOUBT = 0.15
_FRAME_TOKENS = 4
_MAX_BYTES_PER_CHARACTER = 4


class Said(msgspec.Struct, frozen=True):
    """A message that the template says."""

    role: str
    content: str


class Built(NamedTuple):
    """`left_out`: values that did not fit, by place, e.g. "prompt.variables.history[0..3]"; "" = none."""

    messages: list[Said | msgspec.Raw]
    left_out: str


def build(version: PromptVersionSpec, given: Mapping[str, msgspec.Raw], room_tokens: int | None, max_characters: int) -> Built:
    """The messages of `version` with the values `given`, each JSON as it was sent.

    `room_tokens`: as much as the model takes, None = not known. Raises InvalidRequest, the variable in `param`, where a value is
    missing, not declared, of the wrong type or too long, or where the whole would have more than `max_characters`; ContextTooLong
    where the texts alone are more than the template's `max_input_tokens`.
    """
    values, left_out = prompt_values.read(version.variables, given), ""
    _refuse_expansion(version, values, max_characters)
    most = _least(room_tokens, version.max_input_tokens)
    if most is not None and _may_exceed(version, values, most):
        fixed = _said(version, {name: value if isinstance(value, str) else {} for name, value in values.items()})
        _refuse_too_long(version, fixed)
        values, left_out = _fitted(values, most - sum(map(_cost_of, fixed)))
    messages = _said(version, values)
    if not messages:
        raise InvalidRequest("With these variables the prompt says nothing at all.", param="prompt")
    return Built(messages, left_out)


# Rendering ----------------------------------------------------------------------------------------------------------


def _said(version: PromptVersionSpec, values: Mapping[str, Value]) -> list[Said | msgspec.Raw]:
    """A message with variables that comes out empty is left out."""
    texts = {name: value if isinstance(value, str) else numbered(value) for name, value in values.items()}
    found: list[Said | msgspec.Raw] = []
    for message in version.messages:
        if message.history:
            history = values[message.history]
            found += [each.raw for each in history.values() if isinstance(each, Turned)] if not isinstance(history, str) else ()
            continue
        parts = [message.literals[0]]
        for name, literal in zip(message.names, message.literals[1:], strict=True):
            parts += (texts[name], literal)
        text = "".join(parts)
        if text.strip() or not message.names:
            found.append(Said(message.role, text))
    return found


def numbered(texts: Listed) -> str:
    """Each with its number, by its place among all that were given: an answer's "[3]" means the third that the caller sent."""
    return "\n\n".join(f"[{at + 1}] {text}" for at, text in texts.items() if isinstance(text, str))


def _refuse_expansion(version: PromptVersionSpec, values: Mapping[str, Value], max_characters: int) -> None:
    """Before anything is put together: a value that is used often must not become gigabytes."""
    sizes = {name: characters_in(value) for name, value in values.items()}
    total = sum(_size(message, sizes) for message in version.messages)
    if total > max_characters:
        raise InvalidRequest(
            f"The prompt would have {total:,} characters with these variables; at most {max_characters:,}.", param="prompt"
        )


def _size(message: MessageSpec, sizes: Mapping[str, int]) -> int:
    return sum(map(len, message.literals)) + sum(sizes[name] for name in message.names) + sizes.get(message.history, 0)


# Fitting ------------------------------------------------------------------------------------------------------------


def tokens_of(message: Said | msgspec.Raw) -> int:
    """An estimate, with what frames a message."""
    return _FRAME_TOKENS + estimate(message.content if isinstance(message, Said) else bytes(message).decode())


def _cost_of(message: Said | msgspec.Raw) -> int:
    return int(tokens_of(message) * (1 + _DOUBT)) + 1


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _may_exceed(version: PromptVersionSpec, values: Mapping[str, Value], most: int) -> bool:
    """A token is a byte at least: what is that small need not be counted."""
    sizes = {name: characters_in(value) for name, value in values.items()}
    used = sum(_size(message, sizes) for message in version.messages)
    items = len(version.messages) + sum(len(value) for value in values.values() if not isinstance(value, str))
    return used * _MAX_BYTES_PER_CHARACTER + items * 3 * _FRAME_TOKENS > most


def _refuse_too_long(version: PromptVersionSpec, fixed: list[Said | msgspec.Raw]) -> None:
    if version.max_input_tokens is not None and (tokens := sum(map(tokens_of, fixed))) > version.max_input_tokens:
        raise ContextTooLong(
            f"Without history and context the prompt has about {tokens:,} tokens already; it may have {version.max_input_tokens:,}. "
            "Send shorter texts.",
            param="prompt",
        )


def _fitted(values: Mapping[str, Value], room: int) -> tuple[dict[str, Value], str]:
    """What of the lists has room. Texts come in order of worth, turns in order of time: the last ones are wanted, without a gap.

    Texts may take half of the room, or all where there is no history; then turns; then texts again, if there is room left.
    """
    lists = {name: value for name, value in values.items() if not isinstance(value, str)}
    texts = [(name, at, _cost_of(Said("", text))) for name, value in lists.items() for at, text in value.items() if isinstance(text, str)]
    turns = [(name, *turn) for name, value in lists.items() for turn in _turns(value)]
    kept: dict[str, set[int]] = {name: set() for name in lists}
    room -= _take_texts(texts, kept, room // 2 if turns else room)
    room -= _take_turns(turns, kept, room)
    _take_texts(texts, kept, room)
    shown = {name: {at: each for at, each in value.items() if at in kept[name]} for name, value in lists.items()}
    gone = [f"{FIELD}.{name}{span}" for name, value in lists.items() for span in _spans([at for at in value if at not in kept[name]])]
    return {**values, **shown}, ", ".join(gone)


def _take_texts(texts: Iterable[tuple[str, int, int]], kept: Mapping[str, set[int]], room: int) -> int:
    """How much they take. One that is too long is passed over for those after it."""
    before = room
    for name, at, cost in texts:
        if at not in kept[name] and cost <= room:
            kept[name].add(at)
            room -= cost
    return before - room


def _turns(history: Listed) -> list[tuple[range, int]]:
    """(its messages, what it costs), the latest first. What comes before the first turn of the user's is a turn, too."""
    found: list[tuple[range, int]] = []
    end = max(history, default=-1) + 1
    cost = 0
    for at, each in sorted(history.items(), reverse=True):
        if isinstance(each, Turned):
            cost += _cost_of(each.raw)
            if each.opens or not at:
                found.append((range(at, end), cost))
                end, cost = at, 0
    return found


def _take_turns(turns: Iterable[tuple[str, range, int]], kept: Mapping[str, set[int]], room: int) -> int:
    before, closed = room, set[str]()
    for name, span, cost in turns:
        if name in closed or cost > room:
            closed.add(name)
            continue
        kept[name].update(span)
        room -= cost
    return before - room


def _spans(places: list[int]) -> list[str]:
    """[0, 1, 2, 5] → "[0..2]", "[5]"."""
    spans: list[list[int]] = []
    for at in places:
        if spans and spans[-1][1] == at - 1:
            spans[-1][1] = at
        else:
            spans.append([at, at])
    return [f"[{first}..{last}]" if last > first else f"[{first}]" for first, last in spans]
