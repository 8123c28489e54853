"""A client that does not read its answer holds neither memory nor a vendor's call for ever."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest
import uvloop
from uvicorn.server import ServerState

from llmcontrol.http_protocol import BoundedConfig, BoundedHttp, Bounds
from llmcontrol.ws_protocol import DrainingSocket
from tests.run.test_answers import Wire

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
LARGE = 16 * 2**20


class Timers:
    """An event loop's timers, in the test's hands; all else of the loop is real."""

    def __init__(self) -> None:
        self.running: list[tuple[float, Any]] = []

    def call_later(self, delay_s: float, call: Any, *arguments: Any) -> Any:
        timer = (delay_s, lambda: call(*arguments))
        self.running.append(timer)
        return type("Handle", (), {"cancel": lambda _: self.running.remove(timer)})()

    def fire(self) -> None:
        ((delay_s, call),) = self.running
        assert delay_s == Bounds().untaken_s
        self.running.clear()
        call()


class Pipe(Wire):
    """A transport with something left to write."""

    left = 100_000
    aborted = False

    def get_write_buffer_size(self) -> int:
        return self.left

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def line() -> tuple[BoundedHttp, Pipe, Timers]:
    """A connection whose client has taken nothing for a while."""

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    config = BoundedConfig(app, http=BoundedHttp, lifespan="off", log_config=None, access_log=False)
    config.load()
    timers, pipe = Timers(), Pipe()
    protocol = BoundedHttp(config, ServerState(), {}, timers)  # type: ignore[arg-type]
    protocol.connection_made(pipe)
    timers.running.clear()  # the head's
    protocol._head_timer = None
    protocol.pause_writing()
    return protocol, pipe, timers


def test_who_takes_nothing_is_cut_off(line: tuple[BoundedHttp, Pipe, Timers]) -> None:
    _, pipe, timers = line
    timers.fire()
    assert pipe.aborted
    assert not timers.running


def test_who_takes_a_little_gets_more_time(line: tuple[BoundedHttp, Pipe, Timers]) -> None:
    _, pipe, timers = line
    for _ in range(3):
        pipe.left -= 1
        timers.fire()
        assert not pipe.aborted
    timers.fire()
    assert pipe.aborted


def test_who_goes_on_reading_or_leaves_is_not_timed(line: tuple[BoundedHttp, Pipe, Timers]) -> None:
    protocol, pipe, timers = line
    protocol.resume_writing()
    assert not timers.running
    protocol.pause_writing()
    protocol.connection_lost(None)
    assert (timers.running, pipe.aborted) == ([], False)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_that_nobody_reads_ends(loop: Any, streamed: bool) -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [] if streamed else [(b"content-length", b"%d" % LARGE)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(LARGE // 2**16 if streamed else 0):
            await send({"type": "http.response.body", "body": b"x" * 2**16, "more_body": True})
        await send({"type": "http.response.body", "body": b"" if streamed else b"x" * LARGE})
        told.append((await receive())["type"])

    async def scenario() -> None:
        config = BoundedConfig(app, http=BoundedHttp, lifespan="off", log_config=None, access_log=False)
        config.bounds = Bounds(untaken_s=0.05)
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(lambda: BoundedHttp(config, state, {}), "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.sendall(REQUEST)
            async with asyncio.timeout(10):
                while not told or state.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
    assert told == ["http.disconnect"]


@pytest.fixture
def upgraded() -> tuple[DrainingSocket, Pipe, Timers]:
    """A WebSocket whose client has taken nothing for a while, neither now nor of an answer before the upgrade."""

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    config = BoundedConfig(app, http=BoundedHttp, ws=DrainingSocket, lifespan="off", log_config=None, access_log=False)
    config.load()
    timers, pipe = Timers(), Pipe()
    socket_ = DrainingSocket(config, ServerState(), {}, timers)  # type: ignore[arg-type]
    config.connections.enter("")
    socket_.connection_made(pipe)
    socket_.pause_writing()
    return socket_, pipe, timers


def test_a_socket_of_which_nothing_is_taken_is_cut_off(upgraded: tuple[DrainingSocket, Pipe, Timers]) -> None:
    _, pipe, timers = upgraded
    pipe.left -= 1
    timers.fire()
    assert not pipe.aborted
    timers.fire()
    assert pipe.aborted


def test_a_socket_that_goes_on_reading_or_leaves_is_not_timed(upgraded: tuple[DrainingSocket, Pipe, Timers]) -> None:
    socket_, pipe, timers = upgraded
    socket_.resume_writing()
    assert not timers.running
    socket_.pause_writing()
    socket_.connection_lost(None)
    assert (timers.running, pipe.aborted) == ([], False)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_a_socket_is_sent_and_nobody_reads_ends(loop: Any) -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with suppress(Exception):  # what is sent to somebody who was cut off
            for _ in range(LARGE // 2**16):
                await send({"type": "websocket.send", "bytes": b"x" * 2**16})
        told.append((await receive())["type"])

    async def scenario() -> None:
        config = BoundedConfig(app, http=BoundedHttp, ws=DrainingSocket, lifespan="off", log_config=None, access_log=False)
        config.bounds = Bounds(untaken_s=0.05)
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(lambda: BoundedHttp(config, state, {}), "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.sendall(UPGRADE)
            async with asyncio.timeout(10):
                while not told or state.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
    assert told == ["websocket.disconnect"]
