"""From a request to its targets, where its name leaves a choice: `auto`, a route, or several names.

Here the facts of the moment are gathered; what follows from them, `core.choice` decides. Nothing is asked of anybody: health is
what live traffic has shown (breakers, keys that rest) and, where there was none, what `gateway.listing` and `gateway.probing` have;
speed is what `gateway.vitals` has measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from core.chat import ChatRequest
from core.choice import MAX_CANDIDATES, PRIORITY, Candidate, Decision, Stage, decided, in_short
from core.clock import Clock
from core.config import CallerSpec, Snapshot
from core.errors import InvalidRequest
from core.money import converted, cost_micros
from core.usage import Usage
from gateway.needs import needs_of
from gateway.router import AUTO, Target, View, of_right_kind, open_targets, route_for, targets_of

# Of the models that a key may use, so many are tried where nothing else is left.
_LAST_RESORTS = 10
# Those that stand in for all others are few, and the last of them may be a fixed answer: it is not to be cut off.
_STAND_INS = 8
# For a comparison, an answer is taken to become so long where the client does not say how long it may.
_USUAL_OUTPUT_TOKENS = 500
_MAX_NAME = 100


class _Members(NamedTuple):
    stage: Stage
    targets: Sequence[Target]


def chosen(
    view: View, caller: CallerSpec, request: ChatRequest, clock: Clock, draw: Callable[[], float]
) -> tuple[tuple[Target, ...], Decision]:
    """Targets in the order in which they are tried, at least one, and why. `draw`: evenly from 0 to below 1, asked only where chance
    decides. Raises UnknownModel, NotPermitted, InvalidRequest.
    """
    members = _each_once(_stages(view, caller, request))
    candidates = _within_bounds(members)
    size = _Size.of(request)
    facts = Decision(
        asked=request.model[:_MAX_NAME],
        task_type=request.task_type,
        stages=tuple(stage.stage for stage in members),
        needs=size.needs,
        input_tokens=size.input_tokens,
        output_tokens=size.output_tokens,
        most_tokens=size.most_tokens,
        draw=draw() if any(stage.stage.strategy == "weighted" for stage in members) else 0.0,
        currency=view.snapshot.currency,
        candidates=tuple(_candidate(number, target, members[number].stage.strategy, size, view, clock) for number, target in candidates),
    )
    decision = decided(facts)
    return tuple(candidates[index][1] for index in decision.order), decision


def header(decision: Decision | None, target: Target | None) -> bytes:
    """What `x-llm-explain` answers."""
    if decision is not None:
        text = in_short(decision)
    elif target is not None:
        text = f"named by the request: {target.model.alias} at {target.provider.name}"
    else:
        text = "refused before a model was chosen"
    return text.encode("unicode_escape")


def asked_for_any(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """A target's headers name what was asked for, which here is not what stands in front of it."""
    return ((name, AUTO.encode() if name == b"x-llm-alias" else value) for name, value in headers)


# Who there is -------------------------------------------------------------------------------------------------------


def _stages(view: View, caller: CallerSpec, request: ChatRequest) -> list[_Members]:
    """Those that stand in for all others come last, whoever named them."""
    found = list(_of_name(view, caller, request, request.model, "model"))
    for place, alias in enumerate(request.fallbacks):
        found += _of_name(view, caller, request, alias, f"models[{place}]")
    return sorted((stage for stage in found if stage.targets), key=lambda stage: stage.stage.stands_in)


def _of_name(view: View, caller: CallerSpec, request: ChatRequest, alias: str, param: str) -> Iterable[_Members]:
    if alias == AUTO:
        return _auto(view, caller, request)
    return _parted(view, alias, of_right_kind(targets_of(view, caller, alias, param), request, alias, param))


def _parted(view: View, alias: str, targets: tuple[Target, ...]) -> Iterable[_Members]:
    route = view.snapshot.routes.get(alias)
    name = alias[:_MAX_NAME]
    if route is None:
        yield _Members(Stage(f"models of {name}"), targets)
        return
    yield _Members(Stage(f"route {name}", route.strategy), [target for target in targets if not target.fallback and not target.degraded])
    yield _Members(Stage(f"fallbacks of route {name}"), [target for target in targets if target.fallback])
    yield _Members(Stage(f"last of route {name}", PRIORITY, True), [target for target in targets if target.degraded])


def _auto(view: View, caller: CallerSpec, request: ChatRequest) -> Iterable[_Members]:
    """The task type's route, or the route or model that is called auto; and after it whatever chat model this key may use."""
    embeds = request.dialect.SCOPE == "embeddings"
    alias = route_for(view, caller, request.task_type) or (AUTO if caller.may_name(AUTO) else "")
    targets = open_targets(view, caller, alias) if alias else ()
    if targets and (targets[0].model.model_type == "embedding") == embeds:
        yield from _parted(view, alias, targets)
    elif embeds:
        raise InvalidRequest("No route makes embeddings for this task type: name a model; GET /v1/models lists them.", param="model")
    if embeds:
        return
    last = _last_resorts(view, caller)
    if not targets and not last:
        raise InvalidRequest("There is nothing to choose from: this key may use no chat model.", param="model")
    yield _Members(Stage("any model this key may use"), last)


def _last_resorts(view: View, caller: CallerSpec) -> list[Target]:
    """In the order of their priority, then by name; those that are paused last."""
    ready: list[Target] = []
    paused: list[Target] = []
    for alias in view.chat:
        for target in open_targets(view, caller, alias) if caller.may_name(alias) else ():
            (paused if target.runtime.paused_s(target.model.model_id) else ready).append(target)
        if len(ready) >= _LAST_RESORTS:
            break
    return (ready + paused)[:_LAST_RESORTS]


def _each_once(stages: Iterable[_Members]) -> list[_Members]:
    seen: set[tuple[str, str]] = set()
    found = []
    for stage, targets in stages:
        fresh = []
        for target in targets:
            identity = target.model.id, target.model.alias  # fixed answers share the id, and have their route's alias
            if identity not in seen:
                seen.add(identity)
                fresh.append(target)
        if fresh:
            found.append(_Members(stage, fresh))
    return found


def _within_bounds(stages: list[_Members]) -> list[tuple[int, Target]]:
    """(number of the stage, target)"""
    usual = [(number, target) for number, (stage, targets) in enumerate(stages) if not stage.stands_in for target in targets]
    last = [(number, target) for number, (stage, targets) in enumerate(stages) if stage.stands_in for target in targets]
    return usual[: MAX_CANDIDATES - _STAND_INS] + last[-_STAND_INS:]


# What is known of them ----------------------------------------------------------------------------------------------


class _Size(NamedTuple):
    """See `Decision`."""

    needs: tuple[str, ...]
    input_tokens: int
    output_tokens: int
    most_tokens: int

    @classmethod
    def of(cls, request: ChatRequest) -> _Size:
        entering, asked = request.estimated_input_tokens, request.max_output_tokens
        if request.dialect.SCOPE == "embeddings":
            return cls((), entering, 0, entering)
        return cls(needs_of(request), entering, asked or _USUAL_OUTPUT_TOKENS, entering + (asked or 0))


def _candidate(number: int, target: Target, strategy: str, size: _Size, view: View, clock: Clock) -> Candidate:
    """Only what the strategy goes by is looked at."""
    model, vitals = target.model, target.vitals
    lacks = [model.lacks[need] for need in size.needs if need in model.lacks]
    output_tokens = min(size.output_tokens, model.max_output_tokens or size.output_tokens)
    expected_s = vitals.expected_s(clock.monotonic(), output_tokens) if vitals is not None and strategy == "speed" else None
    return Candidate(
        stage=number,
        alias=model.alias[:_MAX_NAME],
        provider=target.provider.name[:_MAX_NAME],
        model=model.model_id[:_MAX_NAME],
        lacks="; ".join(lacks),
        window=0 if model.truncate else target.window,
        paused_s=round(target.runtime.paused_s(model.model_id), 3),
        weight=target.weight,
        quality=model.quality,
        cost_micros=_cost(target, size.input_tokens, output_tokens, view.snapshot, clock.wall()) if strategy == "cost" else None,
        expected_s=None if expected_s is None else round(expected_s, 6),
        in_flight=vitals.in_flight if vitals is not None else 0,
        doubted=target.runtime.standing.doubt != "",
        ill=model.model_id in target.runtime.standing.ill,
    )


def _cost(target: Target, input_tokens: int, output_tokens: int, snapshot: Snapshot, wall_s: float) -> int | None:
    """In the reporting currency; None = price or exchange rate unknown."""
    price = target.model.price_at(wall_s, input_tokens)
    if price is None:
        return None
    cost = cost_micros(Usage(input=input_tokens, output=output_tokens), price, target.provider.price_adjustment_bp)
    if price.currency == snapshot.currency:
        return cost
    rate = snapshot.rate_at(price.currency, wall_s)
    return None if rate is None else converted(cost, rate)
