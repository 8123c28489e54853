"""A connection that sends nothing, or a body that nobody wants, costs little, and there are only so many of them."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop
from uvicorn.server import ServerState
from websockets.asyncio.client import connect

from llmcontrol.body_limit import ANONYMOUS_BYTES, BodyLimit
from llmcontrol.connection_limit import ConnectionLimit
from llmcontrol.http_protocol import BoundedConfig, BoundedHttp
from llmcontrol.ws_protocol import DrainingSocket

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ONE_READ = 256_000  # uvloop's buffer
STRANGER = "203.0.113.7"


def test_an_address_is_limited_and_others_are_not():
    limit = ConnectionLimit(2, 10)
    assert [limit.enter(STRANGER) for _ in range(3)] == [True, True, False]
    assert limit.enter("203.0.113.8")
    limit.leave(STRANGER)
    assert limit.enter(STRANGER)


def test_all_of_them_are_limited():
    limit = ConnectionLimit(0, 3)
    assert [limit.enter(f"203.0.113.{i}") for i in range(4)] == [True, True, True, False]


def test_0_is_no_limit():
    limit = ConnectionLimit(0, 0)
    assert all(limit.enter(STRANGER) for _ in range(5000))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3", "::ffff:10.1.2.3", "fd00::1", ""])
def test_loopback_and_proxies_are_limited_together_alone(address: str):
    exempt = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")]
    limit = ConnectionLimit(1, 4, exempt)
    assert [limit.enter(address) for _ in range(5)] == [True] * 4 + [False]


def test_a_customer_of_ipv6_is_one_party():
    limit = ConnectionLimit(2, 0)
    assert [limit.enter(f"2001:db8::{i}") for i in range(3)] == [True, True, False]
    assert limit.enter("2001:db8:0:1::1")
    assert not limit.enter("2001:db8::9%eth0")


def test_refusals_are_logged_together(caplog: pytest.LogCaptureFixture):
    now = 100.0
    limit = ConnectionLimit(1, 0, now=lambda: now)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            limit.enter(STRANGER)
        now += 11
        limit.enter(STRANGER)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["1", "4"]


class Server:
    """A protocol on a real listener, in this loop."""

    def __init__(self, app: Any, limit: ConnectionLimit) -> None:
        self.config = BoundedConfig(app, http=BoundedHttp, ws=DrainingSocket, lifespan="off", log_config=None, access_log=False)
        self.config.connections = limit
        self.config.load()
        self.state = ServerState()

    async def __aenter__(self) -> Server:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: BoundedHttp(self.config, self.state, {}), "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for connection in list(self.state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    async def until(self, look: Any) -> None:
        async with asyncio.timeout(5):
            while not look():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def test_one_too_many_is_told_and_the_others_go_on():
    async with Server(hello, ConnectionLimit(0, 2)) as server:
        kept = [await asyncio.open_connection(*server.address) for _ in range(2)]
        reader, writer = await asyncio.open_connection(*server.address)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Too many connections" in answer
        writer.close()
        for reader, writer in kept:
            writer.write(REQUEST)
            assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")
        kept[0][1].close()
        await server.until(lambda: len(server.state.connections) == 1)
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(REQUEST)
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")
        writer.close()
        for _, writer in kept:
            writer.close()


async def test_a_socket_holds_its_place_until_it_closes():
    async with Server(hello, ConnectionLimit(0, 1)) as server:
        host, port = server.address
        async with connect(f"ws://{host}:{port}/", proxy=None):
            reader, writer = await asyncio.open_connection(host, port)
            assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 503 ")
            writer.close()
        await server.until(lambda: not server.state.connections)
        async with connect(f"ws://{host}:{port}/", proxy=None):
            pass
        await server.until(lambda: not server.state.connections)


async def test_what_the_server_cancels_is_not_called_a_failure():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async with Server(app, ConnectionLimit()) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(REQUEST)
        await server.until(lambda: server.state.tasks)
        for task in server.state.tasks:
            task.cancel()
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 503")
        writer.close()


def test_a_body_that_nobody_reads_is_not_taken_in():
    """At most uvicorn's high-water mark and one read more, whatever the client sends."""
    body = 8 * 2**20
    asked = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with Server(app, ConnectionLimit()) as server:
            with socket.create_connection(server.address) as client:
                client.setblocking(False)
                client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % body)
                await asyncio.wait_for(asked.wait(), 5)
                (connection,) = server.state.connections
                await server.until(lambda: connection.flow.read_paused or not push(client))
                await asyncio.sleep(0.05)
                assert 0 < len(connection.cycle.body) <= 2**16 + ONE_READ
            for task in server.state.tasks:
                task.cancel()
            await asyncio.gather(*server.state.tasks, return_exceptions=True)

    def push(client: socket.socket) -> bool:
        try:
            client.send(b"x" * 2**18)
        except BlockingIOError:
            pass
        return True

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize(("header", "most"), [("", ANONYMOUS_BYTES), ("Cookie: a=b\r\n", 2**18)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_django_is_given_whole_bodies_of_bounded_size(header: str, most: int, chunked: bool):
    seen: list[int] = []

    async def site(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert not message["more_body"]
        seen.append(len(message["body"]))
        await hello(scope, receive, send)

    async def post(size: int) -> bytes:
        with ExitStack() as stack:
            reader, writer = await asyncio.open_connection(*server.address)
            stack.callback(writer.close)
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size) if chunked else b"x" * size
            writer.write(f"POST /admin/ HTTP/1.1\r\nHost: a\r\n{header}{framing}\r\n\r\n".encode() + body)
            return (await asyncio.wait_for(reader.readline(), 5)).split()[1]

    async with Server(BodyLimit(site, 2**18, 5.0), ConnectionLimit()) as server:
        assert await post(most) == b"200"
        assert await post(most + 1) == b"413"
    assert seen == [most]


async def test_a_body_for_django_that_does_not_come_is_not_waited_for():
    async with Server(BodyLimit(hello, 2**18, 0.05), ConnectionLimit()) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"POST /admin/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()
