"""Limits held in this process: rates as buckets, concurrency as counts. Nothing here awaits, except waiting for a slot."""

from __future__ import annotations

import asyncio
from collections import deque

from core.config import LimitSpec
from core.errors import CallerLimited, ProviderLimited

_MINUTE_S = 60.0
# Monotonic time is a float; a wait that was computed from it must succeed when it has been waited.
_EPSILON_S = 1e-9
_REQUEST_HEADERS = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
_TOKEN_HEADERS = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")


class Bucket:
    """A bucket of `capacity` units that refills at `rate` units a second, kept as the one moment it will be full again."""

    __slots__ = ("_full_at", "capacity", "rate")

    def __init__(self, capacity: float, rate: float) -> None:
        self.capacity = capacity
        self.rate = rate
        self._full_at = 0.0

    def resize(self, capacity: float, rate: float, now: float) -> None:
        """New numbers for the same bucket: what is missing now stays missing, up to the new capacity."""
        missing = min(capacity, self.capacity - self.level(now))
        self.capacity, self.rate = capacity, rate
        self._full_at = now + max(0.0, missing) / rate

    def level(self, now: float) -> float:
        return self.capacity - self.full_in_s(now) * self.rate

    def take(self, amount: float, now: float) -> float:
        """0.0 = taken; otherwise the seconds until it could be, and nothing is taken. More than fits counts as all of it."""
        capacity, full_at = self.capacity, self._full_at
        after = (full_at if full_at > now else now) + (amount if amount < capacity else capacity) / self.rate
        wait_s = after - now - capacity / self.rate
        if wait_s > _EPSILON_S:
            return wait_s
        self._full_at = after
        return 0.0

    def book(self, amount: float, now: float) -> float:
        """Takes in any case, from the future if need be; returns the seconds to wait before using it. First come, first served."""
        self._full_at = (self._full_at if self._full_at > now else now) + amount / self.rate
        wait_s = self._full_at - now - self.capacity / self.rate
        return wait_s if wait_s > 0 else 0.0

    def give_back(self, amount: float) -> None:
        """A negative amount takes more: what a call really used may exceed what it booked."""
        self._full_at -= amount / self.rate

    def full_in_s(self, now: float) -> float:
        left_s = self._full_at - now
        return left_s if left_s > 0 else 0.0


class CallerGate:
    """One caller's limits. `enter` and `leave` frame each request; refusals name the limit, what is used, and the wait."""

    __slots__ = ("_requests", "_tokens", "in_flight", "limits")

    def __init__(self, limits: LimitSpec) -> None:
        self.in_flight = 0
        self.limits = limits
        self._requests = _per_minute(limits.requests_per_minute)
        self._tokens = _per_minute(limits.tokens_per_minute)

    def apply(self, limits: LimitSpec, now: float) -> None:
        """New limits for the same caller; what it has used stays used."""
        if limits == self.limits:
            return
        self._requests = _resized(self._requests, limits.requests_per_minute, now)
        self._tokens = _resized(self._tokens, limits.tokens_per_minute, now)
        self.limits = limits

    def enter(self, tokens: int, now: float) -> None:
        """Raises CallerLimited. `tokens` is the estimate that `leave` corrects."""
        limit = self.limits.max_concurrency
        if limit is not None and self.in_flight >= limit:
            raise CallerLimited(
                f"This key has {self.in_flight} of {limit} concurrent requests in flight; wait for one to end.", retry_after_s=1.0
            )
        if self._requests is not None and (wait_s := self._requests.take(1, now)):
            raise _rate_refused("requests", self._requests, wait_s, now)
        if self._tokens is not None and (wait_s := self._tokens.take(tokens, now)):
            if self._requests is not None:
                self._requests.give_back(1)
            raise _rate_refused("tokens", self._tokens, wait_s, now)
        self.in_flight += 1

    def leave(self, estimated_tokens: int, used_tokens: int) -> None:
        self.in_flight -= 1
        if self._tokens is not None:
            self._tokens.give_back(min(estimated_tokens, self._tokens.capacity) - used_tokens)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """OpenAI's `x-ratelimit-*`, for the limits that this key has."""
        found: list[tuple[bytes, bytes]] = []
        for (limit, remaining, reset), bucket in ((_REQUEST_HEADERS, self._requests), (_TOKEN_HEADERS, self._tokens)):
            if bucket is not None:
                full_in_s = bucket.full_in_s(now)
                left = bucket.capacity - full_in_s * bucket.rate
                found += (
                    (limit, b"%d" % bucket.capacity),
                    (remaining, b"%d" % left if left > 0 else b"0"),
                    (reset, b"%dms" % (full_in_s * 1000)),
                )
        return found


def _per_minute(limit: int | None) -> Bucket | None:
    return None if limit is None else Bucket(limit, limit / _MINUTE_S)


def _resized(bucket: Bucket | None, limit: int | None, now: float) -> Bucket | None:
    if bucket is None or limit is None:
        return _per_minute(limit)
    bucket.resize(limit, limit / _MINUTE_S, now)
    return bucket


def _rate_refused(what: str, bucket: Bucket, wait_s: float, now: float) -> CallerLimited:
    used = int(bucket.capacity - bucket.level(now))
    return CallerLimited(
        f"This key has used {used} of {int(bucket.capacity)} {what} per minute; try again in {wait_s:.3f} s.", retry_after_s=wait_s
    )


class Slots:
    """Calls in flight at one provider, at most `limit` (0 = no limit), with a queue in order of arrival."""

    __slots__ = ("_waiting", "in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
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
