"""llmcontrol/request_limit.py: Django gets so many requests at once, and the rest learn when to come again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

from llmcontrol.request_limit import RequestLimit


async def answered(limit: RequestLimit, path: str) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await limit({"type": "http", "method": "GET", "path": path, "headers": []}, receive, send)
    return sent


async def test_beyond_the_limit_a_request_is_told_to_come_again_and_metrics_are_served() -> None:
    hangs, served = asyncio.Event(), []

    async def site(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])
        if scope["path"] == "/admin/":
            await hangs.wait()

    limit = RequestLimit(site, 2)
    waiting = [asyncio.create_task(answered(limit, "/admin/")) for _ in range(2)]
    await asyncio.sleep(0)
    start, body = await answered(limit, "/api/info")
    await answered(limit, "/metrics")
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]
    assert "answering 2 requests, its limit" in json.loads(body["body"])["error"]["message"]
    hangs.set()
    await asyncio.gather(*waiting)
    await answered(limit, "/api/info")
    assert served == ["/admin/", "/admin/", "/metrics", "/api/info"]


async def test_a_request_that_fails_makes_room_too() -> None:
    async def site(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(scope["path"])

    limit = RequestLimit(site, 1)
    found = await asyncio.gather(*(answered(limit, "/admin/") for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [ValueError] * 3
