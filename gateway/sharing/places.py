"""A provider's slots and rate as all machines count them. A rate that is learnt is each process' own, and its slots with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from core.clock import Clock
from core.config import ProviderSpec
from core.errors import ProviderLimited
from gateway.limits import Slots
from gateway.rates import Bucket, Rate, Window, ceil_ms
from gateway.sharing.cluster import Line, Taken
from gateway.sharing.passage import Passage

# Another machine's call makes no sound here when it ends: how long until the next look for a free slot.
_FIRST_LOOK_S, _LAST_LOOK_S = 0.005, 0.1


def lines_for(spec: ProviderSpec, patience_s: float) -> list[Line]:
    """What one call takes, its start not further away than `patience_s`."""
    if spec.rate.capacity and spec.rate.type == "adaptive":
        return []
    lines = []
    if spec.max_concurrency:
        lines.append(Line(f"provider:{spec.id}:calls", "slots", spec.max_concurrency))
    if spec.rate.capacity:
        lines.append(_rate_line(spec, patience_s))
    return lines


async def take(passage: Passage, spec: ProviderSpec, patience_s: float, clock: Clock, sleep: Callable[[float], Awaitable[None]]) -> Taken:
    """Waits for a slot, if need be. Raises ProviderLimited where that, or the rate, takes too long; and what `Passage.take` raises."""
    until, pause_s = clock.monotonic() + patience_s, _FIRST_LOOK_S
    while True:
        left_s = max(0.0, until - clock.monotonic())
        lines = lines_for(spec, left_s)
        taken = await passage.take(lines)
        if taken.admitted:
            return taken
        _refuse(spec, lines, taken, left_s, patience_s)
        await sleep(min(pause_s, left_s))
        pause_s = min(_LAST_LOOK_S, 2 * pause_s)


def mirror(taken: Taken, slots: Slots, rate: Rate | None, now: float) -> None:
    """Tells this machine's own slots and rate of a call that all machines count. It has its slot, whatever their limit is."""
    slots.in_flight += 1
    if isinstance(rate, Bucket):
        rate.learn(taken.seen[-1] - max(taken.waits_s), now)  # as it was when this call began to wait
    elif isinstance(rate, Window) and (wait_s := rate.book(1, now)):
        rate.give_back(1, now + wait_s)  # this machine's part was used up before


def _rate_line(spec: ProviderSpec, patience_s: float) -> Line:
    rate = spec.rate
    if rate.type == "sliding_window":
        capacity = int(rate.capacity)
        return Line(f"provider:{spec.id}:window", "window", capacity, capacity / rate.window_s, patience_s=patience_s)
    return Line(f"provider:{spec.id}:rate", "bucket", rate.capacity, rate.refill_rate or rate.capacity, patience_s=patience_s)


def _refuse(spec: ProviderSpec, lines: list[Line], taken: Taken, left_s: float, patience_s: float) -> None:
    """Raises for what waiting does not help with."""
    for line, seen, wait_s in zip(lines, taken.seen, taken.waits_s, strict=True):
        if line.kind != "slots" and wait_s > left_s:
            text = f"Provider {spec.name} has {_state(line, seen)}; a call could start in {ceil_ms(wait_s):.3f} s."
            raise ProviderLimited(text, retry_after_s=wait_s)
        if line.kind == "slots" and seen >= line.capacity and not left_s:
            text = f"Provider {spec.name} has {seen:.0f} calls in flight, its limit; none ended within {patience_s:g} s."
            raise ProviderLimited(text, retry_after_s=1.0)


def _state(line: Line, seen: float) -> str:
    """As `Rate.state` says it."""
    if line.kind == "window":
        return f"used {seen:.0f} of {line.capacity:g} calls in {line.capacity / line.rate:g} s"
    bucket = Bucket(line.capacity, line.rate)
    bucket.learn(seen, 0.0)
    return bucket.state(0.0)
