"""A vendor on loopback that sends exact bytes, and a transport that may call it."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from core.chat import WireCall
from core.config import TimeoutSpec
from core.guard import Guard
from core.outbound import GuardedTransport
from tests.adapters.cast import quick

OK = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\nX-Request-ID: 7\r\n"


HI = OK + b"Content-Length: 2\r\n\r\nhi"
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


def on(loop: Callable[[], asyncio.AbstractEventLoop], scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario)


class RawServer:
    """Answers each request with the next of `answers`, the last one from then on; None closes the connection instead.

    `close`: answers the first bytes of a connection, whatever they are, and closes it. `early`: answers when it has the
    head of a request, and reads no body. Other options go to the transport.
    """

    def __init__(
        self, *answers: bytes | None, close: bool = False, early: bool = False, context: ssl.SSLContext | None = None, **transport: Any
    ) -> None:
        self.answers, self.close, self.early, self.context = list(answers), close, early, context
        self.transport_options = transport
        self.requests: list[bytes] = []
        self.connections: list[asyncio.StreamWriter] = []
        self.ended = 0

    async def __aenter__(self) -> RawServer:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        self.port = self.server.sockets[0].getsockname()[1]
        self.transport = GuardedTransport(Guard([("127.0.0.0/8", self.port)]), **self.transport_options)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transport.close()
        self.server.close()
        for writer in self.connections:
            writer.close()
        await self.server.wait_closed()
        await self.until(lambda: self.ended == len(self.connections))

    async def until(self, condition: Any) -> None:
        """Waits for something that other tasks bring about."""
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while await self._answer(reader, writer) and not self.close:
                pass
            if self.early:
                await writer.wait_closed()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended += 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        request = await (reader.read(2**16) if self.close else reader.readuntil(b"\r\n\r\n"))
        length = re.search(rb"(?i)content-length: (\d+)", request)
        if length and not (self.close or self.early):
            request += await reader.readexactly(int(length[1]))
        if not self.close:
            self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        writer.write(answer or b"")
        return answer is not None and not self.early

    def call(self, scheme: str = "http", host: str = "127.0.0.1", method: str = "GET", body: bytes | None = None) -> WireCall:
        return WireCall(f"{scheme}://{host}:{self.port}/", {}, body, method)

    async def get(self, timeouts: TimeoutSpec | None = None, scheme: str = "http") -> Any:
        return await self.transport.open(self.call(scheme), timeouts or quick())

    async def post(self, body: bytes, timeouts: TimeoutSpec | None = None) -> Any:
        return await self.transport.open(self.call(method="POST", body=body), timeouts or quick())
