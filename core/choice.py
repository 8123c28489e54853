"""Which of several models is asked first, and why. Pure: facts of one moment in, an order and reasons out.

A `Decision` holds every fact that it was made of, chance included, so that it can be stored and made again: `replay`.
Candidates stand in stages: all of one stage come before those of the next. Each stage has a strategy:

  priority    as listed
  weighted    the aliases by chance, each as often as its weight says; the models of one alias as listed
  cost        the cheapest for this request's size first; a price that is not known is no low price
  speed       what is expected to answer first; what was not measured lately is tried as soon as it is idle, to find out
  quality     the best first, by the figure in the model's row
  least_busy  the fewest calls in flight first

What is known not to be able to take the request is left out, unless nothing else is there to ask: then the vendors judge. What is
paused is asked last of its stage, save by `priority`, which keeps its order. Those of a provider that did not give its list of models
when no calls went there, and those that did not answer a probe, are asked after all others, save those that stand in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from core.money import plain

PRIORITY = "priority"
STRATEGIES = (PRIORITY, "weighted", "cost", "speed", "quality", "least_busy")
# More are not looked at, so that what is stored has a bound.
MAX_CANDIDATES = 32
# The ledger's column.
MAX_TASK_TYPE = 60
_MAX_HEADER = 1000


class Stage(msgspec.Struct, array_like=True, frozen=True):
    """`label` is for people, e.g. "targets of support". `stands_in`: for those of the other stages, when all of them failed."""

    label: str
    strategy: str = PRIORITY
    stands_in: bool = False


class Candidate(msgspec.Struct, array_like=True, frozen=True):
    """One model at one provider, as it stood. `stage` is an index of `Decision.stages`.

    `lacks`: of what the request needs, what this model is known not to have, as a sentence; "" = nothing. `window` 0 = not known, or
    long conversations are shortened for it. `paused_s`: until a call may be tried. `cost_micros` of this request, `expected_s` until
    its answer is whole: None = not known. `in_flight`: calls of this process. `doubted`: see `gateway.listing`,
    `ill`: see `gateway.probing`.
    """

    stage: int
    alias: str
    provider: str
    model: str
    lacks: str = ""
    window: int = 0
    paused_s: float = 0.0
    weight: int = 1
    quality: int = 50
    cost_micros: int | None = None
    expected_s: float | None = None
    in_flight: int = 0
    doubted: bool = False
    ill: bool = False

    @property
    def suspect(self) -> bool:
        return self.doubted or self.ill


class Decision(msgspec.Struct, array_like=True, frozen=True):
    """`asked` is the name in the request, `needs` e.g. tools, images. Tokens: about so many go in, and so many are assumed to come out;
    `most_tokens` have to fit into the window. `draw` from 0 to below 1 is the chance that was used; `currency` that of the costs.
    `order`: indices of `candidates`, as they are asked; those that are not in it were rejected."""

    asked: str
    task_type: str
    stages: tuple[Stage, ...]
    needs: tuple[str, ...]
    input_tokens: int
    output_tokens: int
    most_tokens: int
    draw: float
    currency: str
    candidates: tuple[Candidate, ...]
    order: tuple[int, ...] = ()


class Line(NamedTuple):
    """What became of one candidate: `place` from 1, None = rejected."""

    place: int | None
    candidate: Candidate
    stage: str
    strategy: str
    reason: str


def is_task_type(name: str) -> bool:
    return _TASK_TYPE.fullmatch(name) is not None


_TASK_TYPE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:/-]{{0,{MAX_TASK_TYPE - 1}}}")
_decode = msgspec.json.Decoder(Decision).decode
_encode = msgspec.json.Encoder().encode


def decided(facts: Decision) -> Decision:
    """The same facts, with the order that follows from them."""
    return msgspec.structs.replace(facts, order=tuple(_order(facts)))


def stored(decision: Decision) -> str:
    return _encode(decision).decode()


def read(text: str) -> Decision | None:
    """None where `text` is no stored decision."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return None


def replay(text: str) -> tuple[int, ...]:
    """The order that follows from the facts of a stored decision, whatever it says of the order. Raises msgspec.DecodeError."""
    return decided(_decode(text)).order


# The order ----------------------------------------------------------------------------------------------------------


def rejection(candidate: Candidate, facts: Decision) -> str:
    """Why this one cannot take the request; "" = it can."""
    if candidate.lacks:
        return candidate.lacks
    if candidate.window and facts.most_tokens > candidate.window:
        return f"its window of {candidate.window:,} tokens is too small for about {facts.most_tokens:,}"
    return ""


def _order(facts: Decision) -> Iterable[int]:
    fit = _fitting(facts)
    suspect = [index for index in fit if facts.candidates[index].suspect]
    sound = [index for index in fit if not facts.candidates[index].suspect] if suspect else fit
    for stands_in in (False, True):
        for found in (sound, suspect):
            for number, stage in enumerate(facts.stages):
                if stage.stands_in is stands_in:
                    yield from _in_stage(stage.strategy, [index for index in found if facts.candidates[index].stage == number], facts)


def _fitting(facts: Decision) -> list[int]:
    fit = [index for index, candidate in enumerate(facts.candidates) if not rejection(candidate, facts)]
    if any(not facts.stages[facts.candidates[index].stage].stands_in for index in fit):
        return fit
    doubtful = {index for index, candidate in enumerate(facts.candidates) if not facts.stages[candidate.stage].stands_in}
    return sorted(doubtful.union(fit))


def _in_stage(strategy: str, members: list[int], facts: Decision) -> list[int]:
    if strategy == PRIORITY:
        return members
    ready = [index for index in members if not facts.candidates[index].paused_s]
    waiting = [index for index in members if facts.candidates[index].paused_s]
    if strategy == "weighted":
        return [*_drawn(ready, facts), *waiting]
    return [*sorted(ready, key=lambda index: _merit(strategy, facts.candidates[index])), *waiting]


def _merit(strategy: str, candidate: Candidate) -> tuple[float, float]:
    """The smaller the better; sorting keeps equals as they are listed."""
    if strategy == "cost":
        return (1, 0) if candidate.cost_micros is None else (0, candidate.cost_micros)
    if strategy == "speed":
        if candidate.expected_s is not None:
            return 1, candidate.expected_s
        return (2, candidate.in_flight) if candidate.in_flight else (0, 0)
    if strategy == "quality":
        return 0, -candidate.quality
    return 0, candidate.in_flight


def _drawn(members: Sequence[int], facts: Decision) -> Iterable[int]:
    """The aliases one by one, each with its weight's chance of being the next, all out of the one `draw`."""
    groups: dict[str, list[int]] = {}
    for index in members:
        groups.setdefault(facts.candidates[index].alias, []).append(index)
    weights = {alias: max(1, facts.candidates[group[0]].weight) for alias, group in groups.items()}
    draw = facts.draw
    while weights:
        point = draw * sum(weights.values())
        for alias, weight in weights.items():  # noqa: B007  (the one at which it ends is used below)
            if point < weight:
                break
            point -= weight
        # What is left of the draw is as even as the whole was. The minimum keeps rounding from reaching 1.
        draw = min(max(point, 0.0) / weight, 1 - 2**-53)
        del weights[alias]
        yield from groups[alias]


# In words -----------------------------------------------------------------------------------------------------------


def explained(decision: Decision) -> list[Line]:
    """Each candidate once: those that were asked in their order, then the rejected."""
    lines = [_line(decision, index, place) for place, index in enumerate(decision.order, 1)]
    left_out = sorted(set(range(len(decision.candidates))) - set(decision.order))
    return lines + [_line(decision, index, None) for index in left_out]


def _line(decision: Decision, index: int, place: int | None) -> Line:
    candidate = decision.candidates[index]
    stage = decision.stages[candidate.stage]
    reason = rejection(candidate, decision)
    if place is not None:
        reason = f"{reason}; asked all the same, for nothing else is there" if reason else _reason(stage.strategy, candidate, decision)
    return Line(place, candidate, stage.label, stage.strategy, reason)


def _reason(strategy: str, candidate: Candidate, decision: Decision) -> str:
    if candidate.paused_s:
        return f"paused after failures or a limit, for another {candidate.paused_s:.1f} s"
    if candidate.ill:
        return "asked after the others: it did not answer when it was last probed"
    if candidate.doubted:
        return "asked after the others: it did not give its list of models when it was last asked"
    if strategy == "weighted":
        return f"drawn with a weight of {candidate.weight}"
    if strategy == "cost":
        if candidate.cost_micros is None:
            return "its price is not known"
        size = f"about {decision.input_tokens:,} tokens in and {decision.output_tokens:,} out"
        return f"{plain(candidate.cost_micros)} {decision.currency} for {size}"
    if strategy == "speed":
        if candidate.expected_s is not None:
            return f"expected to take {candidate.expected_s:.2f} s"
        return "not measured lately, and busy" if candidate.in_flight else "not measured lately, and idle: tried to find out"
    if strategy == "quality":
        return f"quality {candidate.quality} of 100"
    return f"{candidate.in_flight} calls in flight" if strategy == "least_busy" else "as listed"


def in_short(decision: Decision) -> str:
    """One line for a header, at most 1,000 characters."""
    lines = explained(decision)
    said = (
        f"{line.place}. {_name(line)} ({line.strategy}: {line.reason})" if line.place else f"not {_name(line)}: {line.reason}"
        for line in lines
    )
    return "; ".join(said)[:_MAX_HEADER] or "no model to choose from"


def _name(line: Line) -> str:
    return f"{line.candidate.alias} at {line.candidate.provider}"
