"""Which targets may answer, in which order. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from core.chat import ChatRequest
from core.config import CallerSpec, ModelSpec, ProviderSpec, Snapshot
from core.errors import InvalidRequest, NotPermitted, UnknownModel
from gateway.limits import Gate
from gateway.runtime import ProviderRuntime
from monitoring.metrics import TargetMetrics


class Target(msgspec.Struct, frozen=True, eq=False):
    """A model at a live provider, with everything that can be worked out once per configuration instead of per request.

    `window` is the most tokens a prompt may have, 0 = not known. `gate`: our limits on this model there, if any.
    """

    model: ModelSpec
    provider: ProviderSpec
    runtime: ProviderRuntime
    metrics: TargetMetrics
    headers: tuple[tuple[bytes, bytes], ...]
    window: int = 0
    gate: Gate | None = None


class View(msgspec.Struct, frozen=True, eq=False):
    """One configuration, taken once per request."""

    snapshot: Snapshot
    targets: Mapping[str, tuple[Target, ...]]


def targets_for(view: View, caller: CallerSpec, request: ChatRequest) -> tuple[Target, ...]:
    """Targets in order of preference, at least one. Raises UnknownModel, NotPermitted, InvalidRequest."""
    targets = targets_of(view, caller, request.model)
    embeds = targets[0].model.model_type == "embedding"
    if embeds != (request.dialect.SCOPE == "embeddings"):
        raise _wrong_kind(request.model, embeds)
    return targets


def targets_of(view: View, caller: CallerSpec, alias: str) -> tuple[Target, ...]:
    """What stands behind `alias` for this caller. Raises UnknownModel, NotPermitted."""
    targets = view.targets.get(alias)
    if caller.models is not None and alias not in caller.models:
        if targets is None:
            raise _unknown(alias)
        raise NotPermitted(f"This key may not use the model {alias!r}; ask an administrator to allow it.", param="model")
    if targets is None:
        raise _unknown(alias)
    return targets


def default_alias(view: View, caller: CallerSpec) -> str:
    """The chat model for a request that names none: of those the key may use, the one of the lowest priority number, then by name.

    Raises InvalidRequest where there is none.
    """
    allowed = (alias for alias in view.targets if caller.models is None or alias in caller.models)
    chat = [(view.targets[alias][0].model.priority, alias) for alias in allowed if view.targets[alias][0].model.model_type == "chat"]
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
