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
from gateway import cache, news
from gateway.breaker import STATE_NUMBERS
from gateway.cached import identity_of
from gateway.limits import Gate, Gates, Local, one_of
from gateway.router import Link, Target, View, chains, providers_of
from gateway.runtime import ProviderRuntime
from gateway.sharing import places
from gateway.sharing.cluster import Cluster
from gateway.sharing.passage import ClusterGate, Passage
from gateway.sharing.peers import Alone, Peers
from gateway.vitals import Vitals, measured
from monitoring import metrics

_log = logging.getLogger(__name__)
_SERVED = frozenset({"chat", "completion", "embedding"})


class Manager:
    """`apply` swaps the view in one assignment: a request that has taken the old one finishes on it."""

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        queue_timeout_s: float,
        max_context_tokens: int = 0,
        rng: random.Random | None = None,
        limits: Local | None = None,
        cluster: Cluster | None = None,
        peers: Peers | None = None,
    ) -> None:
        """`max_context_tokens` bounds every model's window; 0 = each model's own is the bound. `limits` None = this process's own;
        `cluster` None = no other machine counts with this one. `peers` None = no other process serves."""
        self._peers = peers or Alone()
        self._peers.listen(news.KIND, self._hear)
        self._limits = limits or Local()
        self._machines = 1
        self._cluster = cluster
        self._max_context_tokens = max_context_tokens
        self._transport = transport
        self._clock = clock
        self._queue_timeout_s = queue_timeout_s
        self._rng = rng or random.Random()
        self._runtimes: dict[str, ProviderRuntime] = {}
        # By the id of the key, team or model whose limits they are; and what a key has to pass, put together when it first comes.
        self._callers: dict[str, CallerSpec] = {}
        self._key_gates: dict[str, Gate] = {}
        self._team_gates: dict[str, Gate] = {}
        self._model_gates: dict[str, Gate] = {}
        self._provider_gates: dict[str, Gate] = {}
        self._gates: dict[str, Gate | Gates] = {}
        # How fast and how busy models are, by id; kept of those alone whose routes go by it.
        self._vitals: dict[str, Vitals] = {}
        # The same limits as all machines count them.
        self._shared_gates: dict[str, tuple[ClusterGate, ...]] = {}
        self._shared_models: dict[str, ClusterGate] = {}
        self._shared_providers: dict[str, ClusterGate] = {}
        self.view = View(snapshot=Snapshot(version=0, loaded_at=0.0), targets={})

    def apply(self, snapshot: Snapshot) -> None:
        """Unchanged providers keep their connections, breakers and rates; callers keep what they have used."""
        names = {runtime.spec.name for runtime in self._runtimes.values()}
        self._runtimes = dict(self._runtimes_for(providers_of(snapshot)))
        for gone in names - {runtime.spec.name for runtime in self._runtimes.values()}:
            metrics.BREAKER_STATE.labels(gone).set(0)  # nobody would close it any more; processes that share metrics cannot remove it
        self._apply_limits(snapshot)
        self._vitals = {id_: self._vitals.get(id_) or Vitals() for id_ in measured(snapshot)}
        targets = {
            alias: tuple(self._targets(snapshot, alias, chain, cache.ttl_of(snapshot.routes.get(alias), chain)))
            for alias, chain in chains(snapshot)
        }
        self.view = View.of(snapshot, {alias: found for alias, found in targets.items() if found})
        metrics.CONFIG_VERSION.set(snapshot.version)
        metrics.CONFIG_ALARMS.set(len(snapshot.alarms))

    def share_among(self, machines: int) -> None:
        """From now on each of so many machines has its equal part of every limit."""
        if machines == self._machines:
            return
        self._machines = machines
        for runtime in self._runtimes.values():
            runtime.share_among(machines)
        self._apply_limits(self.view.snapshot)

    def gate(self, caller: CallerSpec) -> Gate | Gates:
        """What a request of `caller` has to enter and leave: the limits of its key and of its team."""
        gate = self._gates.get(caller.key_id)
        if gate is None:
            gate = self._gates[caller.key_id] = self._gate_for(self._as_of_now(caller))
        return gate

    def _as_of_now(self, caller: CallerSpec) -> CallerSpec:
        """A request may come with the configuration of before: what is made for it is there for those that follow."""
        return self._callers.get(caller.key_id, caller)

    def _gate_for(self, caller: CallerSpec) -> Gate | Gates:
        key = self._key_gates.get(caller.key_id)
        if key is None:
            key = self._key_gates[caller.key_id] = self._new_gate(
                f"key:{caller.key_id}", "This key", caller.limits, CallerLimited, self._clock.monotonic()
            )
        team = self._team_gates.get(caller.team_id)
        return key if team is None else Gates(key, team)

    def passage(self, caller: CallerSpec, tokens: int) -> Passage | None:
        """The way of a request of `caller` past its gates, where all machines count together; None = `gate` is all there is to pass."""
        if self._cluster is None:
            return None
        gates = self._shared_gates.get(caller.key_id)
        if gates is None:
            gates = self._shared_gates[caller.key_id] = tuple(self._shared_for(self._as_of_now(caller)))
        return Passage(self._cluster, gates, tokens, self._clock) if gates else None

    def passage_to(self, target: Target, tokens: int) -> Passage | None:
        """The way to a call of `target`, for `ProviderRuntime.acquire_with`; None = its gate and `acquire` are all."""
        if self._cluster is None:
            return None
        found = (self._shared_models.get(target.model.id), self._shared_providers.get(target.provider.id))
        gates = tuple(gate for gate in found if gate is not None)
        if not gates and not places.lines_for(target.provider, 0.0):
            return None
        return Passage(self._cluster, gates, tokens, self._clock)

    def publish_breakers(self) -> None:
        """Sets the breaker gauge; called when a call failed and at each configuration poll, not per request."""
        for runtime in self._runtimes.values():
            worst = max((STATE_NUMBERS[state] for state in runtime.breaker_states()), default=0)
            metrics.BREAKER_STATE.labels(runtime.spec.name).set(worst)

    def runtimes(self) -> Iterable[ProviderRuntime]:
        return tuple(self._runtimes.values())

    def provider_states(self) -> dict[str, dict[str, Any]]:
        """What is not well, by provider id, for `providers.states.write`. Brings the gauge up to date too."""
        self.publish_breakers()
        return {id_: state for id_, runtime in self._runtimes.items() if (state := runtime.trouble())}

    def _hear(self, message: Mapping[str, Any]) -> None:
        """From another process; of what is not configured here, or not any more, nothing is kept."""
        heard = news.read(message)
        runtime = self._runtimes.get(heard.provider) if heard is not None else None
        if heard is None or runtime is None:
            return
        if isinstance(heard, news.OfProvider) or self._serves(heard):
            runtime.hear(heard)
            self.publish_breakers()

    def _serves(self, heard: news.OfModel) -> bool:
        """Whether a model that is configured is asked for there. Only a key rests for every model."""
        if not heard.model:
            return isinstance(heard, news.Rests)
        found = (model for models in self.view.snapshot.models.values() for model in models)
        return any(model.provider_id == heard.provider and model.model_id == heard.model for model in found)

    def _runtimes_for(self, specs: Iterable[ProviderSpec]) -> Iterable[tuple[str, ProviderRuntime]]:
        for spec in specs:
            runtime = self._runtimes.get(spec.id)
            try:
                if runtime is None:
                    runtime = ProviderRuntime(
                        *(spec, self._transport, self._clock, self._queue_timeout_s),
                        *(self._rng, self._limits, self._machines, self._peers),
                    )
                else:
                    runtime.apply(spec)
            except ConfigurationError as exc:
                _log.error("provider %s is left out: %s", spec.name, exc)
                if runtime is None:
                    continue
            yield spec.id, runtime

    def _targets(self, snapshot: Snapshot, alias: str, chain: Iterable[Link], cache_ttl_s: int) -> Iterable[Target]:
        """`alias` is what callers asked for."""
        for model, degraded, fallback, weight in chain:
            runtime = self._runtimes.get(model.provider_id)
            if runtime is not None and model.model_type in _SERVED:
                window = min(filter(None, (model.context_window, self._max_context_tokens)), default=0)
                yield Target(
                    model=model,
                    provider=runtime.spec,
                    runtime=runtime,
                    metrics=metrics.TargetMetrics(runtime.spec.name, model.alias),
                    headers=(
                        (b"x-llm-provider", _header(runtime.spec.name)),
                        (b"x-llm-model", _header(model.model_id)),
                        (b"x-llm-alias", _header(alias)),
                        (b"x-llm-config-version", b"%d" % snapshot.version),
                        *(() if cache_ttl_s else [(b"x-llm-cache", b"off")]),
                        *([(b"x-llm-degraded", b"1")] if degraded else []),
                    ),
                    gate=self._gate_to(model),
                    window=window,
                    degraded=degraded,
                    cache_ttl_s=cache_ttl_s,
                    identity=identity_of(model, runtime.spec, window) if cache_ttl_s else b"",
                    fallback=fallback,
                    weight=weight,
                    vitals=self._vitals.get(model.id),
                )

    def _gate_to(self, model: ModelSpec) -> Gate | Gates | None:
        """Our limits on the model, and those on its provider, which all its models share."""
        gate, provider = self._model_gates.get(model.id), self._provider_gates.get(model.provider_id)
        return Gates(gate, provider) if gate is not None and provider is not None else gate or provider

    def _apply_limits(self, snapshot: Snapshot) -> None:
        """A holder that is still there keeps what it has used; requests in flight leave the gates that they entered."""
        now = self._clock.monotonic()
        callers = self._callers = {caller.key_id: caller for caller in snapshot.callers.values()}
        self._gates = {}
        self._key_gates = {
            key_id: gate
            for key_id, gate in self._key_gates.items()
            if key_id in callers and self._limits.keeps(gate, callers[key_id].limits)
        }
        for key_id, gate in self._key_gates.items():
            self._fit(gate, gate.holder, callers[key_id].limits, now)
        teams = {caller.team_id: (f"Team {caller.team_name}", caller.team_limits) for caller in callers.values()}
        self._team_gates = self._fitted("team", self._team_gates, teams, CallerLimited, now)
        models = {model.id: (self._called(snapshot, model), model.limits) for found in snapshot.models.values() for model in found}
        self._model_gates = self._fitted("model", self._model_gates, models, ProviderLimited, now)
        providers = {provider.id: (f"Provider {provider.name}", provider.limits) for provider in snapshot.providers.values()}
        self._provider_gates = self._fitted("provider", self._provider_gates, providers, ProviderLimited, now)
        self._shared_gates = {}
        self._shared_models = {
            id_: ClusterGate(f"model:{id_}", models[id_][1], gate, ProviderLimited) for id_, gate in self._model_gates.items()
        }
        self._shared_providers = {
            id_: ClusterGate(f"provider:{id_}", providers[id_][1], gate, ProviderLimited) for id_, gate in self._provider_gates.items()
        }

    def _fitted(
        self, kind: str, gates: Mapping[str, Gate], holders: Mapping[str, tuple[str, LimitSpec]], error: type[GatewayError], now: float
    ) -> dict[str, Gate]:
        """Gates for those of `holders`, by id, that have a limit; the ones that there are keep what is used."""
        found = {}
        for holder_id, (holder, limits) in holders.items():
            if limits.limits_something:
                gate = found[holder_id] = gates.get(holder_id) or self._new_gate(f"{kind}:{holder_id}", holder, limits, error, now)
                self._fit(gate, holder, limits, now)
        return found

    def _new_gate(self, name: str, holder: str, limits: LimitSpec, error: type[GatewayError], now: float) -> Gate:
        return self._limits.gate(name, holder, limits, error, now, self._machines)

    def _fit(self, gate: Gate, holder: str, limits: LimitSpec, now: float) -> None:
        gate.apply(holder, one_of(limits, self._limits.parts(gate) * self._machines), now)

    def _shared_for(self, caller: CallerSpec) -> Iterable[ClusterGate]:
        self.gate(caller)
        holders = (("key", caller.key_id, caller.limits, self._key_gates), ("team", caller.team_id, caller.team_limits, self._team_gates))
        for kind, id_, limits, gates in holders:
            if limits.limits_something and (gate := gates.get(id_)) is not None:
                yield ClusterGate(f"{kind}:{id_}", limits, gate)

    def _called(self, snapshot: Snapshot, model: ModelSpec) -> str:
        provider = snapshot.providers.get(model.provider_id)
        return f"Model {model.alias} at provider {provider.name if provider else model.provider_id}"


def _header(text: str) -> bytes:
    """A name as a header value: what does not fit into one is escaped."""
    return text.encode("unicode_escape")
