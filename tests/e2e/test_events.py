"""WS /ws with an ordinary client: who hears what, tickets, resuming, and the end of a socket whose key is revoked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e import wire
from tests.e2e.control import ECHO, Control

pytestmark = pytest.mark.process
WAIT_S = 40


@asynccontextmanager
async def socket(control: Control, key: str = "", protocols: tuple[str, ...] = (), query: str = "", **headers: str) -> AsyncIterator[Any]:
    sent = {**headers, **({"Authorization": f"Bearer {key}"} if key else {})}
    url = control.base_url.replace("http", "ws", 1) + "/ws" + query
    more: dict[str, Any] = {"subprotocols": list(protocols)} if protocols else {}
    async with connect(url, additional_headers=sent, proxy=None, open_timeout=WAIT_S, **more) as connection:
        yield connection


async def hear(connection: ClientConnection, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    async with asyncio.timeout(WAIT_S):
        while not enough(frames):
            frames.append(json.loads(await connection.recv()))
    return frames


def statuses(frames: list[dict[str, Any]], task_id: str) -> list[str]:
    return [frame["data"]["status"] for frame in frames if frame["type"] == "task" and frame["data"]["task_id"] == task_id]


def completed(task_id: str) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda frames: "completed" in statuses(frames, task_id)


def submit(control: Control, key: str) -> str:
    body = {"type": "custom", "prompt": "hi", "config": {"model": ECHO}}
    answer = wire.call(control.base_url, "POST", "/api/v1/tasks", key=key, body=body)
    assert answer.status == 202, answer.body
    task_id: str = answer.json["task_id"]
    return task_id


def ticket(control: Control) -> str:
    found: str = control.call("POST", "/api/v1/ws-ticket")["ticket"]
    return found


@pytest.fixture(scope="module")
def key(control: Control) -> dict[str, Any]:
    made: dict[str, Any] = control.new_key(scopes=["tasks"])
    control.apply()
    return made


async def test_a_key_hears_of_its_own_tasks_and_resumes(control: Control, key: dict[str, Any]) -> None:
    other = control.new_key(scopes=["tasks"])["key"]
    control.apply()
    async with socket(control, key["key"]) as connection:
        (hello,) = await hear(connection, bool)
        assert hello["type"] == "hello"
        theirs = submit(control, other)
        mine = submit(control, key["key"])
        frames = await hear(connection, completed(mine))
        assert statuses(frames, mine) == ["queued", "running", "completed"]
        assert statuses(frames, theirs) == []
        seqs = [frame["seq"] for frame in frames]
        assert seqs == sorted(set(seqs))
    async with socket(control, query=f"?since={seqs[0]}", protocols=("llmcontrol", f"key.{key['key']}")) as connection:
        assert connection.subprotocol == "llmcontrol"
        again = await hear(connection, completed(mine))
        assert again[0]["type"] == "hello"
        assert statuses(again, mine) == ["running", "completed"]


async def test_a_ticket_opens_one_socket_for_a_person_who_sees_all_tasks(control: Control, key: dict[str, Any]) -> None:
    once = ticket(control)
    async with socket(control, protocols=("llmcontrol", f"ticket.{once}")) as connection:
        await hear(connection, bool)
        task = submit(control, key["key"])
        await hear(connection, completed(task))
        with pytest.raises(InvalidStatus):
            async with socket(control, protocols=("llmcontrol", f"ticket.{once}")):
                pass
    async with socket(control) as connection:
        await connection.send(json.dumps({"type": "auth", "ticket": ticket(control)}))
        assert (await hear(connection, bool))[0]["type"] == "hello"


async def test_who_is_not_known_is_not_let_in(control: Control, key: dict[str, Any]) -> None:
    for options in (
        {"key": "sk-llmc-wrong"},
        {"protocols": ("llmcontrol", "ticket.wrong")},
        {"protocols": ("llmcontrol", "key.wrong")},
        {"query": f"?key={key['key']}"},
        {"query": "?since=x", "key": key["key"]},
        {"key": key["key"], "Origin": "https://evil.example"},
    ):
        with pytest.raises(InvalidStatus):
            async with socket(control, **options):  # type: ignore[arg-type]
                pass
    for frame in ({"type": "auth", "key": "wrong"}, {"type": "auth", "ticket": ""}, {"type": "hello"}, {"type": "auth", "x": 1}):
        async with socket(control) as connection:
            await connection.send(json.dumps(frame))
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(connection.recv(), WAIT_S)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code in (4401, 1003)


async def test_a_revoked_key_ends_its_socket(control: Control) -> None:
    made = control.new_key(scopes=["tasks"])
    control.apply()
    async with socket(control, made["key"]) as connection:
        await hear(connection, bool)
        control.call("DELETE", f"/api/v1/llm/keys/{made['id']}")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(connection.recv(), WAIT_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
