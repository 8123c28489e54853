"""uvicorn's WebSocket connection, which ends when the application says so, or when its client takes nothing for too long, and which
takes little from a client that has not said who it is.

uvicorn's own closes every socket the moment the listener closes, whatever runs on it. Here the application hears of it, as
a message that ASGI does not have: `websocket.shutdown`. It closes the socket once what runs there is done.

And the application may send many texts at once: each of them is a message of its own to the client, all are one write here, and none goes
through the library's encoder. The extension `websocket.texts` in the scope says so. Its `write(texts)` writes them now, or says False where
the client takes nothing; `{"type": "websocket.texts", "texts": [bytes]}` waits for it, as any send.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from typing import Any, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.admission import CREDENTIAL_HEADERS
from llmcontrol.http_protocol import BoundedConfig
from llmcontrol.untaken import Untaken

STRANGERS_BYTES = 64 * 2**10
# Of one message. They may be empty, so that a bound of bytes alone would bound nothing.
_MAX_FRAGMENTS = 1024
_WHOLE_TEXT = 0x81  # the first byte of a frame that is a message: final, text, not compressed
_CREDENTIALS = frozenset(name.decode() for name in CREDENTIAL_HEADERS)


class _Frames(ServerProtocol):
    """The first message of a stranger is bounded. What follows may come with it, and is not read on before the application has seen
    the first one, and closed the socket if that does not say who is there."""

    later_bytes: int

    def recv_frame(self, frame: Frame) -> None:
        super().recv_frame(frame)
        if frame.fin and frame.opcode in DATA_OPCODES:
            self.max_message_size = self.later_bytes


class DrainingSocket(WebSocketsSansIOProtocol):
    """Made of a connection that `BoundedHttp` has counted, and leaves for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        conn: Any = self.conn
        conn.__class__ = _Frames  # uvicorn makes its own, and offers no place to say which
        conn.later_bytes = self.config.ws_max_size
        conn.max_message_size = min(STRANGERS_BYTES, self.config.ws_max_size)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._untaken = Untaken(transport, self.loop, cast(BoundedConfig, self.config).bounds.untaken_s)

    def handle_connect(self, event: Request) -> None:
        """Whoever shows no key with the handshake sends it in the first message, which needs no room for a prompt."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            cast(dict[str, Any], self.scope["extensions"])["websocket.texts"] = {"write": self.write_texts}
        if any(name.lower() in _CREDENTIALS for name in event.headers):
            self.conn.max_message_size = self.config.ws_max_size

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < _MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"more than {_MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()

    def pause_writing(self) -> None:
        """uvicorn's pings end in a close, which waits for a client that takes nothing as long as it likes."""
        super().pause_writing()
        self._untaken.watch()

    def resume_writing(self) -> None:
        self._untaken.stop()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._untaken.stop()
        cast(BoundedConfig, self.config).connections.leave(self.client[0] if self.client else "")
        super().connection_lost(exc)

    async def send(self, message: Any) -> None:
        """`websocket.abort` is not ASGI's: an end for a client that takes nothing, for which a close would wait."""
        if message["type"] == "websocket.abort":
            self.transport.abort()
        elif message["type"] == "websocket.texts":
            while not self.write_texts(message["texts"]):
                await self.writable.wait()
        else:
            await super().send(message)

    def write_texts(self, texts: Sequence[bytes]) -> bool:
        """False: nothing is written while the client takes nothing. Where compression was agreed on, each message may still do without
        (RFC 7692, 6): what goes to many would be compressed for each of them. Raises ClientDisconnected."""
        if self.disconnected or self.conn.state is not State.OPEN:
            raise ClientDisconnected
        if not self.writable.is_set():
            return False
        self.transport.write(b"".join(_framed(texts)))
        return True

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait(cast(Any, {"type": "websocket.shutdown"}))
        else:
            super().shutdown()


def _framed(texts: Sequence[bytes]) -> Iterator[bytes]:
    """RFC 6455, 5.2: what a server sends is not masked, so its frames are a head and the text as it is."""
    for text in texts:
        yield _head(len(text))
        yield text


def _head(size: int) -> bytes:
    if size < 126:
        return bytes((_WHOLE_TEXT, size))
    if size < 2**16:
        return struct.pack("!BBH", _WHOLE_TEXT, 126, size)
    return struct.pack("!BBQ", _WHOLE_TEXT, 127, size)
