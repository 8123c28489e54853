"""A provider's true limits, learnt from its answers: additive increase, multiplicative decrease, of two numbers at once.

A refusal (429, 503 or 529 for overload) does not say whether too many calls were in flight or too many were started. Calls
that went through do: where one was accepted among as many others, concurrency is not the reason, so the pace is cut.

The increase costs few refusals by design: close to the last known limit a level must carry `_PROBE_AFTER` calls, or two
seconds' worth, before it goes one step up, so that probing refuses at most about one call in a hundred.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from core.config import RateSpec
from gateway.rates import Bucket

_FLOOR = 1.0
_PROBE_AFTER = 200
_DECREASE = 0.9
# A level that has not carried even one round of calls since the last cut was far off.
_FAR_DECREASE = 0.5
_PACE_STEP = 0.05
_MOVED_INCREASE = 1.25
# How fast evidence ages: what a call was accepted among counts so much less after each cut of the pace.
_FADING = 0.7
# The pace is held over a tenth of a second: what vendors count within a second has no room for larger bursts. A new one
# takes as long to show.
_BURST_S = 0.1
# Where a refusal makes the key rest, a known limit is tried again after so many times that rest: it costs a fortieth at most.
_RESTS_APART = 40


class Level:
    """One learnt number between its floor and `ceiling`. `step` None = a twentieth of the level."""

    __slots__ = ("_again_at", "_carried", "_grown", "_known", "_patience", "_round", "_step", "ceiling", "level", "pressed")

    def __init__(self, ceiling: float, step: float | None) -> None:
        self.ceiling = self.level = ceiling
        self._step = step
        # The level that was too much, and how many calls are to go through before it is tried again.
        self._known = ceiling
        self._patience = 0.0
        self._again_at = float("-inf")
        # Successes since the last cut, and towards the next step.
        self._carried = self._round = 0
        self._grown = True
        # Whether it held a call back since its last change: a limit that nobody runs into is no evidence for a higher one.
        self.pressed = False

    def numbers(self) -> tuple[float, ...]:
        """All of it, for `recall`."""
        counted = self._carried, self._round, self._grown, self.pressed
        return self.ceiling, self.level, self._known, self._patience, self._again_at, *counted

    def recall(self, numbers: Sequence[float]) -> None:
        self.ceiling, self.level, self._known, self._patience, self._again_at = numbers[:5]
        self._carried, self._round = int(numbers[5]), int(numbers[6])
        self._grown, self.pressed = bool(numbers[7]), bool(numbers[8])

    def resize(self, ceiling: float) -> None:
        """What was learnt stays; what never met a limit follows the ceiling."""
        unlimited = self.level == self._known == self.ceiling
        self.ceiling = ceiling
        self.level = ceiling if unlimited else min(self.level, ceiling)
        if unlimited:
            self._known = ceiling

    @property
    def probing(self) -> bool:
        """Whether it has gone up since it was last cut, and has not carried a round of calls since."""
        return self._grown and self._patience > 0 and self._round < self.level

    def carried(self, now: float) -> bool:
        """One call more went through. True = the level went up."""
        self._carried += 1
        if not self.pressed or self.level >= self.ceiling:
            return False
        self._round += 1
        if self._round < (self._patience if self._near() else self.level):
            return False
        higher = min(self.ceiling, self._next())
        if higher >= self._known and now < self._again_at:
            return False
        self._round, self.pressed, self._grown = 0, False, True
        self.level = higher
        return True

    def cut(self, now: float, rest_s: float) -> None:
        """The level was too much, which costs a rest. A series of cuts remembers where it began, and so soon grows back; a limit
        that is met where it was known is tried more and more rarely."""
        self._again_at = now + _RESTS_APART * rest_s
        if self._grown:
            longest = max(_PROBE_AFTER, 2 * self.level)
            self._patience = min(longest, 2 * self._patience) if self._near() else self.level
            self._known = self.level
        lower = self.level * (_FAR_DECREASE if self._carried < self.level else _DECREASE)
        if self._step is not None:
            lower = min(lower, int(self.level) - self._step)
        self.level = max(min(_FLOOR, self.ceiling), lower)
        self._carried = self._round = 0
        self._grown = self.pressed = False

    def _next(self) -> float:
        """One step up around the known limit; by halves far below it, and by quarters above, where the limit has moved."""
        if self.level < self._known / 4:
            return self.level * 2
        higher = self.level + self._one_step()
        return higher if self._near() or self.level < self._known else max(higher, self.level * _MOVED_INCREASE)

    def _near(self) -> bool:
        return abs(self.level - self._known) <= 2 * self._one_step() + 1e-6

    def _one_step(self) -> float:
        return self._step or self._known * _PACE_STEP


class Adaptive:
    """Calls in flight and calls a second, as far as the vendor lets them. See `gateway.rates.Rate` for the booking.

    An `Observed` per call tells it what became of that call.
    """

    __slots__ = (
        *("_accepted_among", "_bucket", "_flight", "_lately_among", "_pace", "_settled_at", "_stated", "_told_by", "in_flight", "parties"),
    )

    def __init__(self, spec: RateSpec, parties: int = 1) -> None:
        """`parties`: how many credentials share the provider, each of which has limits of its own."""
        self._flight = Level(spec.capacity, step=1.0)
        self._pace = Level(spec.refill_rate, step=None)
        self._bucket = Bucket(_burst(spec.refill_rate), spec.refill_rate)
        self._stated: dict[Hashable, float] = {}
        self._settled_at = float("-inf")
        # The most calls among which one was accepted: since the last cut of the pace, and before it.
        self._lately_among = self._accepted_among = 1.0
        # When the latest call began that was accepted among more than was known.
        self._told_by = float("-inf")
        self.in_flight = 0
        self.parties = parties

    @property
    def concurrency(self) -> int:
        return int(self._flight.level)

    @property
    def calls_per_s(self) -> float:
        """What is learnt, or less where the vendor states less."""
        if not self._stated:
            return self._pace.level
        stated = sum(self._stated.values()) / len(self._stated) * max(len(self._stated), self.parties)
        return min(self._pace.level, stated)

    def numbers(self) -> tuple[float, ...]:
        """What was learnt, for `recall`; not the bucket, nor the calls in flight."""
        return *self._flight.numbers(), *self._pace.numbers(), self._settled_at, self._lately_among, self._accepted_among, self._told_by

    def recall(self, numbers: Sequence[float]) -> None:
        self._flight.recall(numbers[:9])
        self._pace.recall(numbers[9:18])
        self._settled_at, self._lately_among, self._accepted_among, self._told_by = numbers[18:]

    def resize(self, spec: RateSpec, now: float) -> None:
        self._flight.resize(spec.capacity)
        self._pace.resize(spec.refill_rate)
        self._stated.clear()  # of keys that may be gone; the next answers state it again
        self._set_pace(now)

    def book(self, amount: int, now: float) -> float:
        wait_s = self._bucket.book(amount, now)
        if wait_s:
            self._pace.pressed = True
        return wait_s

    def give_back(self, amount: int, start_at: float) -> None:
        self._bucket.give_back(amount)

    def used(self, now: float) -> int:
        return self._bucket.used(now)

    def state(self, now: float) -> str:
        return f"{self.in_flight} calls in flight, and the rate that its vendor was found to take, {self.calls_per_s:.3g} a second, used up"

    def began(self) -> int:
        """The calls now in flight, this one included."""
        self.in_flight += 1
        if self.in_flight >= self.concurrency:
            self._flight.pressed = True
        return self.in_flight

    def ended(self) -> None:
        self.in_flight -= 1

    def succeeded(self, among: int, booked_at: float, now: float, who: Hashable = None, stated: float | None = None) -> None:
        """A call booked at `booked_at`, that began as one of `among` in flight, was accepted; the vendor `stated` calls a second
        for `who`."""
        if among > self._lately_among:
            self._lately_among += (among - self._lately_among) / 2  # one alone may have found a place that we held for taken
            self._told_by = max(self._told_by, booked_at)
        self._flight.carried(now)
        changed = self._pace.carried(now)
        if stated is not None and self._stated.get(who) != stated:
            self._stated[who] = stated
            changed = True
        if changed:
            self._set_pace(now)

    def limited(self, among: int, booked_at: float, now: float, rest_s: float = 0.0) -> None:
        """A call booked at `booked_at` was refused, and its key rests for `rest_s`. One that was let in before the last cut has
        settled tells nothing new. What has just gone up is to blame before anything else."""
        if booked_at <= self._settled_at:
            return
        self._settled_at = now
        if booked_at < self._told_by:
            # This one was refused before those were accepted, and was counted among what they were accepted among.
            self._accepted_among = self._lately_among = 1.0
        if among > max(self._accepted_among, self._lately_among) or (among >= self.concurrency and self._flight.probing):
            self._flight.level = min(self._flight.level, among)
            self._flight.cut(now, rest_s)
            return
        # A vendor that takes fewer calls at once than it did must not be blamed on the pace for ever.
        self._accepted_among = max(self._lately_among, self._accepted_among * _FADING)
        self._lately_among = 1.0
        self._pace.level = self.calls_per_s
        self._pace.cut(now, rest_s)
        self._settled_at = now + _BURST_S
        self._set_pace(now)

    def _set_pace(self, now: float) -> None:
        rate = self.calls_per_s
        if rate != self._bucket.rate:
            self._bucket.pace(_burst(rate), rate, now)


class Observed:
    """One call, from its start to its `ended`. `booked_at`: when it was let in, by the numbers of that moment."""

    __slots__ = ("_among", "_booked_at", "_rate")

    def __init__(self, rate: Adaptive, booked_at: float) -> None:
        self._rate = rate
        self._booked_at = booked_at
        self._among = rate.began()

    def succeeded(self, now: float, who: Hashable, stated: float | None) -> None:
        self._rate.succeeded(self._among, self._booked_at, now, who, stated)

    def ended(self, now: float, *, refused: bool, rest_s: float = 0.0) -> None:
        """`refused`: the vendor said that this call was too much, and its key rests for `rest_s`."""
        if refused:
            self._rate.limited(self._among, self._booked_at, now, rest_s)
        self._rate.ended()


def _burst(rate: float) -> float:
    return max(1.0, rate * _BURST_S)
