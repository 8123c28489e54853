"""The data plane in one process, whole but for the network and the database: no request makes a query, whatever it asks."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from access import keys
from core.clock import SystemClock
from core.config import CallerSpec, LimitSpec, ModelSpec, PriceSpec, ProviderSpec, Snapshot
from core.outbound import Guard, GuardedTransport
from gateway.doors.http import Gateway
from gateway.manager import Manager
from gateway.pipeline import Pipeline
from llmcontrol.routing import data_plane
from monitoring.journal import AttemptOpened, AttemptSettled, Record, RequestEnded

ROOT = Path(__file__).resolve().parents[2]
PEPPER = b"a pepper of the test's own, with enough characters"
KEY = keys.make(keys.API_KEY_PREFIX)
LIMITED_KEY = keys.make(keys.API_KEY_PREFIX)
CHAT = "/v1/chat/completions"
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


class Sink:
    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, *records: Record) -> None:
        self.records += records


async def django(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(f"{scope['path']} went to Django")


def caller(key: str, limits: LimitSpec) -> tuple[bytes, CallerSpec]:
    spec = CallerSpec(
        key_id=key[-6:], key_name="k", prefix="p", team_id="t", team_name="T", scopes=frozenset({"chat", "models"}), limits=limits
    )
    return keys.digest(PEPPER, key.encode()), spec


def snapshot() -> Snapshot:
    price = PriceSpec("price", "USD", 0.0, None, input=1_000_000, cached_input=0, cache_write=0, output=2_000_000)
    model = ModelSpec(id="m", alias="echo", model_id="echo-1", provider_id="p", prices=(price,))
    dead = ModelSpec(id="d", alias="refused", model_id="x", provider_id="blocked")
    return Snapshot(
        version=3,
        loaded_at=0.0,
        callers=dict([caller(KEY, LimitSpec()), caller(LIMITED_KEY, LimitSpec(requests_per_minute=1))]),
        models={"echo": (model,), "refused": (dead,)},
        providers={
            "p": ProviderSpec(id="p", name="echo", kind="echo", base_url=""),
            # The guard of this test allows no address at all, so this one fails before any packet.
            "blocked": ProviderSpec(id="blocked", name="blocked", kind="openai_compatible", base_url="http://127.0.0.1:9/v1"),
        },
    )


@pytest.fixture
def no_queries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Any use of the database fails, and is listed, so that swallowing the failure does not hide it."""
    used: list[str] = []

    def refuse(self: Any, *arguments: Any, **_: Any) -> None:
        used.append(repr(arguments)[:200])
        raise AssertionError(f"the database was used: {used[-1]}")

    for method in ("connect", "ensure_connection", "cursor", "commit", "rollback"):
        monkeypatch.setattr(BaseDatabaseWrapper, method, refuse)
    for method in ("execute", "executemany", "callproc"):
        monkeypatch.setattr(CursorWrapper, method, refuse)
    return used


class Plane:
    """The routes of the data plane around a snapshot made by hand."""

    def __init__(self) -> None:
        clock = SystemClock()
        self.sink = Sink()
        self.transport = GuardedTransport(Guard())
        self.manager = Manager(self.transport, clock, 1.0)
        self.manager.apply(snapshot())
        pipeline = Pipeline(self.manager, self.sink, clock, max_retries=1, max_in_flight=10)
        gateway = Gateway(pepper=PEPPER, max_body_bytes=10_000, body_timeout_s=1, pipeline=pipeline)
        self.app = data_plane(gateway, django, websocket=True)

    async def http(self, method: str, path: str, body: bytes = b"", key: str | None = KEY) -> tuple[int, dict[bytes, bytes], bytes]:
        headers = [(b"host", b"testserver")] + ([(b"authorization", b"Bearer " + key.encode())] if key else [])
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers, "root_path": ""}
        incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, incoming.get, send)
        return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture
async def plane(no_queries: list[str]) -> AsyncIterator[Plane]:
    plane = Plane()
    yield plane
    await plane.transport.close()
    assert no_queries == []


async def test_chat(plane: Plane) -> None:
    status, headers, body = await plane.http("POST", CHAT, json.dumps(HELLO).encode())
    assert status == 200
    assert json.loads(body)["choices"][0]["message"]["content"]
    assert headers[b"x-llm-config-version"] == b"3"
    assert [type(record) for record in plane.sink.records] == [AttemptOpened, AttemptSettled, RequestEnded]


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream(plane: Plane, asked: bool) -> None:
    body = json.dumps({**HELLO, "stream": True, "stream_options": {"include_usage": asked}}).encode()
    status, _, answer = await plane.http("POST", "/api" + CHAT, body)
    assert status == 200
    assert answer.endswith(b"data: [DONE]\n\n")
    assert (b'"total_tokens"' in answer) is asked
    assert [type(record) for record in plane.sink.records] == [AttemptOpened, AttemptSettled, RequestEnded]


async def test_a_vendor_that_cannot_be_reached_is_retried_and_settled(plane: Plane) -> None:
    status, _, body = await plane.http("POST", CHAT, json.dumps({**HELLO, "model": "refused"}).encode())
    assert status == 502
    assert json.loads(body)["error"]["code"] == "upstream_address_refused"
    settled = [record for record in plane.sink.records if isinstance(record, AttemptSettled)]
    assert [record.status for record in settled] == ["error"] * len(settled)
    assert settled


@pytest.mark.parametrize(
    ("method", "path", "body", "key", "status"),
    [
        ("GET", "/v1/models", b"", KEY, 200),
        ("GET", "/v1/models/echo", b"", KEY, 200),
        ("GET", "/api/v1/models", b"", KEY, 200),
        ("GET", "/v1/models/none", b"", KEY, 404),
        ("GET", "/v1/models", b"", None, 401),
        ("POST", CHAT, b"", None, 401),
        ("POST", CHAT, b"", "sk-llmc-unknown", 401),
        ("POST", CHAT, b"{", KEY, 400),
        ("POST", CHAT, b" " * 20_000, KEY, 413),
        ("POST", CHAT, json.dumps({**HELLO, "model": "none"}).encode(), KEY, 404),
        ("GET", CHAT, b"", KEY, 405),
        ("POST", "/v1/unknown", b"", KEY, 404),
        ("GET", "/health", b"", None, 200),
        ("GET", "/ready", b"", None, 200),
        ("GET", "/api/health", b"", None, 200),
    ],
    ids=lambda value: "key" if value == KEY else None,
)
async def test_everything_else_that_can_be_asked(plane: Plane, method: str, path: str, body: bytes, key: str | None, status: int) -> None:
    assert (await plane.http(method, path, body, key))[0] == status


async def test_a_limited_caller(plane: Plane) -> None:
    body = json.dumps(HELLO).encode()
    assert (await plane.http("POST", CHAT, body, LIMITED_KEY))[0] == 200
    assert (await plane.http("POST", CHAT, body, LIMITED_KEY))[0] == 429


async def test_a_new_configuration(plane: Plane) -> None:
    plane.manager.apply(Snapshot(version=4, loaded_at=0.0, callers=snapshot().callers))
    assert (await plane.http("POST", CHAT, json.dumps(HELLO).encode()))[0] == 404


async def test_a_socket(plane: Plane) -> None:
    """Two generations at once and one that is cancelled, over Channels' consumer."""
    scope = {
        "type": "websocket",
        "path": "/ws/generate",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver"), (b"authorization", b"Bearer " + KEY.encode())],
    }
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    frames: list[dict[str, Any]] = []
    ended = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            frames.append(json.loads(message["text"]))
            if sum(frame["type"] in ("done", "error") for frame in frames) == 3:
                ended.set()

    def say(value: dict[str, Any]) -> None:
        incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(value)})

    incoming.put_nowait({"type": "websocket.connect"})
    say({"type": "generate", "id": "a", "request": HELLO})
    say({"type": "generate", "id": "b", "request": HELLO})
    say({"type": "cancel", "id": "nothing of that name"})
    socket = asyncio.create_task(plane.app(scope, incoming.get, send))
    async with asyncio.timeout(10):
        await ended.wait()
        incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.gather(socket, return_exceptions=True)
    done = {frame["id"]: frame for frame in frames if frame["type"] == "done"}
    assert set(done) == {"a", "b"}
    assert [frame["error"]["param"] for frame in frames if frame["type"] == "error"] == ["id"]


def test_the_net_catches_a_query(no_queries: list[str]) -> None:
    from monitoring.models import UsageRecord

    with pytest.raises(AssertionError, match="the database was used"):
        UsageRecord.objects.count()
    assert no_queries


@pytest.mark.process
def test_the_data_plane_runs_where_no_database_can_be() -> None:
    """These tests pass at such an address all the same; those of tests/gateway use no database wherever they run (its conftest.py)."""
    environment = {**os.environ, "DATABASE_URL": "sqlite:////nonexistent/folder/none.sqlite3", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not process", __file__]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
