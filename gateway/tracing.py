"""A request and its attempts as a trace: what is known of it while it lasts, and whom to tell when it has ended.

The context comes from the client's `traceparent` and goes to the vendor with each attempt (W3C Trace Context, level 1). Who exports
the spans is a `Tracer`; without one nothing here is ever called.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Protocol

import msgspec

from gateway.router import Target
from monitoring.journal import AttemptSettled, RequestEnded

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_MAX_TRACESTATE = 512
_SAMPLED = 0x01
# A ratio is compared with the lower half of the trace id, as every SDK does: all who sample at the same ratio keep the same traces.
_RATIO_BITS = 2**64


class AttemptSpan(msgspec.Struct, frozen=True):
    """One call of a vendor that has ended; `started_at` in wall seconds."""

    span_id: int
    target: Target
    started_at: float
    settled: AttemptSettled


class Trace(msgspec.Struct):
    """Of one request. `parent_id` 0 = it begins here; `sampled` False: its context is passed on, and nobody is told of it."""

    trace_id: int
    parent_id: int
    span_id: int
    sampled: bool
    state: str = ""
    attempt_id: int = 0
    attempts: list[AttemptSpan] = msgspec.field(default_factory=list)

    def next_attempt(self) -> dict[str, str]:
        """The headers with which the next attempt goes to its vendor."""
        self.attempt_id = _span_id()
        headers = {"traceparent": f"00-{self.trace_id:032x}-{self.attempt_id:016x}-{_SAMPLED if self.sampled else 0:02x}"}
        if self.state:
            headers["tracestate"] = self.state
        return headers

    def attempted(self, target: Target, started_at: float, settled: AttemptSettled) -> None:
        self.attempts.append(AttemptSpan(self.attempt_id, target, started_at, settled))


class Tracer(Protocol):
    """`ratio`: of the requests that come without a decision, so many are sampled, 0 to 1."""

    ratio: float

    def ended(self, trace: Trace, request: RequestEnded) -> None:
        """Told once of each sampled request, on the event loop: never waits and never raises."""
        ...


def begun(headers: Iterable[tuple[bytes, bytes]], ratio: float) -> Trace:
    """The client's trace goes on where it sent a `traceparent` that can be read; otherwise one begins."""
    parent = state = b""
    for name, value in headers:
        if name == b"traceparent":
            parent = value
        elif name == b"tracestate":
            state = value
    found = _TRACEPARENT.fullmatch(parent)
    if found is None or parent.startswith(b"ff") or not (int(found[1], 16) and int(found[2], 16)):
        trace_id = secrets.randbits(128) or 1
        return Trace(trace_id, 0, _span_id(), trace_id % _RATIO_BITS < ratio * _RATIO_BITS)
    kept = state.decode("latin-1") if len(state) <= _MAX_TRACESTATE and state.isascii() else ""
    return Trace(int(found[1], 16), int(found[2], 16), _span_id(), bool(int(found[3], 16) & _SAMPLED), kept)


def _span_id() -> int:
    return secrets.randbits(64) or 1
