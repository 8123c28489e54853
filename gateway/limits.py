"""Limits held in this process: what keys, teams and models may do, and the slots of a provider.

Nothing here awaits, except waiting for a slot.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from core.config import LimitSpec, RateSpec
from core.errors import CallerLimited, GatewayError, ProviderLimited
from gateway.adaptive import Adaptive
from gateway.rates import Bucket, Rate, Window, ceil_ms, shared_out

MINUTE_S = 60.0
# Nobody knows when a request in flight will end.
_CONCURRENCY_WAIT_S = 1.0
_SOON_S = 0.1
_REQUEST_HEADERS = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
_TOKEN_HEADERS = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")
Headers = list[tuple[bytes, bytes]]


class Gate:
    """The limits of one `holder`, which begins its sentences: "This key", "Team growth".

    `enter` and `leave` frame each request. A refusal names the limit, what is used of it, and the wait.
    """

    __slots__ = ("_error", "holder", "in_flight", "limits", "requests", "tokens")

    def __init__(self, holder: str, limits: LimitSpec, error: type[GatewayError] = CallerLimited) -> None:
        self._error = error
        self.holder = holder
        self.in_flight = 0
        self.limits = limits
        self.requests = self._fitted(0, None, limits.requests_per_minute, 0.0)
        self.tokens = self._fitted(1, None, limits.tokens_per_minute, 0.0)

    def apply(self, holder: str, limits: LimitSpec, now: float) -> None:
        """New limits for the same holder; what it has used stays used."""
        self.holder = holder
        if limits == self.limits:
            return
        self.requests = self._fitted(0, self.requests, limits.requests_per_minute, now)
        self.tokens = self._fitted(1, self.tokens, limits.tokens_per_minute, now)
        self.limits = limits

    def enter(self, tokens: int, now: float) -> None:
        """Raises CallerLimited, or what this gate was made with. `tokens` is the estimate that `leave` corrects."""
        limit = self.limits.max_concurrency
        if limit is not None and self.in_flight >= limit:
            raise refusal((self,), tokens, now)
        if self.requests is not None and not self.requests.take(1, now):
            raise refusal((self,), tokens, now)
        if self.tokens is not None and not self.tokens.take(tokens, now):
            if self.requests is not None:
                self.requests.give_back(1)
            raise refusal((self,), tokens, now)
        self.in_flight += 1

    def note(self, tokens: int, now: float) -> None:
        """Counts a request in that another authority admitted, without refusing; `leave` or `undo` follows as after `enter`."""
        if self.requests is not None:
            self.requests.count(1, now)
        if self.tokens is not None:
            self.tokens.count(tokens, now)
        self.in_flight += 1

    def leave(self, estimated_tokens: int, used_tokens: int, now: float) -> None:
        self.in_flight -= 1
        if self.tokens is not None:
            self.tokens.book(used_tokens - min(estimated_tokens, self.tokens.capacity), now)

    def undo(self, tokens: int) -> None:
        """As if it had never entered: another limit refused the request."""
        self.in_flight -= 1
        if self.tokens is not None:
            self.tokens.give_back(min(tokens, self.tokens.capacity))
        if self.requests is not None:
            self.requests.give_back(1)

    def refusals(self, tokens: int, now: float) -> Iterable[tuple[float, GatewayError]]:
        """Each limit that stands in the way, with its wait in seconds."""
        limit = self.limits.max_concurrency
        if limit is not None and self.in_flight >= limit:
            text = f"{self.holder} has {self.in_flight} of {limit} concurrent requests in flight; wait for one to end."
            yield _CONCURRENCY_WAIT_S, self._error(text, retry_after_s=_CONCURRENCY_WAIT_S)
        if self.requests is not None and (wait_s := self.requests.wait_s(1, now)):
            yield wait_s, self._error(_sentence(self.holder, "requests", self.requests, 0, wait_s, now), retry_after_s=wait_s)
        if self.tokens is not None and (wait_s := self.tokens.wait_s(tokens, now)):
            yield wait_s, self._error(_sentence(self.holder, "tokens", self.tokens, tokens, wait_s, now), retry_after_s=wait_s)

    def used_up(self) -> GatewayError:
        """A refusal for which no limit stands any more: another process, or the last bit of a float, has freed it since."""
        return self._error(f"{self.holder} has used a limit up; try again.", retry_after_s=_SOON_S)

    def headers(self, now: float) -> Headers:
        """OpenAI's `x-ratelimit-*`, for the limits that there are."""
        found: Headers = []
        if self.requests is not None:
            found += _described(_REQUEST_HEADERS, self.requests, now)
        if self.tokens is not None:
            found += _described(_TOKEN_HEADERS, self.tokens, now)
        return found

    def _fitted(self, number: int, bucket: Bucket | None, limit: int | None, now: float) -> Bucket | None:
        """`bucket`, the first or second of this gate, with a new limit per minute."""
        if limit is None:
            return None
        if bucket is None:
            return self._bucket(number, limit, now)
        bucket.fit(limit, limit / MINUTE_S, now)
        return bucket

    def _bucket(self, number: int, limit: int, now: float) -> Bucket:
        return Bucket(limit, limit / MINUTE_S)


class Gates:
    """Several gates to pass for one request, as one: all of them let it in, or none has counted it."""

    __slots__ = ("_gates",)

    def __init__(self, *gates: Gate) -> None:
        self._gates = gates

    @property
    def in_flight(self) -> int:
        """Of the first gate."""
        return self._gates[0].in_flight

    def enter(self, tokens: int, now: float) -> None:
        """Raises CallerLimited, for whichever limit has the longest wait."""
        for passed, gate in enumerate(self._gates):
            try:
                gate.enter(tokens, now)
            except GatewayError as error:
                for entered in reversed(self._gates[:passed]):
                    entered.undo(tokens)
                raise refusal(self._gates, tokens, now, error) from None

    def note(self, tokens: int, now: float) -> None:
        """See `Gate.note`."""
        for gate in self._gates:
            gate.note(tokens, now)

    def leave(self, estimated_tokens: int, used_tokens: int, now: float) -> None:
        for gate in reversed(self._gates):
            gate.leave(estimated_tokens, used_tokens, now)

    def undo(self, tokens: int) -> None:
        """See `Gate.undo`."""
        for gate in reversed(self._gates):
            gate.undo(tokens)

    def headers(self, now: float) -> Headers:
        """Of the bucket with the least left, for requests and for tokens."""
        requests = [gate.requests for gate in self._gates if gate.requests is not None]
        tokens = [gate.tokens for gate in self._gates if gate.tokens is not None]
        found: Headers = []
        for names, buckets in ((_REQUEST_HEADERS, requests), (_TOKEN_HEADERS, tokens)):
            if buckets:
                found += _described(names, min(buckets, key=lambda bucket: bucket.level(now)), now)
        return found


def refusal(gates: Sequence[Gate], tokens: int, now: float, first: GatewayError | None = None) -> GatewayError:
    """The limit that takes longest to let this request in: after its wait none of the others stands in the way either.

    `first`: what refused at first; it stands where the gate that it names has been freed since by another process.
    """
    found = [refused for gate in gates for refused in gate.refusals(tokens, now)]
    if found:
        return max(found, key=lambda refused: refused[0])[1]
    return first or gates[0].used_up()


def one_of(limits: LimitSpec, parts: int) -> LimitSpec:
    """One of `parts` equal parts of `limits`, each number at least 1: for holders that do not know of each other."""
    if parts == 1 or not limits.limits_something:
        return limits
    names = ("requests_per_minute", "tokens_per_minute", "max_concurrency")
    return msgspec.structs.replace(limits, **{name: max(1, limit // parts) for name in names if (limit := getattr(limits, name))})


def _sentence(holder: str, what: str, bucket: Bucket, needed: int, wait_s: float, now: float) -> str:
    needs = f", and this request needs about {needed}" if needed else ""
    return f"{holder} has used {bucket.used(now)} of {int(bucket.capacity)} {what} per minute{needs}; try again in {ceil_ms(wait_s):.3f} s."


def _described(names: tuple[bytes, bytes, bytes], bucket: Bucket, now: float) -> Headers:
    full_in_s = bucket.full_in_s(now)
    left = bucket.capacity - full_in_s * bucket.rate + 1e-6  # what is whole but for the last bit of a float is whole
    return [
        (names[0], b"%d" % bucket.capacity),
        (names[1], b"%d" % left if left > 0 else b"0"),
        (names[2], b"%dms" % (full_in_s * 1000)),
    ]


class Slots:
    """Calls in flight at one provider, at most `limit` (0 = no limit), with a queue in order of arrival.

    `apart`: it is a limit of this process's own, also where processes share their slots.
    """

    __slots__ = ("_waiting", "apart", "in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.apart = False
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def try_take(self) -> bool:
        if self._waiting or (self.limit and self.in_flight >= self.limit):
            return False
        self.in_flight += 1
        return True

    async def wait(self, timeout_s: float, provider: str) -> None:
        """Takes a slot when one is free. Raises ProviderLimited after `timeout_s`."""
        slot = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        try:
            async with asyncio.timeout(timeout_s):
                await slot
        except (TimeoutError, asyncio.CancelledError) as exc:
            self._abandon(slot)
            if isinstance(exc, TimeoutError):
                raise ProviderLimited(
                    f"Provider {provider} has {self.in_flight} calls in flight, its limit; none ended within {timeout_s:g} s.",
                    retry_after_s=1.0,
                ) from None
            raise

    def release(self) -> None:
        self.in_flight -= 1
        if self._waiting:
            self._wake()

    def resize(self, limit: int) -> None:
        self.limit = limit
        self._wake()

    def _wake(self) -> None:
        while self._waiting and (not self.limit or self.in_flight < self.limit):
            slot = self._waiting.popleft()
            if not slot.done():
                self.in_flight += 1
                slot.set_result(None)

    def _abandon(self, slot: asyncio.Future[None]) -> None:
        """A waiter that gave up either never got its slot, or got it in the same moment and hands it on."""
        if slot.done() and not slot.cancelled():
            self.release()
        elif slot in self._waiting:
            self._waiting.remove(slot)


class Local:
    """Makes limits that this process holds alone. `name` tells them apart, and is the same in every process."""

    workers = 1

    def parts(self, limit: object) -> int:
        """How many processes of this machine each hold a part of `limit`, one of those made here: 1 = it is one and the same."""
        return 1

    def keeps(self, limit: object, spec: LimitSpec | RateSpec) -> bool:
        """Whether `limit` can take the numbers of `spec`; another one is made otherwise."""
        return True

    def gate(self, name: str, holder: str, limits: LimitSpec, error: type[GatewayError], now: float, machines: int) -> Gate:
        """For one of `machines` that share `limits` out."""
        return Gate(holder, one_of(limits, machines), error)

    def rate(self, name: str, spec: RateSpec, now: float, machines: int) -> Rate:
        return fresh_rate(shared_out(spec, machines))

    def slots(self, name: str) -> Slots:
        """Without a limit, until `resize`."""
        return Slots(0)


def fresh_rate(spec: RateSpec) -> Rate:
    if spec.type == "sliding_window":
        return Window(spec)
    if spec.type == "adaptive":
        return Adaptive(spec)
    return Bucket(spec.capacity, spec.refill_rate or spec.capacity)
