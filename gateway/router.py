"""Which targets may answer, in which order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from core.chat import ChatRequest
from core.config import CallerSpec, ModelSpec, PriceSpec, ProviderSpec, RouteSpec, Snapshot
from core.errors import InvalidRequest, NotPermitted, UnknownModel
from gateway.limits import Gate, Gates
from gateway.runtime import ProviderRuntime
from gateway.vitals import Vitals
from monitoring.metrics import TargetMetrics
from providers.adapters.registry import FIXED_ANSWER

# Nothing is bought, and so the price is known; money of nothing needs some currency all the same.
_FREE = PriceSpec("", "USD", 0.0, None, input=0, cached_input=0, cache_write=0, output=0)
# Instead of the name of a model: choose one.
AUTO = "auto"


class Link(NamedTuple):
    """A model in a chain. `degraded`: it stands in for better ones that failed; `fallback`: it comes after the targets of the route."""

    model: ModelSpec
    degraded: bool = False
    fallback: bool = False
    weight: int = 1


class Target(msgspec.Struct, frozen=True, eq=False):
    """A model at a live provider, with everything that can be worked out once per configuration instead of per request.

    `window` is the most tokens a prompt may have, 0 = not known. `gate`: our limits on this model there and on its provider, if any.
    `degraded`: it stands in for those before it, when all of them failed. `cache_ttl_s` is the chain's, and the same of all its targets:
    for so long its answers may be given again, 0 = they may not; `identity` then tells it from other targets.
    `fallback` and `weight`: see `Link`. `vitals` None: nobody asks how fast or how busy it is.
    """

    model: ModelSpec
    provider: ProviderSpec
    runtime: ProviderRuntime
    metrics: TargetMetrics
    headers: tuple[tuple[bytes, bytes], ...]
    window: int = 0
    gate: Gate | Gates | None = None
    degraded: bool = False
    cache_ttl_s: int = 0
    identity: bytes = b""
    fallback: bool = False
    weight: int = 1
    vitals: Vitals | None = None


class View(msgspec.Struct, frozen=True, eq=False):
    """One configuration, taken once per request.

    `chosen`: the names whose models are put in order for each request (`gateway.choice`). `task_routes`: task type → route. `chat`:
    aliases of chat models, in the order in which they are tried where nothing is named.
    """

    snapshot: Snapshot
    targets: Mapping[str, tuple[Target, ...]]
    chosen: frozenset[str] = frozenset()
    task_routes: Mapping[str, str] = msgspec.field(default_factory=dict)
    chat: tuple[str, ...] = ()

    @classmethod
    def of(cls, snapshot: Snapshot, targets: Mapping[str, tuple[Target, ...]]) -> View:
        task_routes = {name: alias for alias in sorted(snapshot.routes, reverse=True) for name in snapshot.routes[alias].task_types}
        named = ((alias, found[0].model) for alias, found in targets.items() if alias not in snapshot.routes)
        chat = [(model.priority, alias) for alias, model in named if model.model_type == "chat"]
        return cls(snapshot, targets, frozenset({AUTO, *snapshot.routes}), task_routes, tuple(alias for _, alias in sorted(chat)))


def chains(snapshot: Snapshot) -> Iterable[tuple[str, list[Link]]]:
    """What is tried for each name that callers may use, in order. A route comes before the models of its name."""
    for alias, models in snapshot.models.items():
        yield alias, [Link(model) for model in models]
    for alias, route in snapshot.routes.items():
        yield alias, list(_links(snapshot, route))


def _links(snapshot: Snapshot, route: RouteSpec) -> Iterable[Link]:
    """The aliases of a route are those of models, never of routes: a chain has an end."""
    for alias in route.targets:
        weight = route.weights.get(alias, 1)
        yield from (Link(model, weight=weight) for model in snapshot.models.get(alias, ()))
    for alias in route.fallbacks:
        yield from (Link(model, fallback=True) for model in snapshot.models.get(alias, ()))
    yield from (Link(model, degraded=True) for model in snapshot.models.get(route.degrade_to, ()))
    if route.fixed_answer:
        yield Link(ModelSpec(FIXED_ANSWER, route.alias, FIXED_ANSWER, FIXED_ANSWER, prices=(_FREE,)), degraded=True)


def providers_of(snapshot: Snapshot) -> Iterable[ProviderSpec]:
    """The configured ones, and one that gives the routes' fixed answers, where there are any: see `providers.adapters.fixed`."""
    yield from snapshot.providers.values()
    if texts := {route.alias: route.fixed_answer for route in snapshot.routes.values() if route.fixed_answer}:
        yield ProviderSpec(FIXED_ANSWER, FIXED_ANSWER, FIXED_ANSWER, "", options=texts)


def targets_for(view: View, caller: CallerSpec, request: ChatRequest) -> tuple[Target, ...]:
    """Targets in order of preference, at least one. Raises UnknownModel, NotPermitted, InvalidRequest."""
    found = of_right_kind(targets_of(view, caller, request.model), request, request.model)
    return found if len(found) == 1 else doubted_last(found)


def doubted_last(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Those of whom `gateway.listing` or `gateway.probing` found that they do not answer come after the others."""
    if not any((standing := target.runtime.standing).doubt or standing.ill for target in targets):
        return targets
    return tuple(sorted(targets, key=lambda target: target.runtime.standing.speaks_against(target.model.model_id)))


def of_right_kind(targets: tuple[Target, ...], request: ChatRequest, alias: str, param: str = "model") -> tuple[Target, ...]:
    """`targets`. Raises InvalidRequest where they chat and the request wants embeddings, or the other way round."""
    embeds = targets[0].model.model_type == "embedding"
    if embeds != (request.dialect.SCOPE == "embeddings"):
        raise _wrong_kind(alias, embeds, param)
    return targets


def targets_of(view: View, caller: CallerSpec, alias: str, param: str = "model") -> tuple[Target, ...]:
    """What stands behind `alias` for this caller. Raises UnknownModel, NotPermitted."""
    targets = open_targets(view, caller, alias)
    if not targets and alias == AUTO:
        return open_targets(view, caller, default_alias(view, caller))
    if not targets:
        raise _unknown(alias, param)
    if not caller.may_name(alias):
        raise NotPermitted(f"This key may not use the model {alias!r}; ask an administrator to allow it.", param=param)
    return targets


def open_targets(view: View, caller: CallerSpec, alias: str) -> tuple[Target, ...]:
    """What of it is open to the caller's team; what is not, is not there: () = nothing is."""
    if alias in caller.hidden:
        return ()
    targets = view.targets.get(alias, ())
    return tuple(target for target in targets if target.model.id not in caller.barred) if caller.barred else targets


def default_alias(view: View, caller: CallerSpec) -> str:
    """The chat model for a request that names none: of those the key may use, the one of the lowest priority number, then by name.

    Raises InvalidRequest where there is none.
    """
    allowed = ((alias, open_targets(view, caller, alias)) for alias in view.targets if caller.may_name(alias))
    chat = [(targets[0].model.priority, alias) for alias, targets in allowed if targets and targets[0].model.model_type == "chat"]
    if not chat:
        raise InvalidRequest("No model is named, and this key may use no chat model; GET /v1/models lists what it may use.", param="model")
    return min(chat)[1]


def route_for(view: View, caller: CallerSpec, task_type: str) -> str:
    """Where requests of that type go: the route that names it, else the route or model that has its name; "" = nowhere in particular."""
    if not task_type:
        return ""
    named = (view.task_routes.get(task_type, ""), task_type)
    return next((alias for alias in named if alias and caller.may_name(alias) and open_targets(view, caller, alias)), "")


def _wrong_kind(alias: str, embeds: bool, param: str) -> InvalidRequest:
    what = "makes embeddings and cannot chat: send it to /v1/embeddings" if embeds else "is a chat model and makes no embeddings"
    return InvalidRequest(f"The model {alias!r} {what}.", param=param)


def _unknown(alias: str, param: str) -> UnknownModel:
    return UnknownModel(
        f"The model {alias[:200]!r} does not exist, or is switched off; GET /v1/models lists what this key may use.", param=param
    )
