"""uvicorn's HTTP/1.1 parser, with the bounds it lacks: how large a request's head may be, how long it may take, how long a
client may leave its answer untaken, and how many connections it may hold; and with an end that answers what was sent.

httptools collects a head without limit, and uvicorn times only connections that have been answered before. A client that
does not read would hold its answer's memory, and a stream all it occupies at the vendor, for as long as it likes. The
body's bounds belong to the doors, which know what they are reading.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from core.deadlines import Deadlines
from llmcontrol.connection_limit import ConnectionLimit
from llmcontrol.http_answer import Cycle
from llmcontrol.untaken import Untaken

# For what is on the wire when the listener closes: a client that has just sent a request could not know.
_LINGER_S = 1
_IDLE_TICK_S = 0.25  # how much longer than it may an idle connection may stay


class Bounds(msgspec.Struct, frozen=True):
    """Of the request line and the headers together: bytes, number of headers, seconds from first to last byte.

    `untaken_s`: so long may a client take nothing while more than the transport's high-water mark waits for it.
    """

    max_bytes: int = 32 * 2**10
    max_headers: int = 128
    timeout_s: float = 30.0
    untaken_s: float = 60.0


class BoundedConfig(Config):
    """Carries to every connection what all of them share: bounds, and how far the server's end has come.

    `draining`: answers say `connection: close`. `closed`: nobody is accepted any more.
    """

    bounds = Bounds()
    draining = False
    closed = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections = ConnectionLimit()
        self.idle = Deadlines(_IDLE_TICK_S)


class HeadTooLarge(Exception):
    """Stops the parser; never leaves this module."""


class BoundedHttp(HttpToolsProtocol):
    """Of uvicorn's callbacks those that come with every request are written anew, shorter: the scope is made at once and when the
    head is whole, and idle connections share one timer."""

    def __init__(
        self, config: BoundedConfig, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.config: BoundedConfig = config
        self._bounds = config.bounds
        self._entered = False
        self._in_head = False
        self.url = b""  # uvicorn sets it with the first byte of a message, which may never come
        # Bytes read since the last whole message: never less than the head that is being read, often more.
        self._read_bytes = 0
        self._last_read_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._untaken = Untaken(transport, self.loop, self._bounds.untaken_s)
        self._entered = self.config.connections.enter(self.client[0] if self.client else "")
        if not self._entered:
            transport.write(_unavailable("Too many connections; try again shortly."))
            transport.close()
            return
        self._arm()
        if self.config.closed:  # it was accepted just before
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._untaken.stop()
        self._unset_keepalive_if_required()
        if self._entered:
            self.config.connections.leave(self.client[0] if self.client else "")
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The listener is closed. An idle connection lingers, also one whose client has read the head of an answer without `close`."""
        self.timeout_keep_alive = _LINGER_S
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(_LINGER_S, self.timeout_keep_alive_handler)
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False

    def handle_websocket_upgrade(self) -> None:
        if self.config.closed:
            self.transport.write(_unavailable("The server is going down; connect again."))
            self.transport.close()
            return
        self._entered = False  # from here on the socket's affair
        self._untaken.stop()
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._untaken.watch()

    def resume_writing(self) -> None:
        self._untaken.stop()
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
        self.url, self.headers, self.expect_100_continue, self._in_head = b"", [], False, True

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._disarm()
        if self._head_too_large():
            raise HeadTooLarge
        parser, before = self.parser, self.cycle
        version = parser.get_http_version()
        self.scope = self._scope_of(version, parser.get_method().decode("ascii"))
        if parser.should_upgrade() and self._should_upgrade():
            return
        self.cycle = Cycle(self, keep_alive=version != "1.0" and parser.should_keep_alive())
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _scope_of(self, http_version: str, method: str) -> Any:
        raw_path, query = _split(self.url)
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": http_version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
            "method": method,
            "path": self.root_path + (unquote(path) if "%" in path else path),
            "raw_path": self.root_path.encode("ascii") + raw_path,
            "query_string": query,
        }

    def on_message_complete(self) -> None:
        # What follows in the same read is the next head's.
        self._read_bytes = self._last_read_bytes
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.due_s = self.loop.time() + self.timeout_keep_alive
            self.config.idle.add(self, self.loop)

    def overdue(self) -> None:
        """See `core.deadlines.Due`: nothing was asked for too long."""
        self.timeout_keep_alive_handler()

    def _unset_keepalive_if_required(self) -> None:
        self.config.idle.discard(self)
        super()._unset_keepalive_if_required()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if self.config.draining:
            cycle.keep_alive = False
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


def _split(url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request's target."""
    if url.startswith(b"/") and b"#" not in url:
        path, _, query = url.partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path, parsed.query or b""


def _unavailable(text: str) -> bytes:
    return (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nretry-after: 1\r\n"
        f"content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}"
    ).encode()


def _refusal(bounds: Bounds) -> bytes:
    text = f"The request line and the headers are too large: at most {bounds.max_bytes} bytes and {bounds.max_headers} headers."
    return (
        "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}"
    ).encode()
