"""Which targets may answer, in which order. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from core.chat import ChatRequest
from core.config import CallerSpec, ModelSpec, ProviderSpec, Snapshot
from core.errors import NotPermitted, UnknownModel
from gateway.runtime import ProviderRuntime
from monitoring.metrics import TargetMetrics


class Target(msgspec.Struct, frozen=True, eq=False):
    """A model at a live provider, with everything that can be worked out once per configuration instead of per request."""

    model: ModelSpec
    provider: ProviderSpec
    runtime: ProviderRuntime
    metrics: TargetMetrics
    headers: tuple[tuple[bytes, bytes], ...]


class View(msgspec.Struct, frozen=True, eq=False):
    """One configuration, taken once per request."""

    snapshot: Snapshot
    targets: Mapping[str, tuple[Target, ...]]


def targets_for(view: View, caller: CallerSpec, request: ChatRequest) -> tuple[Target, ...]:
    """Targets in order of preference, at least one. Raises UnknownModel, NotPermitted."""
    targets = view.targets.get(request.model)
    if caller.models is not None and request.model not in caller.models:
        if targets is None:
            raise _unknown(request.model)
        raise NotPermitted(f"This key may not use the model {request.model!r}; ask an administrator to allow it.", param="model")
    if targets is None:
        raise _unknown(request.model)
    return targets


def _unknown(alias: str) -> UnknownModel:
    return UnknownModel(
        f"The model {alias[:200]!r} does not exist, or is switched off; GET /v1/models lists what this key may use.", param="model"
    )
