"""A36, A37: who may open a socket, and how much one may be made to hold."""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from llmcontrol.ws_protocol import STRANGERS_BYTES
from tests.e2e import wire
from tests.e2e.control import until
from tests.live import children_of
from tests.security.house import House

pytestmark = pytest.mark.process
LIMIT = 4 * 2**20  # LLM_MAX_BODY_BYTES, as it is unless set


@asynccontextmanager
async def opened(house: House, key: str | None = "", path: str = "/ws/generate", **headers: str) -> AsyncIterator[ClientConnection]:
    sent = {**headers, **({} if key is None else {"Authorization": f"Bearer {key or house.key}"})}
    url = f"ws://127.0.0.1:{house.port}{path}"
    async with connect(url, additional_headers=sent, proxy=None, max_size=None, compression=None) as connection:
        yield connection


async def closed_with(connection: ClientConnection) -> int:
    """The code with which the server closes, whatever it says before."""
    try:
        while True:
            await asyncio.wait_for(connection.recv(), 15)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006


def generate(id_: str, prompt: str, model: str = "echo-1") -> str:
    return json.dumps({"type": "generate", "id": id_, "request": {"model": model, "messages": wire.asking(prompt)}})


async def heard(connection: ClientConnection, id_: str) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    while not frames or frames[-1]["type"] not in ("done", "error") or frames[-1]["id"] != id_:
        frames.append(json.loads(await asyncio.wait_for(connection.recv(), 15)))
    return frames


# A36 ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.test",
        "http://127.0.0.1",
        "http://localhost:{port}",
        "http://127.0.0.1:{port}.evil.test",
        "file://",
        "",
        "http://",
    ],
)
async def test_a_page_of_another_origin_is_refused_before_the_socket_opens(house: House, origin: str) -> None:
    """With a key that is good, and with a session's cookie: neither is looked at."""
    with pytest.raises(InvalidStatus) as refused:
        async with opened(house, Origin=origin.format(port=house.port), Cookie="sessionid=x; csrftoken=x"):
            pass
    assert refused.value.response.status_code == 403


async def test_a_session_opens_no_socket(house: House) -> None:
    """A cookie is no credential here: what it could open, a page elsewhere could open too."""
    async with opened(house, None, Cookie="sessionid=x") as connection:
        await connection.send(generate("a", "hi"))
        assert await closed_with(connection) == 4401


@pytest.mark.parametrize("query", ["key={key}", "api_key={key}", "access_token={key}", "token={key}"])
async def test_a_key_in_the_url_is_refused(house: House, query: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with opened(house, None, f"/ws/generate?{query.format(key=house.key)}"):
            pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("path", ["/ws/", "/ws/generate/", "/ws/generate/../x", "/ws/generate/other", "/ws/%2e%2e/admin", "/admin/", "/v1"])
async def test_there_is_no_other_socket(house: House, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with opened(house, path=path):
            pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("first", [{"type": "cancel", "id": "a"}, {"type": "generate", "id": "a", "request": {}}, {"type": "x"}, {}, []])
async def test_a_stranger_says_who_it_is_or_goes(house: House, first: Any) -> None:
    async with opened(house, None) as connection:
        await connection.send(json.dumps(first))
        assert await closed_with(connection) in (1003, 4401)


# A37 ------------------------------------------------------------------------------------------------------------------


async def test_a_stranger_is_taken_little_from(house: House) -> None:
    async with opened(house, None) as connection:
        await connection.send(json.dumps({"type": "auth", "key": "x" * STRANGERS_BYTES}))
        assert await closed_with(connection) == 1009


async def test_whoever_says_a_key_first_may_send_as_much_as_others(house: House) -> None:
    """Without waiting for an answer in between: none comes."""
    async with opened(house, None) as connection:
        await connection.send(json.dumps({"type": "auth", "key": house.key}))
        await connection.send(generate("a", "x" * 500_000))
        assert (await heard(connection, "a"))[-1]["type"] == "done"


async def test_a_key_in_the_handshake_may_send_as_much_at_once(house: House) -> None:
    async with opened(house) as connection:
        await connection.send(generate("a", "x" * 500_000))
        assert (await heard(connection, "a"))[-1]["type"] == "done"


async def test_a_frame_over_the_limit_closes_the_socket(house: House) -> None:
    async with opened(house) as connection:
        with suppress(ConnectionClosed):  # it may come while this is being sent
            await connection.send("x" * (LIMIT + 1))
        assert await closed_with(connection) == 1009
    assert house.alive()


async def test_a_message_in_endless_fragments_is_ended(house: House) -> None:
    """Empty ones are never too many bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    head = (
        f"GET /ws/generate HTTP/1.1\r\nHost: 127.0.0.1:{house.port}\r\nAuthorization: Bearer {house.key}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    writer.write(head.encode())
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    mask = b"\x00" * 4
    writer.write(b"\x01\x80" + mask + (b"\x00\x80" + mask) * 2000)
    frame = await asyncio.wait_for(reader.readexactly(4), 10)
    assert (frame[0], struct.unpack(">H", frame[2:])[0]) == (0x88, 1009)
    writer.close()
    assert house.alive()


async def test_a_compressed_bomb_is_measured_as_it_unfolds(house: House) -> None:
    url = f"ws://127.0.0.1:{house.port}/ws/generate"
    async with connect(url, additional_headers={"Authorization": f"Bearer {house.key}"}, proxy=None, max_size=None) as connection:
        await connection.send("x" * (64 * LIMIT // 4))  # some tens of kilobytes on the wire
        assert await closed_with(connection) == 1009
    assert house.alive()


async def test_ten_thousand_messages_disturb_nobody(house: House) -> None:
    """Each is answered, so that whoever does not read is not read from either."""
    async with opened(house) as connection:

        async def flood() -> None:
            for _ in range(10_000):
                await connection.send('{"type": "cancel", "id": "nothing"}')

        async def read() -> int:
            for _ in range(10_000):
                await connection.recv()
            return 10_000

        _, answered, others = await asyncio.gather(flood(), read(), asyncio.gather(*(asyncio.to_thread(house.alive) for _ in range(5))))
    assert answered == 10_000
    assert all(others)


async def test_of_a_thousand_generations_at_once_a_socket_runs_twenty(house: House) -> None:
    model = await asyncio.to_thread(house.model, "ok@tokens=4,delay=0.2")
    async with opened(house) as connection:
        for number in range(1000):
            await connection.send(generate(f"g{number}", "hi", model))
        ends: dict[str, str] = {}
        while len(ends) < 1000:
            frame = json.loads(await asyncio.wait_for(connection.recv(), 30))
            if frame["type"] in ("done", "error"):
                ends[frame["id"]] = frame["type"]
    done = list(ends.values()).count("done")
    assert 20 <= done < 1000
    assert sum(house.vendor.calls("hi")[-1]["model"] == call["model"] for call in house.vendor.calls("hi")) <= done + 20


async def test_a_revoked_key_starts_nothing_more(house: House) -> None:
    key = await asyncio.to_thread(house.control.new_key)
    await asyncio.to_thread(house.control.apply)
    async with opened(house, key["key"]) as connection:
        await connection.send(generate("a", "hi"))
        assert (await heard(connection, "a"))[-1]["type"] == "done"
        await asyncio.to_thread(house.control.call, "DELETE", f"/api/v1/llm/keys/{key['id']}")
        await asyncio.to_thread(until, lambda: house.control.forgot(key["key"]), "the key is forgotten")
        await connection.send(generate("b", "hi"))
        assert await closed_with(connection) == 4401


async def test_sockets_that_end_badly_leave_no_file_open(house: House) -> None:
    def files() -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in [house.live.pid, *children_of(house.live.pid)])

    before = files()
    for _ in range(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(
            b"GET /ws/generate HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n\x81\xff"
        )
        await reader.read(100)
        writer.transport.abort()
    await asyncio.to_thread(until, lambda: files() <= before + 3, "the sockets' files are closed")
