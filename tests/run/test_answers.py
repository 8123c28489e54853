"""How answers are written: byte for byte as uvicorn writes them, in fewer system calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from llmcontrol.http_protocol import BoundedConfig, BoundedHttp

LENGTH_5 = (b"content-length", b"5")
Message = dict[str, Any]


class Wire(asyncio.Transport):
    """Keeps what is written; each item is one system call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.calls.append(bytes(data))

    def writelines(self, parts: Iterable[Any]) -> None:
        self.calls.append(b"".join(parts))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def answered(protocol_class: type[HttpToolsProtocol], request: bytes, messages: list[Message], left: bool = False) -> Wire:
    """What went out for `request`; every request is answered with `messages`. `left`: the client goes before the body."""
    state, wire = ServerState(), Wire()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
            if left:
                protocol.connection_lost(None)

    config = BoundedConfig(app, http=protocol_class, lifespan="off", log_config=None, access_log=False)
    config.load()
    state.default_headers = [(b"date", b"today")]
    protocol = protocol_class(config, state, {})  # type: ignore[arg-type]
    protocol.connection_made(wire)  # type: ignore[arg-type]
    protocol.data_received(request)
    while state.tasks:
        await asyncio.gather(*state.tasks)
    if not left:
        protocol.connection_lost(None)
    return wire


def request(method: str = "GET", version: str = "1.1", *headers: str, times: int = 1) -> bytes:
    return "".join([f"{method} / HTTP/{version}\r\n", *(f"{header}\r\n" for header in headers), "\r\n"]).encode() * times


WHOLE = [start(200, LENGTH_5, (b"X-Request-Id", b"r\tone")), body(b"hello")]
STREAM = [start(200, (b"content-type", b"text/event-stream")), body(b"a", True), body(b"", True), body(b"bc", True), body()]


@pytest.mark.parametrize(
    ("asked", "messages"),
    [
        (request(), WHOLE),
        (request(), STREAM),
        (request(), [start(200), body(b"all at once")]),
        (request(), [start(200, LENGTH_5), body(b"he", True), body(b"llo")]),
        (request(), [start(200, (b"Transfer-Encoding", b"Chunked"), LENGTH_5), body(b"hello")]),
        (request(), [start(204), body()]),
        (request(), [start(304, (b"etag", b"x")), body()]),
        (request(), [start(200, LENGTH_5, (b"Connection", b"keep-alive, Close")), body(b"hello")]),
        (request(), [start(599), body()]),
        (request("HEAD"), WHOLE),
        (request("HEAD"), STREAM),
        (request("GET", "1.0"), WHOLE),
        (request("GET", "1.1", "Connection: close"), WHOLE),
        (request("GET", "1.1", "Connection: close"), [start(200, LENGTH_5, (b"connection", b"close")), body(b"hello")]),
        (request(times=3), WHOLE),
        (request(times=3), STREAM),
    ],
)
async def test_an_answer_is_what_uvicorn_sends(asked: bytes, messages: list[Message]) -> None:
    ours, theirs = await answered(BoundedHttp, asked, messages), await answered(HttpToolsProtocol, asked, messages)
    assert b"".join(ours.calls) == b"".join(theirs.calls)
    assert ours.calls
    assert ours.closed == theirs.closed


@pytest.mark.parametrize(("messages", "calls"), [(WHOLE, 1), (STREAM, 4)])
async def test_a_head_goes_out_with_the_first_of_the_body(messages: list[Message], calls: int) -> None:
    wire = await answered(BoundedHttp, request(), messages)
    assert len(wire.calls) == calls
    assert b"\r\n\r\n" in wire.calls[0]
    assert not wire.calls[0].endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "messages",
    [
        [start(200, (b"x-a", b"b\r\nset-cookie: c=d")), body()],
        [start(200, (b"x-a", b"b\nc")), body()],
        [start(200, (b"x-a", b"b\0")), body()],
        [start(200, (b"x-a: b\r\nx-c", b"d")), body()],
        [start(200, (b"x a", b"b")), body()],
        [start(200, LENGTH_5), body(b"hello!")],
        [start(200, LENGTH_5), body(b"hell")],
        [body(b"hello")],
        [start(), start()],
        [start(), body(), body()],
        [start()],
        [],
    ],
)
async def test_an_answer_that_breaks_the_rules_ends_the_connection(messages: list[Message], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        wire = await answered(BoundedHttp, request(), messages)
    sent = b"".join(wire.calls)
    assert b"set-cookie" not in sent
    assert wire.closed
    assert caplog.records
    # Nothing had begun, so there is still a status to tell it by.
    assert sent.startswith(b"HTTP/1.1 500") == (not messages or messages[0]["type"] == "http.response.body")


async def test_nothing_is_written_to_a_client_that_left() -> None:
    assert (await answered(BoundedHttp, request(), WHOLE, left=True)).calls == []


@pytest.mark.parametrize("header", [(), ("Connection: keep-alive",)])
async def test_a_client_of_http_1_0_gets_a_stream_without_chunks_which_ends_with_the_connection(header: tuple[str, ...]) -> None:
    wire = await answered(BoundedHttp, request("GET", "1.0", *header), STREAM)
    head, _, sent = b"".join(wire.calls).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert sent == b"abc"
    assert wire.closed
