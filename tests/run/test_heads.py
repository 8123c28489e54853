"""How large a request's head may be and how long it may take: the bounds that uvicorn does not set itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest
from uvicorn.server import ServerState

from llmcontrol.http_protocol import BoundedConfig, BoundedHttp, Bounds

Reach: TypeAlias = Callable[[Bounds], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
SMALL = Bounds(max_bytes=1000, max_headers=20)


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Answers with the number of body bytes it was sent."""
    count, more = 0, True
    while more:
        message = await receive()
        count, more = count + len(message.get("body", b"")), message.get("more_body", False)
    body = str(count).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def reach() -> AsyncIterator[Reach]:
    """Opens a connection to a server with these bounds."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def connect(bounds: Bounds) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        config = BoundedConfig(app, http=BoundedHttp, lifespan="off", log_config=None, access_log=False)
        config.bounds = bounds
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(lambda: BoundedHttp(config, state, {}), "127.0.0.1", 0)
        servers.append(server)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
    for server in servers:
        server.close()
    await asyncio.sleep(0)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 5) == b""
    except ConnectionResetError:
        return True


def request(headers: int = 0, padding: int = 0, body: bytes = b"", path: str = "/") -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", *(f"X-{n}: 1" for n in range(headers))]
    if padding:
        lines.append(f"X-Padding: {'x' * padding}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def test_a_usual_request_passes(reach: Reach):
    reader, writer = await reach(SMALL)
    writer.write(request(headers=10))
    assert await answer(reader) == (200, b"0")


async def test_a_large_body_is_not_a_large_head(reach: Reach):
    reader, writer = await reach(SMALL)
    for _ in range(2):
        writer.write(request(body=b"x" * 50_000))
        assert await answer(reader) == (200, b"50000")


async def test_requests_in_one_piece_are_each_answered(reach: Reach):
    reader, writer = await reach(SMALL)
    writer.write(request(padding=800) * 5)
    assert [await answer(reader) for _ in range(5)] == [(200, b"0")] * 5


@pytest.mark.parametrize("large", [request(headers=30), request(padding=2000), request(path="/" + "x" * 2000)])
@pytest.mark.parametrize("piece_bytes", [100, 10**6])
async def test_a_head_that_is_too_large_is_refused(reach: Reach, large: bytes, piece_bytes: int):
    reader, writer = await reach(SMALL)
    # Not much beyond the bound: a server that hangs up on bytes it has not read resets the connection.
    sent = large if piece_bytes >= len(large) else large[: SMALL.max_bytes + 100]
    for start in range(0, len(sent), piece_bytes):
        writer.write(sent[start : start + piece_bytes])
        await asyncio.sleep(0)
    status, text = await answer(reader)
    assert status == 431
    assert b"1000 bytes and 20 headers" in text
    assert await closed(reader)


async def test_a_head_without_an_end_is_refused_before_it_is_all_here(reach: Reach):
    reader, writer = await reach(SMALL)
    writer.write(b"GET / HTTP/1.1\r\nX-Endless: ")
    writer.write(b"x" * 5000)
    assert (await answer(reader))[0] == 431
    assert await closed(reader)


async def test_a_second_head_on_the_connection_is_bounded_too(reach: Reach):
    reader, writer = await reach(SMALL)
    writer.write(request(body=b"x" * 3000))
    assert await answer(reader) == (200, b"3000")
    writer.write(request(padding=2000))
    assert (await answer(reader))[0] == 431


async def test_nonsense_is_400(reach: Reach):
    reader, writer = await reach(SMALL)
    writer.write(b"\x16\x03\x01 not HTTP at all\r\n\r\n")
    assert (await answer(reader))[0] == 400
    assert await closed(reader)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: a"])
async def test_a_head_that_does_not_come_is_not_waited_for(reach: Reach, sent: bytes):
    reader, writer = await reach(Bounds(timeout_s=0.05))
    writer.write(sent)
    assert await closed(reader)


async def test_the_second_head_is_not_waited_for_either(reach: Reach):
    reader, writer = await reach(Bounds(timeout_s=0.05))
    writer.write(request())
    assert await answer(reader) == (200, b"0")
    writer.write(b"GET / HTTP/1.1\r\n")
    assert await closed(reader)
