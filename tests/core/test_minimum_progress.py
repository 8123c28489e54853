"""A vendor that sends a byte now and then keeps nobody waiting: so much has to come in each `idle_s`, or it counts as silence."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from core import errors
from core.config import TimeoutSpec
from core.deadlines import Due
from core.outbound_response import Watch
from tests.adapters.cast import quick
from tests.core.raw_server import OK, RawServer

IDLE_S, TOTAL_S, LEAST_BYTES = 60.0, 600.0, 32


class Stand:
    """A loop's clock, its deadlines, and an answer whose reader waits for the vendor since 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.answer: Any = SimpleNamespace(waiting_since=0.0, waited_s=0.0, received_bytes=0, expire=self.said.append)
        stand: Any = self
        self.watch = Watch(TimeoutSpec(idle_s=IDLE_S, total_s=TOTAL_S), stand, stand, LEAST_BYTES)
        self.watch.follow(self.answer)

    def time(self) -> float:
        return self.now

    def add(self, item: Due, loop: Any) -> None:
        """As `Deadlines.add`: the test calls when it is due."""

    def chunk(self, at: float, size: int) -> None:
        self.until(at)
        self.answer.waited_s += at - self.answer.waiting_since
        self.answer.received_bytes += size
        self.answer.waiting_since = at

    def until(self, at: float) -> None:
        while not self.said and self.watch.due_s <= at:
            self.now = max(self.now, self.watch.due_s)
            self.watch.overdue()
        if not self.said:
            self.now = at


@pytest.fixture
def stand() -> Stand:
    return Stand()


def test_a_byte_now_and_then_is_silence(stand: Stand):
    for second in range(5, 300, 5):
        stand.chunk(second, 1)
    assert stand.said == ["The provider sent only 11 of the 32 bytes that it has to send for 60 seconds in the middle of its answer."]
    assert stand.now == pytest.approx(60)


def test_what_came_before_a_drip_does_not_excuse_it_for_long(stand: Stand):
    stand.chunk(20, 1000)
    for second in range(25, 300, 5):
        stand.chunk(second, 1)
    assert len(stand.said) == 1
    assert stand.now <= 20 + 2 * IDLE_S


def test_silence_is_noticed_when_it_always_was(stand: Stand):
    stand.chunk(20, 1000)
    stand.until(300)
    assert stand.said == ["The provider sent nothing for 60 seconds in the middle of its answer."]
    assert stand.now == pytest.approx(80)


def test_comments_that_keep_a_connection_open_are_progress(stand: Stand):
    for second in range(15, 590, 15):
        stand.chunk(second, len(b": keep-alive\n\n"))
    assert stand.said == []


def test_the_total_deadline_holds_whatever_comes(stand: Stand):
    for second in range(1, 700):
        stand.chunk(second, 1000)
    assert stand.said == ["The provider's answer was not complete after 600 seconds."]


def test_a_reader_that_is_busy_with_its_client_is_not_the_vendors_silence(stand: Stand):
    """It reads for a moment every ten seconds, and the vendor's few bytes are there at once."""
    for second in range(10, 590, 10):
        stand.answer.waiting_since = None
        stand.until(second - 1)
        stand.answer.waiting_since = float(second - 1)
        stand.chunk(second, 2)
    assert stand.said == []


async def test_a_dripping_vendor_is_left():
    async with RawServer(OK + b"Transfer-Encoding: chunked\r\n\r\n", min_progress_bytes=1000) as server:
        response = await server.get(quick(idle_s=0.2))
        dripping = asyncio.create_task(drip(server))
        with pytest.raises(errors.ProviderTimeout, match=r"sent .* for 0\.2 seconds in the middle"):
            await response.read(10_000)
        dripping.cancel()


async def drip(server: RawServer) -> None:
    while True:
        server.connections[0].write(b"1\r\n:\r\n")
        await asyncio.sleep(0.01)
