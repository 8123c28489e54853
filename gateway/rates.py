"""How often something may happen: buckets and windows. Nothing here awaits; who is told to wait sleeps elsewhere."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from typing import Protocol

import msgspec

from core.config import RateSpec

# Monotonic time is a float; a wait that was computed from it must succeed when it has been waited.
EPSILON_S = 1e-7


def shared_out(spec: RateSpec, parts: int) -> RateSpec:
    """One of `parts` equal parts of a rate, at least one call large: for holders that do not know of each other."""
    if parts == 1 or not spec.capacity:
        return spec
    if spec.type == "sliding_window":
        capacity = max(1.0, int(spec.capacity) // parts)
        return msgspec.structs.replace(spec, capacity=capacity, refill_rate=capacity / spec.window_s)
    refill_rate = (spec.refill_rate or spec.capacity) / parts
    return msgspec.structs.replace(spec, capacity=max(min(1.0, spec.capacity), spec.capacity / parts), refill_rate=refill_rate)


def ceil_ms(wait_s: float) -> float:
    """For sentences: not rounded down, so that who waits as it says is let in."""
    return math.ceil(wait_s * 1000) / 1000


class Rate(Protocol):
    """How often calls may start at one provider. A place is booked, waited for, and used or given back."""

    def book(self, amount: int, now: float) -> float:
        """Takes in any case, from the future if need be: seconds until it may be used, 0.0 = now. First come, first served."""
        ...

    def give_back(self, amount: int, start_at: float) -> None:
        """What was booked for `start_at` (the moment of booking + its wait) will not be used."""
        ...

    def resize(self, spec: RateSpec, now: float) -> None:
        """New numbers for the same rate: what is used and booked stays so."""
        ...

    def used(self, now: float) -> int:
        """Calls that count against the limit at this moment."""
        ...

    def state(self, now: float) -> str:
        """What is used of which limit, to follow the words "Provider x has"."""
        ...


class Bucket:
    """A bucket of `capacity` units that refills at `rate` units a second, kept as the one moment it will be full again."""

    __slots__ = ("_full_at", "capacity", "rate")

    def __init__(self, capacity: float, rate: float) -> None:
        self.capacity = capacity
        self.rate = rate
        self._full_at = 0.0

    def fit(self, capacity: float, rate: float, now: float) -> None:
        """New numbers for the same bucket: what is missing now stays missing, up to the new capacity."""
        missing = min(capacity, self.capacity - self.level(now))
        self.capacity, self.rate = capacity, rate
        self._full_at = now + max(0.0, missing) / rate

    def pace(self, capacity: float, rate: float, now: float) -> None:
        """As `fit`; who has booked from the future keeps its place, and who books next comes after it."""
        booked_until = self._full_at - self.capacity / self.rate
        self.fit(capacity, rate, now)
        if booked_until > now:
            self._full_at = booked_until + capacity / rate

    def resize(self, spec: RateSpec, now: float) -> None:
        self.pace(spec.capacity, spec.refill_rate or spec.capacity, now)

    def level(self, now: float) -> float:
        return self.capacity - self.full_in_s(now) * self.rate

    def used(self, now: float) -> int:
        """Units that are missing, a part of one counted as one; more than the capacity where more was used than was there."""
        return math.ceil(self.full_in_s(now) * self.rate - 1e-6)

    def state(self, now: float) -> str:
        return f"used {min(self.used(now), math.ceil(self.capacity))} of {self.capacity:g} calls, refilled at {self.rate:g} a second"

    def wait_s(self, amount: float, now: float) -> float:
        """0.0 = `amount` could be taken; otherwise the seconds until then. More than fits counts as all of it."""
        wait_s = self.full_in_s(now) - (self.capacity - min(amount, self.capacity)) / self.rate
        return wait_s if wait_s > EPSILON_S else 0.0

    def take(self, amount: float, now: float) -> bool:
        """False = it is not there, and nothing is taken; `wait_s` says when. More than fits counts as all of it."""
        capacity, full_at = self.capacity, self._full_at
        after = (full_at if full_at > now else now) + (amount if amount < capacity else capacity) / self.rate
        if after - now - capacity / self.rate > EPSILON_S:
            return False
        self._full_at = after
        return True

    def book(self, amount: float, now: float) -> float:
        """See `Rate`. A negative amount puts back, as of now."""
        self._full_at = (self._full_at if self._full_at > now else now) + amount / self.rate
        wait_s = self._full_at - now - self.capacity / self.rate
        return wait_s if wait_s > EPSILON_S else 0.0

    def count(self, amount: float, now: float) -> None:
        """Takes what is there of `amount`, the bucket being empty at most: somebody else has let it in."""
        full_at = self._full_at if self._full_at > now else now
        self._full_at = max(full_at, min(full_at + amount / self.rate, now + self.capacity / self.rate))

    def learn(self, full_in_s: float, now: float) -> None:
        """When it will be full, as all machines count together: an equal part of it will be full at the same moment."""
        self._full_at = now + full_in_s

    def give_back(self, amount: float, start_at: float = 0.0) -> None:
        """See `Rate`."""
        self._full_at -= amount / self.rate

    def full_in_s(self, now: float) -> float:
        left_s = self._full_at - now
        return left_s if left_s > 0 else 0.0


class Moments(Protocol):
    """What a window needs of the row of its starts, the oldest first. A deque is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> float: ...

    def __delitem__(self, index: int, /) -> None: ...

    def __iter__(self) -> Iterator[float]: ...

    def __reversed__(self) -> Iterator[float]: ...

    def append(self, moment: float, /) -> None: ...

    def popleft(self) -> float: ...


class Window:
    """Exactly at most `capacity` starts in any `window_s` seconds (a start leaves the window `window_s` after it).

    Holds the moments of the last `capacity` starts and of those that are booked, in order: O(1) for each.
    """

    __slots__ = ("_freed", "_starts", "capacity", "window_s")

    def __init__(self, spec: RateSpec) -> None:
        self.capacity, self.window_s = int(spec.capacity), spec.window_s
        self._starts: Moments = deque()
        self._freed: list[float] = []

    def resize(self, spec: RateSpec, now: float) -> None:
        self.capacity, self.window_s = int(spec.capacity), spec.window_s

    def book(self, amount: int, now: float) -> float:
        """See `Rate`. A place that was given back goes to the next who asks."""
        start_at = now
        for _ in range(amount):
            start_at = self._book_one(now)
        wait_s = start_at - now
        return wait_s if wait_s > EPSILON_S else 0.0

    def give_back(self, amount: int, start_at: float) -> None:
        for _ in range(amount):
            heapq.heappush(self._freed, start_at)

    def used(self, now: float) -> int:
        """Starts of the last `window_s` seconds, without those still to come."""
        found = 0
        for start_at in reversed(self._starts):
            if start_at <= now - self.window_s:
                break
            found += start_at <= now
        return max(0, found - sum(start_at <= now for start_at in self._freed))

    def state(self, now: float) -> str:
        return f"used {self.used(now)} of {self.capacity} calls in {self.window_s:g} s"

    def _book_one(self, now: float) -> float:
        if self._freed and (start_at := self._reused(now)) is not None:
            return start_at
        starts = self._starts
        start_at = now
        if starts and starts[-1] > now:
            start_at = starts[-1]
        if len(starts) >= self.capacity:
            start_at = max(start_at, starts[-self.capacity] + self.window_s)
            while len(starts) >= self.capacity and starts[0] + self.window_s <= now:
                starts.popleft()
        starts.append(start_at)
        return start_at

    def _reused(self, now: float) -> float | None:
        """The first place given back that is still to come; those whose moment went by leave a gap, as if never taken."""
        while self._freed:
            start_at = heapq.heappop(self._freed)
            if start_at >= now - EPSILON_S:
                return start_at
            self._remove(start_at)
        return None

    def _remove(self, start_at: float) -> None:
        """`start_at` went through a sum, and may be off by the last bit."""
        for index, kept in enumerate(self._starts):
            if abs(kept - start_at) <= EPSILON_S:
                del self._starts[index]
                return
