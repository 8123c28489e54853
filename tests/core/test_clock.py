"""Time that tests can hold."""

from __future__ import annotations

import time

from core.chat import ChatRequest, WireCall
from core.clock import FrozenClock, SystemClock
from core.plain import PLAIN


def test_a_frozen_clock_moves_when_told() -> None:
    clock = FrozenClock(wall_s=100.0)
    before = clock.monotonic()
    assert (clock.monotonic(), clock.wall()) == (before, 100.0)
    clock.advance(2.5)
    assert (clock.monotonic() - before, clock.wall()) == (2.5, 102.5)


def test_the_system_clock_is_the_machines() -> None:
    clock = SystemClock()
    assert time.monotonic() <= clock.monotonic() <= time.monotonic()
    assert time.time() <= clock.wall() <= time.time()


def test_a_wire_call_does_not_show_its_headers() -> None:
    shown = repr(WireCall("https://vendor.test/v1", {"Authorization": "Bearer sk-secret"}, b"12345"))
    assert shown == "WireCall(POST https://vendor.test/v1, 5 bytes)"


def test_a_request_is_never_estimated_at_nothing() -> None:
    request = ChatRequest(PLAIN, "m", False, False, None, 0, {})
    assert request.estimated_input_tokens == 1
