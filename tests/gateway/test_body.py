"""Bodies that are refused."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from core.errors import BodyTooLarge
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
