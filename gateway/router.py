"""Which targets may answer, in which order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from core.chat import ChatRequest
from core.config import CallerSpec, ModelSpec, PriceSpec, ProviderSpec, RouteSpec, Snapshot
from core.errors import InvalidRequest, NotPermitted, UnknownModel
from gateway.limits import Gate, Gates
from gateway.runtime import ProviderRuntime
from monitoring.metrics import TargetMetrics
from providers.adapters.registry import FIXED_ANSWER

# Nothing is bought, and so the price is known; money of nothing needs some currency all the same.
_FREE = PriceSpec("", "USD", 0.0, None, input=0, cached_input=0, cache_write=0, output=0)
# A model, and whether it stands in for better ones that failed.
Link = tuple[ModelSpec, bool]


class Target(msgspec.Struct, frozen=True, eq=False):
    """A model at a live provider, with everything that can be worked out once per configuration instead of per request.

    `window` is the most tokens a prompt may have, 0 = not known. `gate`: our limits on this model there and on its provider, if any.
    `degraded`: it stands in for those before it, when all of them failed. `cache_ttl_s` is the chain's, and the same of all its targets:
    for so long its answers may be given again, 0 = they may not; `identity` then tells it from other targets.
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


class View(msgspec.Struct, frozen=True, eq=False):
    """One configuration, taken once per request."""

    snapshot: Snapshot
    targets: Mapping[str, tuple[Target, ...]]


def chains(snapshot: Snapshot) -> Iterable[tuple[str, list[Link]]]:
    """What is tried for each name that callers may use, in order. A route comes before the models of its name."""
    for alias, models in snapshot.models.items():
        yield alias, [(model, False) for model in models]
    for alias, route in snapshot.routes.items():
        yield alias, list(_links(snapshot, route))


def _links(snapshot: Snapshot, route: RouteSpec) -> Iterable[Link]:
    """The aliases of a route are those of models, never of routes: a chain has an end."""
    for alias in route.targets:
        yield from ((model, False) for model in snapshot.models.get(alias, ()))
    yield from ((model, True) for model in snapshot.models.get(route.degrade_to, ()))
    if route.fixed_answer:
        yield ModelSpec(FIXED_ANSWER, route.alias, FIXED_ANSWER, FIXED_ANSWER, prices=(_FREE,)), True


def providers_of(snapshot: Snapshot) -> Iterable[ProviderSpec]:
    """The configured ones, and one that gives the routes' fixed answers, where there are any: see `providers.adapters.fixed`."""
    yield from snapshot.providers.values()
    if texts := {route.alias: route.fixed_answer for route in snapshot.routes.values() if route.fixed_answer}:
        yield ProviderSpec(FIXED_ANSWER, FIXED_ANSWER, FIXED_ANSWER, "", options=texts)


def targets_for(view: View, caller: CallerSpec, request: ChatRequest) -> tuple[Target, ...]:
    """Targets in order of preference, at least one. Raises UnknownModel, NotPermitted, InvalidRequest."""
    targets = targets_of(view, caller, request.model)
    embeds = targets[0].model.model_type == "embedding"
    if embeds != (request.dialect.SCOPE == "embeddings"):
        raise _wrong_kind(request.model, embeds)
    return targets


def targets_of(view: View, caller: CallerSpec, alias: str) -> tuple[Target, ...]:
    """What stands behind `alias` for this caller. Raises UnknownModel, NotPermitted."""
    targets = open_targets(view, caller, alias)
    if not targets:
        raise _unknown(alias)
    if not caller.may_name(alias):
        raise NotPermitted(f"This key may not use the model {alias!r}; ask an administrator to allow it.", param="model")
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


def _wrong_kind(alias: str, embeds: bool) -> InvalidRequest:
    what = "makes embeddings and cannot chat: send it to /v1/embeddings" if embeds else "is a chat model and makes no embeddings"
    return InvalidRequest(f"The model {alias!r} {what}.", param="model")


def _unknown(alias: str) -> UnknownModel:
    return UnknownModel(
        f"The model {alias[:200]!r} does not exist, or is switched off; GET /v1/models lists what this key may use.", param="model"
    )
