"""A worker that hammers one shared limit, in a process of its own: `python -m tests.gateway.machine_hammer REGION WHAT LIMIT TRIES NOW`.

It says a line when it is ready, begins when it is told a line, and says how many were let in, and how often a lock was not had.
`hold` enters one gate and `freeze` takes one lock, and both then wait to be killed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from core.config import LimitSpec, RateSpec
from core.errors import CallerLimited, GatewayError
from gateway.sharing.machine import Machine, SharedGate
from gateway.sharing.machine_region import Region

# So long that the machine's load decides nothing: what is measured is whether the locks exclude.
PATIENCE_S = 20.0
DAY_S = 86_400.0


def tries_of(machine: Machine, what: str, limit: int, now: float) -> Callable[[], bool]:
    """One try each call: True = it was let in."""
    if what == "bucket":
        bucket = machine.rate("p", RateSpec("token_bucket", limit, limit / DAY_S), now, 1)
        return lambda: bucket.book(1, now) == 0.0
    if what == "window":
        window = machine.rate("p", RateSpec("sliding_window", limit, limit / DAY_S), now, 1)
        return lambda: window.book(1, time.monotonic()) < PATIENCE_S  # who came a moment later is a queue
    if what == "slots":
        slots = machine.slots("p")
        slots.resize(limit)
        return slots.try_take
    limits = (
        LimitSpec(max_concurrency=limit) if what in ("flight", "hold") else LimitSpec(requests_per_minute=limit, tokens_per_minute=10**9)
    )
    gate = machine.gate("k", "This key", limits, CallerLimited, now, 1)
    assert isinstance(gate, SharedGate)
    return lambda: enters(gate, now)


def enters(gate: SharedGate, now: float) -> bool:
    try:
        gate.enter(1, now)
    except GatewayError:
        return False
    return True


def main() -> None:
    path, what, limit, tries = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    region = Region(Path(path), PATIENCE_S)
    region.take_column()
    held = region.cell("gate:k", 6, tallied=True)
    if what == "freeze":
        held.__enter__()
    attempt = tries_of(Machine(region, 4), what, limit, float(sys.argv[5]))
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum(attempt() for _ in range(tries)), region.unlocked, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
