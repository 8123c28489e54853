"""Bodies that are refused."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from core.errors import BodyTooLarge, RequestTimeout
from gateway.doors import body as bodies
from gateway.doors.body import read_body


async def test_what_was_read_of_a_refused_body_is_not_held_while_the_rest_is_taken_in() -> None:
    part = bytes(bytearray(600))
    referrers = sys.getrefcount(part)
    unread = [{"type": "http.request", "body": body, "more_body": bool(more)} for more, body in enumerate((b"x", b"y" * 500, part))]
    counts: list[int] = []

    async def receive() -> dict[str, Any]:
        message = unread.pop()
        if not unread:
            counts.append(sys.getrefcount(part))
        return message

    with pytest.raises(BodyTooLarge):
        await read_body({"headers": []}, receive, 1000, 5)
    assert counts == [referrers]


class Slow:
    """A client that sends `size` bytes each `every_s`, on a loop's clock that the test turns: waiting takes no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int, every_s: float, parts: int) -> None:
        self.size, self.every_s, self.parts = size, every_s, parts
        self.loop = asyncio.get_running_loop()
        self.turned_s = 0.0
        time = self.loop.time
        monkeypatch.setattr(self.loop, "time", lambda: time() + self.turned_s)

    async def receive(self) -> dict[str, Any]:
        self.turned_s += self.every_s
        await asyncio.sleep(0.001)  # timers that are due by now run
        self.parts -= 1
        return {"type": "http.request", "body": b"x" * self.size, "more_body": self.parts > 0}


async def read_slowly(monkeypatch: pytest.MonkeyPatch, size: int, every_s: float, parts: int, bytes_per_s: int = 1024) -> tuple[str, float]:
    """What became of it, and how many seconds after its first part."""
    client = Slow(monkeypatch, size, every_s, parts)
    try:
        read = await read_body({"headers": []}, client.receive, 10**6, 30, bytes_per_s)
    except RequestTimeout as error:
        return error.message, client.turned_s - every_s
    return f"{len(read)} bytes", client.turned_s - every_s


async def test_a_body_that_drips_is_given_up_after_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    said, after_s = await read_slowly(monkeypatch, size=1, every_s=1, parts=1000)
    assert said == "The body arrived too slowly: at less than 1024 bytes a second."
    assert after_s == pytest.approx(bodies.SLOW_START_S, abs=1.5)


async def test_a_slow_body_is_taken_as_long_as_it_keeps_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await read_slowly(monkeypatch, size=1500, every_s=1, parts=25))[0] == "37500 bytes"


async def test_who_began_fast_and_stops_is_given_as_long_as_what_came_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    said, after_s = await read_slowly(monkeypatch, size=15 * 1024, every_s=16, parts=3)
    assert said == "The body arrived too slowly: at less than 1024 bytes a second."
    assert after_s == 16


async def test_no_pace_excuses_a_body_from_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    said, after_s = await read_slowly(monkeypatch, size=2000, every_s=1, parts=1000)
    assert said == "The body did not arrive within 30 s."
    assert after_s == pytest.approx(30, abs=1.5)


async def test_without_a_rate_there_is_the_deadline_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    said, _ = await read_slowly(monkeypatch, size=1, every_s=1, parts=1000, bytes_per_s=0)
    assert said == "The body did not arrive within 30 s."
