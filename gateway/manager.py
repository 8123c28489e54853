"""What lives across requests: the configuration in force, and the live things it describes."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from core.clock import Clock
from core.config import CallerSpec, ModelSpec, ProviderSpec, Snapshot
from core.errors import ConfigurationError
from core.outbound import Transport
from gateway.breaker import STATE_NUMBERS
from gateway.limits import CallerGate
from gateway.router import Target, View
from gateway.runtime import ProviderRuntime
from monitoring import metrics

_log = logging.getLogger(__name__)
_SERVED = frozenset({"chat", "completion", "embedding"})


class Manager:
    """`apply` swaps the view in one assignment: a request that has taken the old one finishes on it."""

    def __init__(self, transport: Transport, clock: Clock, queue_timeout_s: float, max_context_tokens: int = 0) -> None:
        """`max_context_tokens` bounds every model's window; 0 = each model's own is the bound."""
        self._max_context_tokens = max_context_tokens
        self._transport = transport
        self._clock = clock
        self._queue_timeout_s = queue_timeout_s
        self._runtimes: dict[str, ProviderRuntime] = {}
        self._gates: dict[str, CallerGate] = {}
        self.view = View(snapshot=Snapshot(version=0, loaded_at=0.0), targets={})

    def apply(self, snapshot: Snapshot) -> None:
        """Unchanged providers keep their connections, breakers and rates; callers keep what they have used."""
        self._runtimes = dict(self._runtimes_for(snapshot.providers.values()))
        targets = {alias: tuple(self._targets(snapshot, models)) for alias, models in snapshot.models.items()}
        self._sweep_gates(snapshot)
        self.view = View(snapshot=snapshot, targets={alias: found for alias, found in targets.items() if found})
        metrics.CONFIG_VERSION.set(snapshot.version)
        metrics.CONFIG_ALARMS.set(len(snapshot.alarms))

    def gate(self, caller: CallerSpec) -> CallerGate:
        gate = self._gates.get(caller.key_id)
        if gate is None:
            gate = self._gates[caller.key_id] = CallerGate(caller.limits)
        return gate

    def publish_breakers(self) -> None:
        """Sets the breaker gauge; called when a call failed and at each configuration poll, not per request."""
        for runtime in self._runtimes.values():
            worst = max((STATE_NUMBERS[state] for state in runtime.breaker_states()), default=0)
            metrics.BREAKER_STATE.labels(runtime.spec.name).set(worst)

    def _runtimes_for(self, specs: Iterable[ProviderSpec]) -> Iterable[tuple[str, ProviderRuntime]]:
        for spec in specs:
            runtime = self._runtimes.get(spec.id)
            try:
                if runtime is None:
                    runtime = ProviderRuntime(spec, self._transport, self._clock, self._queue_timeout_s)
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
                    window=min(filter(None, (model.context_window, self._max_context_tokens)), default=0),
                )

    def _sweep_gates(self, snapshot: Snapshot) -> None:
        now = self._clock.monotonic()
        callers = {caller.key_id: caller for caller in snapshot.callers.values()}
        self._gates = {key_id: gate for key_id, gate in self._gates.items() if key_id in callers}
        for key_id, gate in self._gates.items():
            gate.apply(callers[key_id].limits, now)


def _header(text: str) -> bytes:
    """A name as a header value: what does not fit into one is escaped."""
    return text.encode("ascii", "backslashreplace").replace(b"\r", b" ").replace(b"\n", b" ")
