"""One provider, alive: its slots, its rate, its keys and breakers, and its adapter on the guarded transport."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

from core.chat import Answer, ChatRequest
from core.clock import Clock
from core.config import ModelSpec, ProviderSpec
from core.errors import ProviderError, ProviderLimited, ProviderPaused
from core.outbound import Response, Transport
from gateway.breaker import BreakerGate
from gateway.keypool import Key, KeyPool
from gateway.limits import Bucket, Slots
from providers.adapters.base import Adapter, StreamReader
from providers.adapters.registry import adapter_for

MAX_ANSWER_BYTES = 32 * 2**20
_MAX_ERROR_BYTES = 64 * 2**10
_LINGER_S = 0.05


class Upstream:
    """A vendor call in flight. Holds a slot, a key and a breaker's permit until `close`, which must be called."""

    __slots__ = (
        *("_adapter", "_breaker", "_closed", "_model_id", "_request", "_response", "_runtime", "_trial"),
        *("dropped", "key", "reader", "vendor_s"),
    )

    def __init__(self, runtime: ProviderRuntime, key: Key, model_id: str, breaker: BreakerGate) -> None:
        self._runtime = runtime
        # The runtime's may be replaced while this call lasts; who asked must also read the answer.
        self._adapter = runtime.adapter
        self._model_id = model_id
        self._breaker = breaker
        self._trial = breaker.enter()
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
            body = await response.read(_MAX_ERROR_BYTES)
            raise adapter.read_error(response.status, response.headers, body)
        if request.stream:
            self.reader = adapter.stream_reader(request)
        self.vendor_s = runtime.clock.monotonic() - sent_at

    async def count(self, request: ChatRequest, model: ModelSpec) -> int:
        """Input tokens by the vendor's own count, instead of an answer; see `ProviderRuntime.counts_tokens`. Raises ProviderError."""
        adapter: Any = self._adapter
        call = adapter.count_call(request, model, self.key.secret)
        response = self._response = await adapter.send(self._runtime.transport, call)
        body = await response.read(_MAX_ERROR_BYTES)
        if response.status != 200:
            raise adapter.read_error(response.status, response.headers, body)
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

    def close(self, error: BaseException | None, *, says_nothing: bool = False) -> None:
        """Idempotent, and never awaits: safe while being cancelled. `says_nothing`: the client left, the vendor is not judged."""
        if self._closed:
            return
        self._closed = True
        if self._response is not None:
            self._response.close()
        now = self._runtime.clock.monotonic()
        self.key.release(self._model_id, error, now)
        self._runtime.slots.release()
        if error is None and not says_nothing:
            self._breaker.succeeded(self._trial)
        elif isinstance(error, ProviderError) and error.blames_provider:
            self._breaker.failed(self._trial, error, now)
        else:
            self._breaker.neutral(self._trial)


class ProviderRuntime:
    """Survives configuration changes: `apply` sets new numbers and keeps what was learnt."""

    def __init__(self, spec: ProviderSpec, transport: Transport, clock: Clock, queue_timeout_s: float) -> None:
        self.spec = spec
        self.adapter: Adapter = adapter_for(spec)
        self.transport = transport
        self.clock = clock
        self.slots = Slots(spec.max_concurrency)
        self._queue_timeout_s = queue_timeout_s
        self._rate = _bucket(spec)
        self._pool = KeyPool(spec.keys)
        self._breakers: dict[tuple[str, str], BreakerGate] = {}

    def apply(self, spec: ProviderSpec) -> None:
        if spec == self.spec:
            return
        now = self.clock.monotonic()
        self.adapter = adapter_for(spec)
        if (spec.kind, spec.base_url) != (self.spec.kind, self.spec.base_url):
            self._breakers.clear()  # what was learnt was learnt of another server
        self.slots.resize(spec.max_concurrency)
        if spec.rate != self.spec.rate:
            fresh = _bucket(spec)
            if self._rate is not None and fresh is not None:
                self._rate.resize(fresh.capacity, fresh.rate, now)
            else:
                self._rate = fresh
        for breaker in self._breakers.values():
            breaker.apply(spec.breaker)
        self._pool.apply(spec.keys)
        self.spec = spec

    @property
    def counts_tokens(self) -> bool:
        """Whether this vendor counts the tokens of an Anthropic request for nothing: its adapter has `count_call` and `read_count`."""
        return hasattr(self.adapter, "count_call")

    async def acquire(self, model: ModelSpec, time_left_s: float) -> Upstream:
        """Slot → rate → key and breaker. Raises ProviderPaused, ProviderLimited, ProviderRejectedOurKey at once where
        nothing can be had, ProviderLimited where waiting would take too long."""
        if not self.slots.try_take():
            self._pick(model)  # fails before waiting, where waiting is in vain
            await self.slots.wait(min(self._queue_timeout_s, time_left_s), self.spec.name)
        try:
            key = self._pick(model)
            if self._rate is not None and (wait_s := self._rate.book(1, self.clock.monotonic())):
                await self._wait_for_rate(self._rate, wait_s, min(self._queue_timeout_s, time_left_s))
                key = self._pick(model)
        except BaseException:
            self.slots.release()
            raise
        breaker = self.breaker(key.id, model.model_id)
        key.in_flight += 1
        return Upstream(self, key, model.model_id, breaker)

    def breaker(self, key_id: str, model_id: str) -> BreakerGate:
        gate = self._breakers.get((key_id, model_id))
        if gate is None:
            gate = self._breakers[(key_id, model_id)] = BreakerGate(self.spec.breaker)
        return gate

    def breaker_states(self) -> list[str]:
        return [gate.state for gate in self._breakers.values()]

    def _pick(self, model: ModelSpec) -> Key:
        only = self._pool.only()
        if only is not None and self.breaker(only.id, model.model_id).calm:
            return only
        now = self.clock.monotonic()
        key, wait_s, reason = self._pool.pick(model.model_id, now, partial(self._breaker_wait_s, model.model_id, now))
        if key is not None:
            return key
        if reason is None:
            raise ProviderPaused(
                f"Provider {self.spec.name} is paused after repeated failures; the next trial is in {wait_s:.1f} s.", retry_after_s=wait_s
            )
        raise type(reason)(reason.message, retry_after_s=wait_s, vendor_status=reason.vendor_status)

    def _breaker_wait_s(self, model_id: str, now: float, key_id: str) -> float:
        return self.breaker(key_id, model_id).wait_s(now)

    async def _wait_for_rate(self, rate: Bucket, wait_s: float, patience_s: float) -> None:
        if wait_s > patience_s:
            rate.give_back(1)
            raise ProviderLimited(
                f"Provider {self.spec.name} is at its configured rate; a call could start in {wait_s:.1f} s.", retry_after_s=wait_s
            )
        try:
            await asyncio.sleep(wait_s)
        except asyncio.CancelledError:
            rate.give_back(1)
            raise


def _bucket(spec: ProviderSpec) -> Bucket | None:
    if not spec.rate.capacity:
        return None
    return Bucket(spec.rate.capacity, spec.rate.refill_rate or spec.rate.capacity)
