"""A24, G20: of a key that has bodies kept, headers are kept too, and no secret that stood in one is in the table."""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections.abc import Callable

import pytest

from core.clock import FrozenClock
from core.secrets import Secret
from gateway.kept_headers import _IDS_OF_ANSWERS, _PLAIN
from monitoring.bodies import BodyStore
from monitoring.body_queue import BodyQueue
from monitoring.models import RequestBody
from tests.canary import Canary
from tests.gateway.scripted import ANSWER, KEY, Bench, Refusal
from tests.gateway.test_door import AUTH, Client

pytestmark = pytest.mark.django_db
SECRET_HEADERS = ("proxy-authorization", "cookie", "x-auth-token", "x-amz-security-token", "x-own", "x-forwarded-for", "referer")
FRAMING = {"content-length", "transfer-encoding", "expect"}  # what a server itself reads, and refuses where it is no such thing
WAYS: dict[str, Callable[[str], str]] = {
    "alone": lambda secret: secret,
    "as a bearer": lambda secret: f"Bearer {secret}",
    "among words": lambda secret: f"cli/1.0 (key {secret}; x64)",
    "as a field": lambda secret: f'a=1, token="{secret}"; b=2',
    "in an address": lambda secret: f"https://user:{secret}@example.com/?key={secret}",
}


@pytest.mark.parametrize("way", WAYS)
def test_no_secret_of_a_client_or_a_vendor_is_kept(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    planted = {"our vendor key": secrets.token_urlsafe(30), "this caller's key": KEY}

    def plant(name: str, prefix: str = "sk-") -> str:
        planted[name] = f"{prefix}{secrets.token_urlsafe(30)}"
        return WAYS[way](planted[name])

    names = {*SECRET_HEADERS, *_PLAIN, "x-stainless-os", "traceparent", "x-request-id"} - FRAMING
    sent = [(name.encode(), plant(f"client's {name}, {prefix}", prefix).encode()) for name in names for prefix in ("", "sk-")]
    sent.append((plant("name of a header").lower().encode()[:60], b"1"))
    planted["name of a header"] = planted["name of a header"].lower()
    said = {name: plant(f"vendor's {name}") for name in {*_PLAIN, *_IDS_OF_ANSWERS, "set-cookie", "x-ratelimit-limit-tokens"}}
    said["openai-version"] = said["x-request-id"] = WAYS[way](planted["our vendor key"])

    monkeypatch.setattr("tests.gateway.scripted.Secret", lambda value: Secret(planted["our vendor key"]))
    bench, queue = Bench(monkeypatch, store_bodies=True), BodyQueue(65_536, 2**20)
    door = bench.door
    door._gateway.bodies = queue
    bench.scripts["a"], bench.scripts["b"] = [Refusal(503, **said)], [ANSWER]
    assert asyncio.run(Client(headers=(AUTH, *sent)).call(door)).status == 200
    BodyStore(queue, 7, FrozenClock(0)).step()

    row = RequestBody.objects.get()
    text = zlib.decompress(bytes(row.headers)) + zlib.decompress(bytes(row.response))
    assert b'"user-agent"' in text
    assert b'"retry-after"' in text
    assert Canary(planted).find(text) == set()
