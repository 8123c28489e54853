"""One HTTP client on raw asyncio, which never raises whatever the server does: it notes it in the row."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.faults.history import Row, end_stream, read_event, read_whole

_LIMIT = 2**22


class Left(Exception):
    """We went away in the middle, as we meant to."""


def request(row: Row, port: int, key: str, headers: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
    body = {"model": row.alias, "messages": [{"role": "user", "content": row.prompt}], "stream": row.stream, **fields}
    sent = json.dumps(body).encode()
    lines = {"host": f"127.0.0.1:{port}", "authorization": f"Bearer {key}", "content-type": "application/json", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{head}content-length: {len(sent)}\r\n\r\n".encode() + sent


class Client:
    """Keeps its connection as long as the server does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, row: Row, sent: bytes, timeout_s: float, leave: Callable[[Row], bool] | None = None) -> None:
        """Fills in `row`. Where `leave` says so after an event, the connection is cut."""
        row.invoke_t, row.server_port = time.time(), self._port
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await self._connected()
                row.local_port = writer.get_extra_info("sockname")[1]
                writer.write(sent)
                await self._answer(reader, row, leave)
        except TimeoutError:
            row.reason = "timeout"
        except ConnectionRefusedError:
            row.outcome, row.reason = "fail", "refused"
        except (OSError, asyncio.IncompleteReadError):
            row.reason = "cut"
        except (ValueError, asyncio.LimitOverrunError):
            row.reason = "garbage"
        except Left:
            row.abandoned = True
        finally:
            row.end_t = time.time()
        if row.reason == "cut" and row.error is not None:
            row.outcome = "fail"  # the error had been told, and after it the connection may end as it likes
        if row.reason or row.abandoned or row.error is not None or row.headers.get("connection") == "close":
            self.close()

    async def connect(self) -> int:
        """Before the first request, if that matters. Returns the port at this end."""
        _, writer = await self._connected()
        return int(writer.get_extra_info("sockname")[1])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=_LIMIT)
        return self._reader, self._writer

    async def _answer(self, reader: asyncio.StreamReader, row: Row, leave: Callable[[Row], bool] | None) -> None:
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        row.first_t = time.time()
        row.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        row.status = int(status_line.split()[1])
        if "content-length" in row.headers:
            row.body = await reader.readexactly(int(row.headers["content-length"]))
            return read_whole(row)
        streamed = row.headers.get("content-type", "").startswith("text/event-stream")
        pending = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            pending += (await reader.readexactly(size + 2))[:-2]
            if streamed:
                pending = self._events(row, pending)
                if leave is not None and leave(row):
                    raise Left
        await reader.readuntil(b"\r\n")
        if streamed:
            return end_stream(row)
        row.body = pending
        return read_whole(row)

    @staticmethod
    def _events(row: Row, pending: bytes) -> bytes:
        """Reads whole events; returns what has begun of the next."""
        *events, rest = pending.replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            data = b"\n".join(line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
            if data:
                read_event(row, data)
        return rest
