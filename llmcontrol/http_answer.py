"""How an answer is written: as uvicorn does it, but its head goes out with its first piece of body, in one system call.

ASGI lets a server hold the head back until there is body, and every answer has a body message, be it an empty one. The values
of a head are searched for control characters together, and a header's name when it is first seen.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

_LENGTH, _ENCODING, _CONNECTION = b"content-length: ", b"transfer-encoding: ", b"connection: "
_FRAMING = frozenset((_LENGTH, _ENCODING, _CONNECTION))
_STATUSES_WITHOUT_BODY = (204, 304)
_NAMES_KEPT = 512


class Cycle(RequestResponseCycle):
    """One request and its answer. `send` raises RuntimeError at what uvicorn's does; there is no access log."""

    _head = b""
    _says_close = False

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
        if HEADER_VALUE_RE.search(b"".join([value for _, value in headers])):
            raise RuntimeError("Invalid HTTP header value.")
        parts = [STATUS_LINE[status]]
        for name, value in headers:
            begun = _begun_line(name)
            if begun in _FRAMING:
                self._heed(begun, value)
            parts += (begun, value, b"\r\n")
        if not self.keep_alive and not self._says_close:
            parts.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _STATUSES_WITHOUT_BODY:
            self.chunked_encoding = True
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        self._head = b"".join(parts)

    def _heed(self, begun: bytes, value: bytes) -> None:
        """A header that says where the body ends, or what becomes of the connection."""
        if begun == _CONNECTION:
            if b"close" in [token.strip() for token in value.lower().split(b",")]:
                self.keep_alive, self._says_close = False, True
        elif begun == _ENCODING:
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
        else:
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


@lru_cache(maxsize=_NAMES_KEPT)
def _begun_line(name: bytes) -> bytes:
    """Raises RuntimeError for what is no header's name."""
    if HEADER_RE.search(name):
        raise RuntimeError("Invalid HTTP header name.")
    return name.lower() + b": "
