"""What pages of other origins may read of an answer."""

from __future__ import annotations

import re
from typing import Any

from gateway.doors.cors import Cors
from tests.conftest import ROOT

OURS = re.compile(rb'b"(x-(?:llm|ratelimit)-[a-z-]+)"')
ASKED = {b"x-llm-tag"}  # a header of requests alone


async def test_they_may_read_every_header_of_ours() -> None:
    sent: list[dict[str, Any]] = []

    async def answers(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def take(message: dict[str, Any]) -> None:
        sent.append(message)

    await Cors(answers, ["*"])({"path": "/v1/models", "method": "GET", "headers": [(b"origin", b"https://a.example")]}, None, take)
    exposed = set(dict(sent[0]["headers"])[b"access-control-expose-headers"].split(b", "))
    paths = [path for path in (ROOT / "gateway").rglob("*.py") if path.name != "cors.py"]
    written = {name for path in paths for name in OURS.findall(path.read_bytes())}
    assert len(written) > 15
    assert written - ASKED <= exposed
