"""A request's way past limits that all machines count together, while each machine keeps count for the time without Redis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from core.clock import Clock
from core.config import LimitSpec
from core.errors import CallerLimited, GatewayError
from gateway.limits import Gate, Gates, Headers
from gateway.rates import Bucket
from gateway.sharing.cluster import Cluster, ClusterDown, Line, Taken, placed


class ClusterGate:
    """The limits of one holder: `seen` as all machines count them, as of the last answer; `here` this machine's part of them."""

    __slots__ = ("_calls", "_requests", "_tokens", "here", "seen")

    def __init__(self, name: str, limits: LimitSpec, here: Gate, error: type[GatewayError] = CallerLimited) -> None:
        """`name` is the holder's own, whatever its limits are: changed ones apply to the same state."""
        self._requests, self._tokens, self._calls = f"{name}:requests", f"{name}:tokens", f"{name}:calls"
        self.here = here
        self.seen = Gate(here.holder, limits, error)

    def lines(self, tokens: int) -> Iterator[Line]:
        """What a request of about so many `tokens` takes. `see` and `back` are in the same order."""
        requests, counted, calls = self.seen.requests, self.seen.tokens, self.seen.limits.max_concurrency
        if requests is not None:
            yield Line(self._requests, "bucket", requests.capacity, requests.rate)
        if counted is not None:
            yield Line(self._tokens, "bucket", counted.capacity, counted.rate, tokens)
        if calls is not None:
            yield Line(self._calls, "slots", calls)

    def see(self, seen: Iterator[float], now: float) -> None:
        """Takes from `seen` what is this gate's."""
        if self.seen.requests is not None:
            _learn(next(seen), now, self.seen.requests, self.here.requests)
        if self.seen.tokens is not None:
            _learn(next(seen), now, self.seen.tokens, self.here.tokens)
        if self.seen.limits.max_concurrency is not None:
            self.seen.in_flight = int(next(seen))

    def back(self, tokens: int, used_tokens: int) -> Iterator[Line]:
        """What a request gives back of the tokens that it took for an estimate."""
        counted = self.seen.tokens
        if counted is not None and (too_many := min(tokens, counted.capacity) - used_tokens):
            yield Line(self._tokens, "bucket", counted.capacity, counted.rate, too_many)


class Passage:
    """One request's way in, and out by `leave` or `undo`. What was not entered is not left; what was left once stays so."""

    __slots__ = ("_clock", "_cluster", "_counted", "_entered", "_gates", "_lines", "_tokens")

    def __init__(self, cluster: Cluster, gates: Sequence[ClusterGate], tokens: int, clock: Clock) -> None:
        self._cluster = cluster
        self._gates = gates
        self._tokens = tokens
        self._clock = clock
        self._lines: list[Line] = []
        # Whether it is in; and whether all machines were asked last, or this one alone.
        self._entered = self._counted = False

    async def enter(self) -> None:
        """Raises what the gates were made with."""
        try:
            if not (await self.take(())).admitted:
                raise self._gates[0].seen.used_up()
        except ClusterDown:
            self.enter_here(())

    async def take(self, more: Sequence[Line]) -> Taken:
        """The gates and `more`, all or nothing; the answer is that for `more`. Raises ClusterDown, and what the gates say."""
        lines = [line for gate in self._gates for line in gate.lines(self._tokens)]
        own = len(lines)
        lines += more
        taken = await self._cluster.take(lines)
        now = self._clock.monotonic()
        self._counted = True
        if taken.admitted:
            self._entered = True
            self._lines = placed(lines, taken)
            for gate in self._gates:
                gate.here.note(self._tokens, now)
        seen = iter(taken.seen)
        for gate in self._gates:
            gate.see(seen, now)
        if not taken.admitted:
            self._refuse(now)
        return Taken(taken.admitted, taken.seen[own:], taken.waits_s[own:])

    def enter_here(self, more: Iterable[Line]) -> None:
        """By what this machine knows, which will also count the slots of `more`. Raises what the gates say."""
        Gates(*(gate.here for gate in self._gates)).enter(self._tokens, self._clock.monotonic())
        self._entered, self._counted = True, False
        lines = [line for gate in self._gates for line in gate.lines(self._tokens)]
        self._lines = [line for line in (*lines, *more) if line.kind == "slots"]
        self._cluster.hold(self._lines)

    def leave(self, used_tokens: int) -> None:
        """The request is over, and was charged so many tokens."""
        if self._entered:
            self._entered, now = False, self._clock.monotonic()
            back = [line for line in self._lines if line.kind == "slots"]
            for gate in self._gates:
                gate.here.leave(self._tokens, used_tokens, now)
                if self._counted:
                    back += gate.back(self._tokens, used_tokens)
            self._cluster.give_back(back)

    def undo(self) -> None:
        """As if it had never entered."""
        if self._entered:
            self._entered = False
            for gate in self._gates:
                gate.here.undo(self._tokens)
            self._cluster.give_back(self._lines)

    def headers(self, now: float) -> Headers:
        """`x-ratelimit-*`, of all machines together where they were asked."""
        return Gates(*(gate.seen if self._counted else gate.here for gate in self._gates)).headers(now)

    def _refuse(self, now: float) -> None:
        refused = [refusal for gate in self._gates for refusal in gate.seen.refusals(self._tokens, now)]
        if refused:
            raise max(refused, key=lambda refusal: refusal[0])[1]


def _learn(full_in_s: float, now: float, *buckets: Bucket | None) -> None:
    for bucket in buckets:
        if bucket is not None:
            bucket.learn(full_in_s, now)
