"""How an answer is written: as uvicorn does it, but its head goes out with its first piece of body, in one system call.

ASGI lets a server hold the head back until there is body, and every answer has a body message, be it an empty one. The values
of a head are searched for control characters together, its names when they first come together.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    from llmcontrol.http_protocol import BoundedHttp

_LENGTH, _ENCODING, _CONNECTION = b"content-length", b"transfer-encoding", b"connection"
_FRAMING = frozenset((_LENGTH, _ENCODING, _CONNECTION))
_STATUSES_WITHOUT_BODY = (204, 304)
_FORMS_KEPT = 256


class Cycle(RequestResponseCycle):
    """One request and its answer. `send` raises RuntimeError at what uvicorn's does; there is no access log.

    What all of them begin with stands in the class: setting it for each takes longer than reading it here.
    """

    logger = logging.getLogger("uvicorn.error")
    body: Any = b""  # it grows to uvicorn's high-water mark at most
    more_body = True
    disconnected = response_started = response_complete = False
    chunked_encoding = None
    expected_content_length = 0
    _head = b""
    _says_close = False
    # HTTP/1.0 knows no chunks: where no length is known, the end of the connection ends the body.
    _ends_with_connection = False

    def __init__(self, protocol: BoundedHttp, *, keep_alive: bool) -> None:
        self.scope = protocol.scope
        self.transport, self.flow = protocol.transport, protocol.flow
        self.default_headers = protocol.server_state.default_headers
        self.on_response = protocol.on_response_complete
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = protocol.expect_100_continue
        self.message_event = asyncio.Event()

    async def receive(self) -> Any:
        event = self.message_event
        if self.waiting_for_100_continue or not event.is_set():
            return await super().receive()
        event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        self.flow.resume_reading()
        body, self.body = self.body, b""
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send_500_response(self) -> None:
        """uvicorn's last resort where the application raised. One that is cancelled has not failed: the server is going down."""
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            await super().send_500_response()
            return
        headers = [(b"content-length", b"0"), (b"retry-after", b"1"), (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": 503, "headers": headers})
        await self.send({"type": "http.response.body", "body": b""})

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if self.response_complete:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")
        expected = "http.response.body" if self.response_started else "http.response.start"
        if kind != expected:
            raise RuntimeError(f"Expected ASGI message '{expected}', but got '{kind}'.")
        if self.response_started:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._start(message["status"], [*self.default_headers, *message.get("headers", ())])

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response_started, self.waiting_for_100_continue = True, False
        parts = [STATUS_LINE[status]]
        if headers:
            names, values = zip(*headers, strict=True)
            form = _form(names)
            if HEADER_VALUE_RE.search(b"".join(values)):
                raise RuntimeError("Invalid HTTP header value.")
            for place, name in form.framing:
                self._heed(name, values[place])
            parts.append(form.lines % values)
        if not self.keep_alive and not self._says_close:
            parts.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _STATUSES_WITHOUT_BODY:
            if self.scope["http_version"] == "1.0":
                self._ends_with_connection = True
            else:
                self.chunked_encoding = True
                parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        self._head = b"".join(parts)

    def _heed(self, name: bytes, value: bytes) -> None:
        """A header that says where the body ends, or what becomes of the connection."""
        if name == _CONNECTION:
            if b"close" in [token.strip() for token in value.lower().split(b",")]:
                self.keep_alive, self._says_close = False, True
        elif name == _ENCODING:
            if value.lower() == b"chunked":
                self.expected_content_length, self.chunked_encoding = 0, True
        elif self.chunked_encoding is None:
            self.expected_content_length, self.chunked_encoding = int(value), False

    def _send_body(self, body: bytes, more_body: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length, body = 0, b""
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more_body:
                body += b"0\r\n\r\n"
        elif not self._ends_with_connection:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("Response content longer than Content-Length")
        if self._head:
            self.transport.writelines((self._head, body))
            self._head = b""
        else:
            self.transport.write(body)
        if not more_body:
            self._complete()

    def _complete(self) -> None:
        if self.expected_content_length:
            raise RuntimeError("Response content shorter than Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class _Form(NamedTuple):
    """The header lines of all answers with the same names in the same order. `framing`: the places and names that `_heed` heeds."""

    lines: bytes
    framing: tuple[tuple[int, bytes], ...]


@lru_cache(maxsize=_FORMS_KEPT)
def _form(names: tuple[bytes, ...]) -> _Form:
    """Raises RuntimeError for what is no header's name."""
    if any(map(HEADER_RE.search, names)):
        raise RuntimeError("Invalid HTTP header name.")
    lower = [name.lower() for name in names]
    lines = b"".join(name.replace(b"%", b"%%") + b": %b\r\n" for name in lower)
    return _Form(lines, tuple((place, name) for place, name in enumerate(lower) if name in _FRAMING))
