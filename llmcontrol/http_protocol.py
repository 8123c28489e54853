"""uvicorn's HTTP/1.1 parser, with the three bounds it lacks: how large a request's head may be, how long it may take, and
how long a client may leave its answer untaken.

httptools collects a head without limit, and uvicorn times only connections that have been answered before. A client that
does not read would hold its answer's memory, and a stream all it occupies at the vendor, for as long as it likes. The
body's bounds belong to the doors, which know what they are reading.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from llmcontrol.http_answer import Cycle


class Bounds(msgspec.Struct, frozen=True):
    """Of the request line and the headers together: bytes, number of headers, seconds from first to last byte.

    `untaken_s`: so long may a client take nothing while more than the transport's high-water mark waits for it.
    """

    max_bytes: int = 64 * 2**10
    max_headers: int = 128
    timeout_s: float = 30.0
    untaken_s: float = 60.0


class BoundedConfig(Config):
    """Carries the bounds to every connection; also into worker processes, to which it is pickled."""

    bounds = Bounds()


class HeadTooLarge(Exception):
    """Stops the parser; never leaves this module."""


class BoundedHttp(HttpToolsProtocol):
    """A head that fits and comes in one piece costs two additions and a comparison more than before."""

    def __init__(
        self, config: BoundedConfig, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds = config.bounds
        self._in_head = False
        self.url = b""  # uvicorn sets it with the first byte of a message, which may never come
        # Bytes read since the last whole message: never less than the head that is being read, often more.
        self._read_bytes = 0
        self._last_read_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._untaken_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._stop_untaken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_untaken()

    def resume_writing(self) -> None:
        self._stop_untaken()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        self._last_read_bytes = len(data)
        self._read_bytes += len(data)
        super().data_received(data)
        if self._in_head:
            if self._read_bytes > self._bounds.max_bytes:
                self._refuse()
            elif self._head_timer is None:
                self._arm()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._disarm()
        if self._head_too_large():
            raise HeadTooLarge
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        # What follows in the same read is the next head's.
        self._read_bytes = self._last_read_bytes
        super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        cycle.__class__ = Cycle  # uvicorn makes its own, and offers no place to say which
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Where uvicorn lands when the parser stops: on a malformed message, or on our own exception."""
        self._disarm()
        if self._head_too_large():
            self._refuse()
        else:
            super().send_400_response(msg)

    def _head_too_large(self) -> bool:
        headers = self.headers or ()
        if len(headers) > self._bounds.max_headers:
            return True
        if self._read_bytes <= self._bounds.max_bytes:  # nearly always: no sum is needed
            return False
        return len(self.url) + sum(len(name) + len(value) for name, value in headers) > self._bounds.max_bytes

    def _refuse(self) -> None:
        self._disarm()
        self._in_head = False
        self.transport.write(_refusal(self._bounds))
        self.transport.close()

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(self._bounds.timeout_s, self._head_is_late)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._arm()  # an earlier request of this connection is still being answered

    def _watch_untaken(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._untaken_timer = self.loop.call_later(self._bounds.untaken_s, self._untaken, left)

    def _stop_untaken(self) -> None:
        if self._untaken_timer is not None:
            self._untaken_timer.cancel()
            self._untaken_timer = None

    def _untaken(self, before: int) -> None:
        """Closing would wait for what the client does not take, so the connection is aborted; the app hears of a disconnect."""
        if self.transport.get_write_buffer_size() < before:
            self._watch_untaken()  # slow, but it reads
        else:
            self.transport.abort()


def _refusal(bounds: Bounds) -> bytes:
    text = f"The request line and the headers are too large: at most {bounds.max_bytes} bytes and {bounds.max_headers} headers."
    return (
        "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}"
    ).encode()
