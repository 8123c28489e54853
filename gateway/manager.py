"""What lives across requests: the configuration in force, and the live things it describes."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping
from typing import Any

from core.clock import Clock
from core.config import CallerSpec, LimitSpec, ModelSpec, ProviderSpec, Snapshot
from core.errors import CallerLimited, ConfigurationError, GatewayError, ProviderLimited
from core.outbound import Transport
from gateway.breaker import STATE_NUMBERS
from gateway.limits import Gate, Gates
from gateway.router import Target, View
from gateway.runtime import ProviderRuntime
from monitoring import metrics

_log = logging.getLogger(__name__)
_SERVED = frozenset({"chat", "completion", "embedding"})


class Manager:
    """`apply` swaps the view in one assignment: a request that has taken the old one finishes on it."""

    def __init__(
        self, transport: Transport, clock: Clock, queue_timeout_s: float, max_context_tokens: int = 0, rng: random.Random | None = None
    ) -> None:
        """`max_context_tokens` bounds every model's window; 0 = each model's own is the bound."""
        self._max_context_tokens = max_context_tokens
        self._transport = transport
        self._clock = clock
        self._queue_timeout_s = queue_timeout_s
        self._rng = rng or random.Random()
        self._runtimes: dict[str, ProviderRuntime] = {}
        # By the id of the key, team or model whose limits they are; and what a key has to pass, put together when it first comes.
        self._key_gates: dict[str, Gate] = {}
        self._team_gates: dict[str, Gate] = {}
        self._model_gates: dict[str, Gate] = {}
        self._gates: dict[str, Gate | Gates] = {}
        self.view = View(snapshot=Snapshot(version=0, loaded_at=0.0), targets={})

    def apply(self, snapshot: Snapshot) -> None:
        """Unchanged providers keep their connections, breakers and rates; callers keep what they have used."""
        self._runtimes = dict(self._runtimes_for(snapshot.providers.values()))
        self._apply_limits(snapshot)
        targets = {alias: tuple(self._targets(snapshot, models)) for alias, models in snapshot.models.items()}
        self.view = View(snapshot=snapshot, targets={alias: found for alias, found in targets.items() if found})
        metrics.CONFIG_VERSION.set(snapshot.version)
        metrics.CONFIG_ALARMS.set(len(snapshot.alarms))

    def gate(self, caller: CallerSpec) -> Gate | Gates:
        """What a request of `caller` has to enter and leave: the limits of its key and of its team."""
        gate = self._gates.get(caller.key_id)
        if gate is None:
            gate = self._gates[caller.key_id] = self._gate_for(caller)
        return gate

    def _gate_for(self, caller: CallerSpec) -> Gate | Gates:
        key = self._key_gates.get(caller.key_id)
        if key is None:
            key = self._key_gates[caller.key_id] = Gate("This key", caller.limits)
        team = self._team_gates.get(caller.team_id)
        return key if team is None else Gates(key, team)

    def publish_breakers(self) -> None:
        """Sets the breaker gauge; called when a call failed and at each configuration poll, not per request."""
        for runtime in self._runtimes.values():
            worst = max((STATE_NUMBERS[state] for state in runtime.breaker_states()), default=0)
            metrics.BREAKER_STATE.labels(runtime.spec.name).set(worst)

    def provider_states(self) -> dict[str, dict[str, Any]]:
        """What is not well, by provider id, for `providers.states.write`. Brings the gauge up to date too."""
        self.publish_breakers()
        return {id_: state for id_, runtime in self._runtimes.items() if (state := runtime.trouble())}

    def _runtimes_for(self, specs: Iterable[ProviderSpec]) -> Iterable[tuple[str, ProviderRuntime]]:
        for spec in specs:
            runtime = self._runtimes.get(spec.id)
            try:
                if runtime is None:
                    runtime = ProviderRuntime(spec, self._transport, self._clock, self._queue_timeout_s, self._rng)
                else:
                    runtime.apply(spec)
            except ConfigurationError as exc:
                _log.error("provider %s is left out: %s", spec.name, exc)
                if runtime is None:
                    continue
            yield spec.id, runtime

    def _targets(self, snapshot: Snapshot, models: Iterable[ModelSpec]) -> Iterable[Target]:
        for model in models:
            runtime = self._runtimes.get(model.provider_id)
            if runtime is not None and model.model_type in _SERVED:
                yield Target(
                    model=model,
                    provider=runtime.spec,
                    runtime=runtime,
                    metrics=metrics.TargetMetrics(runtime.spec.name, model.alias),
                    headers=(
                        (b"x-llm-provider", _header(runtime.spec.name)),
                        (b"x-llm-model", _header(model.model_id)),
                        (b"x-llm-alias", _header(model.alias)),
                        (b"x-llm-config-version", b"%d" % snapshot.version),
                        (b"x-llm-cache", b"off"),
                    ),
                    gate=self._model_gates.get(model.id),
                    window=min(filter(None, (model.context_window, self._max_context_tokens)), default=0),
                )

    def _apply_limits(self, snapshot: Snapshot) -> None:
        """A holder that is still there keeps what it has used; requests in flight leave the gates that they entered."""
        now = self._clock.monotonic()
        callers = {caller.key_id: caller for caller in snapshot.callers.values()}
        self._gates = {}
        self._key_gates = {key_id: gate for key_id, gate in self._key_gates.items() if key_id in callers}
        for key_id, gate in self._key_gates.items():
            gate.apply(gate.holder, callers[key_id].limits, now)
        teams = {caller.team_id: (f"Team {caller.team_name}", caller.team_limits) for caller in callers.values()}
        self._team_gates = _fitted(self._team_gates, teams, CallerLimited, now)
        models = {model.id: (self._called(snapshot, model), model.limits) for found in snapshot.models.values() for model in found}
        self._model_gates = _fitted(self._model_gates, models, ProviderLimited, now)

    def _called(self, snapshot: Snapshot, model: ModelSpec) -> str:
        provider = snapshot.providers.get(model.provider_id)
        return f"Model {model.alias} at provider {provider.name if provider else model.provider_id}"


def _fitted(
    gates: Mapping[str, Gate], holders: Mapping[str, tuple[str, LimitSpec]], error: type[GatewayError], now: float
) -> dict[str, Gate]:
    """Gates for those of `holders`, by id, that have a limit; the ones that there are keep what is used."""
    found = {}
    for holder_id, (holder, limits) in holders.items():
        if limits.limits_something:
            gate = found[holder_id] = gates.get(holder_id) or Gate(holder, limits, error)
            gate.apply(holder, limits, now)
    return found


def _header(text: str) -> bytes:
    """A name as a header value: what does not fit into one is escaped."""
    return text.encode("unicode_escape")
