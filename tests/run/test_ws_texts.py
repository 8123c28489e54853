"""Many texts at once to one socket: what its client makes of them, and what becomes of them where it takes nothing or is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect

from llmcontrol.http_protocol import BoundedConfig, BoundedHttp, Bounds
from llmcontrol.ws_protocol import DrainingSocket

TEXTS = [b"", b"{}", b"x" * 125, b"x" * 126, "你好".encode() * 100, b"x" * 65_535, b"x" * 65_536, b'{"seq":1}']
App = Callable[[Any, Any, Any], Awaitable[None]]


@asynccontextmanager
async def opened(app: App, compression: str | None = None) -> AsyncIterator[ClientConnection]:
    config = BoundedConfig(app, http=BoundedHttp, ws=DrainingSocket, lifespan="off", log_config=None, access_log=False)
    config.bounds = Bounds(untaken_s=60)
    config.load()
    server = await asyncio.get_running_loop().create_server(lambda: BoundedHttp(config, ServerState(), {}), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with asyncio.timeout(60), connect(f"ws://{host}:{port}", proxy=None, compression=compression) as connection:
        yield connection
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_each_is_a_message_of_its_own(compression: str | None) -> None:
    written: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "before, compressed or not"})
        written.append(scope["extensions"]["websocket.texts"]["write"](TEXTS))
        await send({"type": "websocket.texts", "texts": TEXTS})
        await send({"type": "websocket.send", "text": "after, compressed or not"})
        await receive()

    async with opened(app, compression) as connection:
        assert ("permessage-deflate" in str(connection.response and connection.response.headers)) == (compression is not None)
        heard = [await connection.recv() for _ in range(2 * len(TEXTS) + 2)]
    assert heard[1:-1] == [text.decode() for text in TEXTS * 2]
    assert [str(heard[0])[:6], str(heard[-1])[:5], written] == ["before", "after", [True]]


async def test_a_client_that_takes_nothing_is_waited_for() -> None:
    taken, asked = asyncio.Event(), asyncio.Event()
    large = [b"x" * 2**20] * 16

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        write = scope["extensions"]["websocket.texts"]["write"]
        assert write(large)
        assert not write([b"not written"])
        asked.set()
        await send({"type": "websocket.texts", "texts": [b"the last"]})
        taken.set()
        await receive()

    async with opened(app) as connection:
        await asked.wait()
        assert not taken.is_set()
        assert [len(await connection.recv()) for _ in large] == [2**20] * len(large)
        assert await connection.recv() == "the last"
        assert taken.is_set()


async def test_nothing_is_written_once_the_socket_is_closed() -> None:
    raised: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        with pytest.raises(ClientDisconnected):
            scope["extensions"]["websocket.texts"]["write"]([b"late"])
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.texts", "texts": [b"late"]})
        raised.append(True)

    async with opened(app) as connection:
        await connection.wait_closed()
        assert connection.close_code == 1000
    assert raised == [True]
