"""The fault vendor's side of one HTTP connection, on raw asyncio: what a well-behaved server library would refuse to send."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Protocol


class Answering(Protocol):
    """What a connection needs of the server it belongs to."""

    tasks: set[asyncio.Task[None]]
    connections: int

    async def answer(self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes) -> None: ...


class ClientLeft(Exception):
    """The client closed the connection."""


class Connection(asyncio.Protocol):
    """One client connection; `gone` is set, and `gone_at` noted, the moment the client leaves. `entry` is the ledger's, of the call."""

    def __init__(self, vendor: Answering) -> None:
        self.vendor = vendor
        self.buffer = bytearray()
        self.more, self.gone, self.writable = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.writable.set()
        self.gone_at: float | None = None
        self.entry: dict[str, Any] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.vendor.connections += 1
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.task = asyncio.get_running_loop().create_task(self._serve())
        self.vendor.tasks.add(self.task)
        self.task.add_done_callback(self.vendor.tasks.discard)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.more.set()

    def eof_received(self) -> None:
        self._left()

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()

    def _left(self) -> None:
        self.gone_at = self.gone_at or time.time()
        for event in (self.gone, self.more, self.writable):
            event.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    async def send(self, data: bytes) -> None:
        if self.gone.is_set():
            raise ClientLeft
        if self.entry is not None and self.entry["first_byte"] is None:
            self.entry["first_byte"] = time.time()
        self.transport.write(data)
        await asyncio.sleep(0)
        await self.writable.wait()

    async def pause(self, seconds: float | None) -> None:
        """None = until the client leaves."""
        try:
            await asyncio.wait_for(self.gone.wait(), seconds)
        except TimeoutError:
            return
        raise ClientLeft

    def reset(self) -> None:
        """RST instead of FIN."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def _read(self, until: Callable[[], int]) -> bytes:
        """`until` returns how many bytes of the buffer are one whole thing, 0 = not yet."""
        while not (size := until()):
            if self.gone.is_set():
                raise ClientLeft
            self.more.clear()
            await self.more.wait()
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    async def _serve(self) -> None:
        try:
            while True:
                head = (await self._read(lambda: self.buffer.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in self.buffer else 0)).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                method, path, _ = first.split(" ", 2)
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                size = int(headers.get("content-length") or 0)
                body = await self._read(lambda: size if len(self.buffer) >= size else 0) if size else b""  # noqa: B023
                await self.vendor.answer(self, method, path, headers, body)
        except ClientLeft:
            pass
        finally:
            self.transport.close()

    async def reply(self, status: int, body: Any, headers: dict[str, str] | None = None, content_type: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        if self.entry is not None:
            self.entry["status"] = status
        await self.send(head_of(status, {"content-type": content_type, "content-length": str(len(data)), **(headers or {})}) + data)


def head_of(status: int, headers: dict[str, str]) -> bytes:
    return (f"HTTP/1.1 {status} Fault\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n").encode("latin-1")


def error(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
