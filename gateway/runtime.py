"""One provider, alive: its slots, its rate, its keys and breakers, and its adapter on the guarded transport."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from core.chat import Answer, ChatRequest
from core.clock import Clock
from core.config import ModelSpec, ProviderSpec, RateSpec
from core.errors import GatewayError, ProviderError, ProviderFault, ProviderLimited, ProviderPaused
from core.outbound import Response, Transport
from gateway.adaptive import Adaptive, Observed
from gateway.breaker import BreakerGate
from gateway.keypool import Key, KeyPool
from gateway.limits import Slots
from gateway.rates import Bucket, Rate, Window, ceil_ms
from gateway.retry import RetryBudget
from providers.adapters.base import Adapter, StreamReader
from providers.adapters.rate_headers import stated_calls_per_s
from providers.adapters.registry import adapter_for

MAX_ANSWER_BYTES = 32 * 2**20
_MAX_ERROR_BYTES = 64 * 2**10
_LINGER_S = 0.05
# Service unavailable, and Anthropic's "overloaded": a vendor that says so has enough calls for now.
_OVERLOADED = frozenset({503, 529})
# A timer may end a moment before the time it was set to.
_TIMER_S = 0.001

_log = logging.getLogger(__name__)
_sleep = asyncio.sleep


class Upstream:
    """A vendor call in flight. Holds a slot, a key and a breaker's permit until `close`, which must be called."""

    __slots__ = (
        *("_adapter", "_breaker", "_closed", "_key_trial", "_model_id", "_observed", "_request", "_response", "_runtime", "_trial"),
        *("dropped", "key", "reader", "vendor_s"),
    )

    def __init__(self, runtime: ProviderRuntime, key: Key, model_id: str, breaker: BreakerGate, observed: Observed | None = None) -> None:
        self._runtime = runtime
        # The runtime's may be replaced while this call lasts; who asked must also read the answer.
        self._adapter = runtime.adapter
        self._model_id = model_id
        self._breaker = breaker
        self._trial = breaker.enter()
        self._key_trial = key.lease()
        self._observed = observed
        self._request: ChatRequest | None = None
        self._response: Response | None = None
        self._closed = False
        self.dropped: tuple[str, ...] = ()
        self.key = key
        self.reader: StreamReader | None = None
        self.vendor_s = 0.0

    async def send(self, request: ChatRequest, model: ModelSpec) -> None:
        """Sends the request and waits for a success status. Raises ProviderError."""
        runtime = self._runtime
        adapter = self._adapter
        call = adapter.chat_call(request, model, self.key.secret)
        self._request, self.dropped = request, call.dropped
        sent_at = runtime.clock.monotonic()
        response = self._response = await adapter.send(runtime.transport, call)
        if response.status != 200:
            body = await _error_body(response)
            raise _said_of_retries(adapter.read_error(response.status, response.headers, body), response)
        if self.key.rests:
            self.key.works(self._model_id, runtime.clock.monotonic())
        if self._observed is not None:
            runtime.learn_from(self._observed, (self.key.id, self._model_id), response)
        if request.stream:
            self.reader = adapter.stream_reader(request)
        self.vendor_s = runtime.clock.monotonic() - sent_at

    async def count(self, request: ChatRequest, model: ModelSpec) -> int:
        """Input tokens by the vendor's own count, instead of an answer; see `ProviderRuntime.counts_tokens`. Raises ProviderError."""
        adapter: Any = self._adapter
        call = adapter.count_call(request, model, self.key.secret)
        response = self._response = await adapter.send(self._runtime.transport, call)
        if response.status != 200:
            raise adapter.read_error(response.status, response.headers, await _error_body(response))
        body = await response.read(_MAX_ERROR_BYTES)
        count: int = adapter.read_count(body)
        return count

    async def whole(self) -> Answer:
        """The whole answer. Raises ProviderError."""
        assert self._response is not None
        assert self._request is not None
        began_at = self._runtime.clock.monotonic()
        body = await self._response.read(MAX_ANSWER_BYTES)
        self.vendor_s += self._runtime.clock.monotonic() - began_at
        return self._adapter.read_answer(body, self._request)

    async def next_piece(self) -> bytes:
        """The next events for the client, b"" once the answer is complete. Raises ProviderError; see StreamReader.salvaged."""
        reader, response = self.reader, self._response
        assert reader is not None
        assert response is not None
        while not reader.done:
            data = await response.next_chunk()
            if not data:
                rest = reader.finish()
                reader.done = True
                return rest
            piece = reader.feed(data)
            if reader.done:
                await self._read_out(response)
            if piece:
                return piece
        return b""

    async def _read_out(self, response: Response) -> None:
        """The answer is whole, its HTTP body perhaps not: read to the end, the connection serves the next call.
        A vendor that lingers costs its own connection, and the caller hardly any time."""
        with suppress(TimeoutError, ProviderError):
            async with asyncio.timeout(_LINGER_S):
                while await response.next_chunk():
                    pass

    def content_began(self) -> None:
        """A stream may last: a trial has told enough when it begins, and is over."""
        if self._trial:
            self._breaker.succeeded(True, self._runtime.clock.monotonic())
            self._trial = False

    def close(self, error: BaseException | None, *, says_nothing: bool = False) -> None:
        """Idempotent, and never awaits: safe while being cancelled. `says_nothing`: the client left, the vendor is not judged."""
        if self._closed:
            return
        self._closed = True
        if self._response is not None:
            self._response.close()
        now = self._runtime.clock.monotonic()
        self.key.release(self._model_id, error if self._observed is None else _of_the_key(error), now, self._key_trial)
        if self._observed is not None:
            self._runtime.learn_the_end(self._observed, error, now)
        self._runtime.slots.release()
        if error is None and not says_nothing:
            self._breaker.succeeded(self._trial, now)
        elif isinstance(error, ProviderError) and error.blames_provider:
            self._failed(error, now)
        else:
            self._breaker.neutral(self._trial)

    def _failed(self, error: ProviderError, now: float) -> None:
        gate, before = self._breaker, self._breaker.state
        gate.failed(self._trial, error, now)
        if gate.state == "open" != before:
            name = self._runtime.spec.name
            _log.warning(
                "provider %s: breaker of %s is open, next trial in %.1f s: %s", name, self._model_id, gate.wait_s(now), error.message
            )


class ProviderRuntime:
    """Survives configuration changes: `apply` sets new numbers and keeps what was learnt."""

    _rate: Rate | None
    _adaptive: Adaptive | None  # the same, where it learns

    def __init__(
        self, spec: ProviderSpec, transport: Transport, clock: Clock, queue_timeout_s: float, rng: random.Random | None = None
    ) -> None:
        self.spec = spec
        self.adapter: Adapter = adapter_for(spec)
        self.transport = transport
        self.clock = clock
        self.slots = Slots(spec.max_concurrency)
        self._queue_timeout_s = queue_timeout_s
        self._set_rate(_rate_for(spec, None, None, clock.monotonic()))
        self._pool = KeyPool(spec.keys)
        self._breakers: dict[tuple[str, str], BreakerGate] = {}
        self._awaited: set[str] = set()
        self._rng = rng or random.Random()
        self.retries = RetryBudget(clock.monotonic())
        self._fit_slots()

    def apply(self, spec: ProviderSpec) -> None:
        if spec == self.spec:
            return
        now = self.clock.monotonic()
        self.adapter = adapter_for(spec)
        moved = (spec.kind, spec.base_url) != (self.spec.kind, self.spec.base_url)
        if moved:
            self._breakers.clear()  # what was learnt was learnt of another server
        self._set_rate(_rate_for(spec, None if moved and self._adaptive else self._rate, self.spec, now))
        for breaker in self._breakers.values():
            breaker.apply(spec.breaker)
        self._pool.apply(spec.keys)
        kept = {key.id for key in self._pool.keys}
        self._breakers = {place: gate for place, gate in self._breakers.items() if place[0] in kept}
        if spec.breaker.reset_at != self.spec.breaker.reset_at:
            self.reset()
        self.spec = spec
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
            booked_at = 0.0
            if self._rate is not None and (wait_s := self._rate.book(1, booked_at := self.clock.monotonic())):
                patience_s = min(self._queue_timeout_s, time_left_s())
                key = await self._wait_for_rate(self._rate, booked_at, wait_s, patience_s, partial(self._pick, model, last))
        except BaseException:
            self.slots.release()
            raise
        breaker = self.breaker(key.id, model.model_id)
        self.retries.calls += 1
        observed = None if self._adaptive is None else Observed(self._adaptive, booked_at)
        return Upstream(self, key, model.model_id, breaker, observed)

    def learn_from(self, observed: Observed, who: tuple[str, str], response: Response) -> None:
        """The vendor accepted a call with the key and model `who`, and may state what it allows them."""
        observed.succeeded(self.clock.monotonic(), who, stated_calls_per_s(response.headers, self.clock.wall()))
        self._fit_slots()

    def learn_the_end(self, observed: Observed, error: BaseException | None, now: float) -> None:
        overloaded = isinstance(error, ProviderFault) and error.vendor_status in _OVERLOADED
        observed.ended(now, refused=overloaded or isinstance(error, ProviderLimited))
        self._fit_slots()

    def breaker(self, key_id: str, model_id: str) -> BreakerGate:
        gate = self._breakers.get((key_id, model_id))
        if gate is None:
            gate = self._breakers[(key_id, model_id)] = BreakerGate(self.spec.breaker, self._rng)
        return gate

    def reset(self) -> None:
        """Closes every breaker and ends every key's rest, as an administrator asked."""
        for gate in self._breakers.values():
            gate.reset()
        for key in self._pool.keys:
            key.rests.clear()

    def trouble(self) -> dict[str, Any]:
        """Breakers that have counted failures and keys that rest, as `providers.states.write` takes them; {} where all is well."""
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
        return {"breakers": breakers, "rests": rests} if breakers or rests else {}

    def failing(self, model_id: str) -> bool:
        """Whether every key's last call of this model failed: another call there is a retry, whoever makes it."""
        return all((gate := self._breakers.get((key.id, model_id))) is not None and gate.failing for key in self._pool.keys)

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

    def _fit_slots(self) -> None:
        limit = self.spec.max_concurrency
        if self._adaptive is not None:
            limit = min(limit or self._adaptive.concurrency, self._adaptive.concurrency)
        if limit != self.slots.limit:
            self.slots.resize(limit)


def _said_of_retries(error: GatewayError, response: Response) -> GatewayError:
    """OpenAI and Anthropic send `x-should-retry` for their own SDKs, which obey it before they look at the status."""
    if isinstance(error, ProviderError) and response.headers.get("x-should-retry") == "false":
        error.ask_again = False
    return error


async def _error_body(response: Response) -> bytes:
    """What an error says for itself; b"" where that is a long page, or cannot be read: the status says enough."""
    try:
        return await response.read(_MAX_ERROR_BYTES)
    except ProviderError:
        return b""


def _of_the_key(error: BaseException | None) -> BaseException | None:
    """Where the pace is learnt, a limit that comes without a wait is the pace's affair: the key need not rest for it."""
    return None if isinstance(error, ProviderLimited) and error.retry_after_s is None else error


def _rate_for(spec: ProviderSpec, rate: Rate | None, before: ProviderSpec | None, now: float) -> Rate | None:
    """`rate`, which was made for `before`, with the numbers of `spec`; another one where its type is another. What is used stays so."""
    if not spec.rate.capacity:
        return None
    if rate is None or before is None or spec.rate.type != before.rate.type:
        fresh = _fresh_rate(spec.rate)
        if rate is not None and (used := min(rate.used(now), int(spec.rate.capacity))):
            fresh.book(used, now)
        rate = fresh
    elif spec.rate != before.rate or spec.keys != before.keys:
        rate.resize(spec.rate, now)
    if isinstance(rate, Adaptive):
        rate.parties = max(1, len(spec.keys))
    return rate


def _fresh_rate(spec: RateSpec) -> Rate:
    if spec.type == "sliding_window":
        return Window(spec)
    if spec.type == "adaptive":
        return Adaptive(spec)
    return Bucket(spec.capacity, spec.refill_rate or spec.capacity)
