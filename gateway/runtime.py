"""One provider, alive: its slots, its rate, its keys and breakers, and its adapter on the guarded transport."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from core.clock import Clock
from core.config import ModelSpec, ProviderSpec, RateSpec
from core.errors import ProviderError, ProviderFault, ProviderLimited, ProviderPaused
from core.outbound import Response, Transport, trusting
from gateway.adaptive import Adaptive, Observed
from gateway.breaker import BreakerGate
from gateway.keypool import MAX_REST_S, Key, KeyPool
from gateway.limits import Local
from gateway.listing import Standing, spread
from gateway.news import Closed, Ill, Listed, News, Opened, Reset, Rests, Unlisted, Well, Works, tell
from gateway.rates import Rate, ceil_ms, shared_out
from gateway.retry import RetryBudget
from gateway.sharing import places
from gateway.sharing.cluster import ClusterDown
from gateway.sharing.passage import Passage
from gateway.sharing.peers import Alone, Peers
from gateway.trials import Trials
from gateway.upstream import Upstream
from providers.adapters.base import Adapter
from providers.adapters.rate_headers import stated_calls_per_s
from providers.adapters.registry import adapter_for

# Service unavailable, and Anthropic's "overloaded": a vendor that says so has enough calls for now.
_OVERLOADED = frozenset({503, 529})
# A timer may end a moment before the time it was set to.
_TIMER_S = 0.001

_TRIAL_MARGIN_S = 1.0
_NOTHING_CLAIMED: tuple[str, ...] = ()

_sleep = asyncio.sleep


class ProviderRuntime:
    """Survives configuration changes: `apply` sets new numbers and keeps what was learnt."""

    _rate: Rate | None
    _adaptive: Adaptive | None  # the same, where it learns

    def __init__(
        self,
        spec: ProviderSpec,
        transport: Transport,
        clock: Clock,
        queue_timeout_s: float,
        rng: random.Random | None = None,
        limits: Local | None = None,
        machines: int = 1,
        peers: Peers | None = None,
    ) -> None:
        """`limits` None = this process's own; `machines`: how many share them out. `peers` None = nobody else serves."""
        self.spec = spec
        self._peers = peers or Alone()
        self._reset_at = spec.breaker.reset_at
        self.trials = Trials(spec.id, self._peers, clock)
        self._limits = limits or Local()
        self._machines = machines
        self.adapter: Adapter = adapter_for(spec)
        self.bare_transport = transport
        self.transport = trusting(transport, spec.ca_certificates)
        self.clock = clock
        self.slots = self._limits.slots(spec.id)
        self._queue_timeout_s = queue_timeout_s
        self._set_rate(self._rate_for(spec, None, None, clock.monotonic()))
        self._pool = KeyPool(spec.keys)
        self._breakers: dict[tuple[str, str], BreakerGate] = {}
        self._awaited: set[str] = set()
        self._rng = rng or random.Random()
        self.standing = Standing(clock.monotonic(), spread(self._rng))
        self.retries = RetryBudget(clock.monotonic(), machines * self._limits.workers)
        self._fit_slots()

    def apply(self, spec: ProviderSpec) -> None:
        if spec == self.spec:
            return
        now = self.clock.monotonic()
        self.adapter = adapter_for(spec)
        self.transport = trusting(self.bare_transport, spec.ca_certificates)
        moved = (spec.kind, spec.base_url) != (self.spec.kind, self.spec.base_url)
        if moved:
            self._breakers.clear()  # what was learnt was learnt of another server
            self.standing = Standing(now, spread(self._rng))
        self._set_rate(self._rate_for(spec, None if moved and self._adaptive else self._rate, self.spec, now))
        for breaker in self._breakers.values():
            breaker.apply(spec.breaker)
        if not spec.probe_budget_micros:
            self.standing.forget_probes()  # nobody would find out that it is well again
        self._pool.apply(spec.keys)
        kept = {key.id for key in self._pool.keys}
        self._breakers = {place: gate for place, gate in self._breakers.items() if place[0] in kept}
        if spec.breaker.reset_at != self._reset_at:
            self._reset_at = spec.breaker.reset_at
            self.reset()
            self.tell(Reset(spec.id, self._reset_at))
        self.spec = spec
        self._fit_slots()

    def share_among(self, machines: int) -> None:
        """From now on each of so many machines has its equal part of the limits."""
        self._machines = machines
        self.retries.parts = machines * self._limits.workers
        if self._rate is not None:
            self._rate.resize(self._part_of(self._rate, self.spec), self.clock.monotonic())
        self._fit_slots()

    @property
    def counts_tokens(self) -> bool:
        """Whether this vendor counts the tokens of an Anthropic request for nothing: its adapter has `count_call` and `read_count`."""
        return hasattr(self.adapter, "count_call")

    async def acquire(self, model: ModelSpec, time_left_s: Callable[[], float], resort_s: float | None = None) -> Upstream:
        """Slot → rate → key and breaker. Raises ProviderPaused, ProviderLimited, ProviderRejectedOurKey at once where
        nothing can be had, ProviderLimited where waiting would take too long.

        `resort_s`: not None where no other target is left; where the breaker's trial is not further away, this call waits to be it.
        """
        last = resort_s is not None
        if resort_s:
            await self._wait_for_trial(model.model_id, min(self._queue_timeout_s, resort_s))
        if not self.slots.try_take():
            self._pick(model, last)  # fails before waiting, where waiting is in vain
            await self.slots.wait(min(self._queue_timeout_s, time_left_s()), self.spec.name)
        try:
            key = self._pick(model, last)
            booked_at, wait_s, rate = 0.0, 0.0, self._rate  # it may be another one by the time that this call starts
            if rate is not None and (wait_s := rate.book(1, booked_at := self.clock.monotonic())):
                patience_s = min(self._queue_timeout_s, time_left_s())
                key = await self._wait_for_rate(rate, booked_at, wait_s, patience_s, partial(self._pick, model, last))
            breaker, claimed = self.breaker(key.id, model.model_id), _NOTHING_CLAIMED
            if key.rests or not (breaker.calm or breaker.closed):
                try:
                    key, breaker, claimed = await self._begin(key, model, last)
                except BaseException:
                    if rate is not None:
                        rate.give_back(1, booked_at + wait_s)
                    raise
        except BaseException:
            self.slots.release()
            raise
        self.retries.calls += 1
        observed = None if self._adaptive is None else Observed(self._adaptive, booked_at)
        return Upstream(self, key, model.model_id, breaker, claimed, observed)

    async def acquire_with(
        self, passage: Passage, model: ModelSpec, time_left_s: Callable[[], float], resort_s: float | None = None
    ) -> Upstream:
        """As `acquire`, past what all machines count together: the gates of `passage`, the slots and the rate, in one question.
        Where it fails, `passage` is to be undone."""
        if resort_s:
            await self._wait_for_trial(model.model_id, min(self._queue_timeout_s, resort_s))
        last = resort_s is not None
        self._pick(model, last)  # fails before anything is counted
        spec, rate, patience_s = self.spec, self._rate, min(self._queue_timeout_s, time_left_s())
        try:
            taken = await places.take(passage, spec, patience_s, self.clock, _sleep)
        except ClusterDown:
            passage.enter_here(places.lines_for(spec, patience_s))
            return await self.acquire(model, time_left_s, resort_s)
        if not taken.seen:
            return await self.acquire(model, time_left_s, resort_s)
        if wait_s := max(taken.waits_s):
            await _sleep(wait_s)
        key, breaker, claimed = await self._begin(self._pick(model, last), model, last)
        places.mirror(taken, self.slots, rate, self.clock.monotonic())
        self.retries.calls += 1
        return Upstream(self, key, model.model_id, breaker, claimed)

    def learn_from(self, observed: Observed, who: tuple[str, str], response: Response) -> None:
        """The vendor accepted a call with the key and model `who`, and may state what it allows them."""
        observed.succeeded(self.clock.monotonic(), who, stated_calls_per_s(response.headers, self.clock.wall()))
        self._fit_slots()

    def learn_the_end(self, observed: Observed, error: BaseException | None, now: float) -> None:
        overloaded = isinstance(error, ProviderFault) and error.vendor_status in _OVERLOADED
        rest_s = min(error.retry_after_s or 0.0, MAX_REST_S) if isinstance(error, ProviderLimited) else 0.0
        observed.ended(now, refused=overloaded or isinstance(error, ProviderLimited), rest_s=rest_s)
        self._fit_slots()

    def breaker(self, key_id: str, model_id: str) -> BreakerGate:
        gate = self._breakers.get((key_id, model_id))
        if gate is None:
            gate = self._breakers[(key_id, model_id)] = BreakerGate(self.spec.breaker, self._rng)
        return gate

    def uses(self, key: Key, model_id: str, breaker: BreakerGate) -> bool:
        """Whether key and breaker are still those of this provider: neither secret nor server has been replaced."""
        return self._pool.get(key.id) is key and self._breakers.get((key.id, model_id)) is breaker

    def tell(self, news: News) -> None:
        """The other processes, of what has happened here."""
        if isinstance(news, Opened | Rests):
            news = msgspec.structs.replace(news, reset_at=self._reset_at)
        tell(self._peers, news)

    def hear(self, news: News) -> None:
        """Of what has happened elsewhere. A key that is not known here is none of ours."""
        now = self.clock.monotonic()
        match news:
            case Reset():
                if news.reset_at > self._reset_at:
                    self._reset_at = news.reset_at
                    self.reset()
                return
            case Listed():
                self.standing.trust()
                return
            case Unlisted():
                if not self.standing.heard(news.reason, now, self.clock.wall()):
                    self.tell(Listed(self.spec.id))
                return
            case Ill():
                self.standing.failed_probe(news.model, news.reason, now, self.clock.wall())
                return
            case Well():
                self.standing.ill.pop(news.model, None)
                return
        key = self._pool.get(news.key)
        if key is None or (isinstance(news, Opened | Rests) and news.reset_at < self._reset_at):
            return
        match news:
            case Opened():
                self.breaker(key.id, news.model).opened_elsewhere(
                    news.wait_s, news.last_wait_s, news.open_s, news.doublings, news.reason, now
                )
            case Closed():
                self.breaker(key.id, news.model).closed_elsewhere(now)
            case Rests():
                key.rests_elsewhere(news.model, news.wait_s, news.length_s, news.reason, now)
            case Works():
                key.works(news.model, now)

    def believe(self, model_id: str = "") -> None:
        """The vendor has answered, and that model has: what spoke against them does not any more, here and elsewhere."""
        if self.standing.doubt:
            self.standing.trust()
            self.tell(Listed(self.spec.id))
        if self.standing.ill.pop(model_id, None):
            self.tell(Well(self.spec.id, model_id))

    def reset(self) -> None:
        """Closes every breaker, ends every key's rest and every doubt, as an administrator asked."""
        self.standing.clear()
        for gate in self._breakers.values():
            gate.reset()
        for key in self._pool.keys:
            key.rests.clear()

    def trouble(self) -> dict[str, Any]:
        """Breakers that have counted failures, keys that rest, a list that was not given and probes that failed or were not made,
        as `providers.states.write` takes them; {} where all is well."""
        now, wall_s = self.clock.monotonic(), self.clock.wall()

        def at(wait_s: float) -> float:
            return round(wall_s + wait_s)  # whole seconds, or each look at the two clocks would be news

        breakers = [
            {
                "key": key_id,
                "model": model_id,
                "state": gate.state,
                "failures": gate.failures,
                "reason": gate.reason,
                "next_try_at": None if gate.state == "closed" else at(gate.wait_s(now)),
            }
            for (key_id, model_id), gate in self._breakers.items()
            if gate.failing
        ]
        rests = [
            {"key": key.id, "model": model_id, "reason": rest.reason.message, "next_try_at": at(rest.until - now)}
            for key in self._pool.keys
            for model_id, rest in key.rests.items()
            if not model_id or rest.wait_s(now)
        ]
        doubts = self.standing.in_words()
        return {"breakers": breakers, "rests": rests, **doubts} if breakers or rests or doubts else {}

    def failing(self, model_id: str) -> bool:
        """Whether every key's last call of this model failed: another call there is a retry, whoever makes it."""
        return all((gate := self._breakers.get((key.id, model_id))) is not None and gate.failing for key in self._pool.keys)

    def paused_s(self, model_id: str) -> float:
        """Seconds until a call of this model may be tried, 0 = it may now: whether some key does not rest, and its breaker lets pass."""
        only = self._pool.only()
        if only is not None and self.breaker(only.id, model_id).calm:
            return 0.0
        key, wait_s, _ = self._look(model_id, False)
        return 0.0 if key is not None else wait_s

    def has_other_key(self, model_id: str, than: Key) -> bool:
        """Whether a key that could be used now is left beside `than`."""
        now = self.clock.monotonic()
        return self._pool.pick(model_id, now, partial(self._breaker_wait_s, model_id, now, False), than)[0] is not None

    def breaker_states(self) -> list[str]:
        return [gate.state for gate in self._breakers.values()]

    def _pick(self, model: ModelSpec, last: bool) -> Key:
        only = self._pool.only()
        if only is not None and self.breaker(only.id, model.model_id).calm:
            return only
        key, wait_s, reason = self._look(model.model_id, last)
        if key is not None:
            return key
        if reason is None:
            raise ProviderPaused(
                f"Provider {self.spec.name} is paused after repeated failures; the next trial is in {wait_s:.1f} s.", retry_after_s=wait_s
            )
        raise type(reason)(reason.message, retry_after_s=wait_s, vendor_status=reason.vendor_status)

    async def _begin(self, key: Key, model: ModelSpec, last: bool) -> tuple[Key, BreakerGate, tuple[str, ...]]:
        """`key`, or the next one where another process tries that one; its breaker; and what was claimed. Raises as `acquire` does."""
        # By then a vendor that is silent was given up, or an answer has begun.
        ttl_s = self.spec.timeouts.connect_s + self.spec.timeouts.first_byte_s + _TRIAL_MARGIN_S
        while True:
            breaker = self.breaker(key.id, model.model_id)
            claimed = await self.trials.begin(key, model.model_id, breaker, ttl_s)
            if claimed is not None:
                return key, breaker, claimed
            key = self._pick(model, last)

    def _look(self, model_id: str, last: bool) -> tuple[Key | None, float, ProviderError | None]:
        """See KeyPool.pick."""
        now = self.clock.monotonic()
        return self._pool.pick(model_id, now, partial(self._breaker_wait_s, model_id, now, last))

    def _breaker_wait_s(self, model_id: str, now: float, last: bool, key_id: str) -> float:
        return self.breaker(key_id, model_id).wait_s(now, last=last)

    async def _wait_for_trial(self, model_id: str, patience_s: float) -> None:
        """One call waits, the others are told when: so nothing queues up at a vendor that is down, and refusals stay quick."""
        key, wait_s, reason = self._look(model_id, True)
        if key is not None or reason is not None or wait_s > patience_s or model_id in self._awaited:
            return
        self._awaited.add(model_id)
        try:
            await _sleep(wait_s + _TIMER_S)
        finally:
            self._awaited.discard(model_id)

    async def _wait_for_rate(self, rate: Rate, booked_at: float, wait_s: float, patience_s: float, pick: Callable[[], Key]) -> Key:
        """The key to call with, once the place is there. A place that is not used is given back."""
        try:
            if wait_s > patience_s:
                text = f"Provider {self.spec.name} has {rate.state(booked_at)}; a call could start in {ceil_ms(wait_s):.3f} s."
                raise ProviderLimited(text, retry_after_s=wait_s)
            await _sleep(wait_s)
            return pick()
        except BaseException:
            rate.give_back(1, booked_at + wait_s)
            raise

    def _set_rate(self, rate: Rate | None) -> None:
        self._rate = rate
        self._adaptive = rate if isinstance(rate, Adaptive) else None
        self.slots.apart = self._adaptive is not None and self._limits.parts(self._adaptive) > 1

    def _rate_for(self, spec: ProviderSpec, rate: Rate | None, before: ProviderSpec | None, now: float) -> Rate | None:
        """`rate`, which was made for `before`, with the numbers of `spec`; another one where its type is another. What is used stays so."""
        if not spec.rate.capacity:
            return None
        if rate is None or before is None or spec.rate.type != before.rate.type or not self._limits.keeps(rate, spec.rate):
            # What is learnt is learnt of one server.
            name = f"{spec.id} at {spec.base_url}" if spec.rate.type == "adaptive" else spec.id
            fresh = self._limits.rate(name, spec.rate, now, self._machines)
            # Where processes share it, one of the others may have told it already what is used.
            if rate is not None and (used := min(rate.used(now), int(spec.rate.capacity)) - fresh.used(now)) > 0:
                fresh.book(used, now)
            rate = fresh
        elif spec.rate != before.rate or spec.keys != before.keys:
            rate.resize(self._part_of(rate, spec), now)
        if isinstance(rate, Adaptive):
            rate.parties = max(1, len(spec.keys))
        return rate

    def _part_of(self, rate: Rate, spec: ProviderSpec) -> RateSpec:
        return shared_out(spec.rate, self._machines * self._limits.parts(rate))

    def _fit_slots(self) -> None:
        """Where the limit is learnt, it is that of those who learn together."""
        adaptive = self._adaptive
        parts = self._machines * self._limits.parts(self.slots if adaptive is None else adaptive)
        limit = self.spec.max_concurrency and max(1, self.spec.max_concurrency // parts)
        if adaptive is not None:
            limit = min(limit or adaptive.concurrency, adaptive.concurrency)
        if limit != self.slots.limit:
            self.slots.resize(limit)
