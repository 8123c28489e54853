"""One connection that speaks HTTP/1.1, one exchange at a time. It is used again only if nothing at all is left over on it."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

from core.http1 import CHUNKED, UNTIL_CLOSE, Chunks, Malformed, Origin, check_begun, framing, parsed_head

MAX_INTERIM_HEADS = 10  # 1xx, before the one that counts
# Read but not yet asked for: beyond it the socket is not read, and so much is given at once. A client that does not read has
# us hold it three times: what its connection has not taken, what waits for that, and this, with the last read beyond it (250 KB).
MAX_BUFFERED_BYTES = 64 * 2**10
WHOLE_WRITE_BYTES = 2**20  # requests up to this size are written in one go
_UPLOAD_PIECE_BYTES = 256 * 2**10
_TRUSTED_IDLE_S = 0.5


class Broken(Exception):
    """The connection ended before the answer did. `untouched`: not one byte of an answer had come."""

    def __init__(self, reason: str, *, untouched: bool = False) -> None:
        super().__init__(reason)
        self.untouched = untouched


class Owner(Protocol):
    """Whom a connection belongs to between exchanges."""

    def freed(self, connection: Connection) -> None:
        """An exchange ended cleanly; the connection can serve another."""
        ...

    def gone(self, connection: Connection) -> None:
        """Called once, whoever closed it."""
        ...


class Answer:
    """One answer as it arrives. `status` is 0 until its head is there, `fields` have lower-case names.

    Ends once: `complete`, or with a `failure`. After that it has no connection; what had arrived can still be taken.
    """

    __slots__ = ("_buffered_bytes", "_connection", "_loop", "_pieces", "_waiter", "complete", "failure", "fields", "status")

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.fields: dict[str, str] = {}
        self.complete = False
        self.failure: Malformed | Broken | None = None
        self._connection: Connection | None = connection
        self._loop = loop
        self._pieces: list[bytes] = []
        self._buffered_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def take(self) -> bytes:
        """The body bytes that have arrived since the last call, at most MAX_BUFFERED_BYTES; b"" if none. Never waits."""
        pieces = self._pieces
        if not pieces:
            return b""
        if self._buffered_bytes > MAX_BUFFERED_BYTES:
            return self._take_some()
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._buffered_bytes = 0
        return data

    def _take_some(self) -> bytes:
        pieces, count, size = self._pieces, 0, 0
        while size + len(pieces[count]) <= MAX_BUFFERED_BYTES:
            size += len(pieces[count])
            count += 1
        data = b"".join(pieces[:count])
        del pieces[:count]
        self._buffered_bytes -= size
        if self._buffered_bytes <= MAX_BUFFERED_BYTES and self._connection is not None:
            self._connection.resume_reading()
        return data

    def changed(self) -> asyncio.Future[None]:
        """Done when something has happened: more has arrived, the answer has ended, the upload may go on. For one waiter."""
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def abort(self) -> None:
        """Idempotent. An answer that has not ended takes its connection with it."""
        if self._connection is not None:
            self._connection.abort()

    def put(self, data: bytes) -> bool:
        """Whether there is room for more after it."""
        if len(data) > MAX_BUFFERED_BYTES:
            self._pieces += [data[at : at + MAX_BUFFERED_BYTES] for at in range(0, len(data), MAX_BUFFERED_BYTES)]
        else:
            self._pieces.append(data)
        self._buffered_bytes += len(data)
        self.wake()
        return self._buffered_bytes <= MAX_BUFFERED_BYTES

    def end(self, failure: Malformed | Broken | None = None) -> None:
        self.failure = failure
        self.complete = failure is None
        self._connection = None
        self.wake()

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


class Connection(asyncio.Protocol):
    """`owner` is set by whoever takes it in. `gone`: closed, by either side. `idle_since` is the owner's, in loop time."""

    def __init__(self, origin: Origin, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.owner: Owner | None = None
        self.gone = False
        self.idle_since = 0.0
        self._socket = sock
        self._loop = loop
        self._transport: asyncio.Transport
        self._answer: Answer | None = None
        self._chunks: Chunks | None = None
        self._begun = b""
        self._interim_heads = self._left = 0
        self._clean = self._sent = self._reading = self._writable = True
        self._method = ""

    def usable(self, now: float) -> bool:
        """Whether an idle connection is still open. `now` is loop time.

        The loop tells of a peer that has closed, but only when it comes to it. After half a second of idleness, when
        peers begin to close, the socket itself is asked, which costs a system call: nothing may be readable.
        """
        if self.gone or now - self.idle_since < _TRUSTED_IDLE_S:
            return not self.gone
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def send(self, method: str, head: bytes, body: bytes) -> Answer:
        """Begins an exchange. A body of more than WHOLE_WRITE_BYTES is left to `upload`."""
        answer = self._answer = Answer(self, self._loop)
        self._method = method
        self._interim_heads = 0
        self._clean = True
        self._sent = len(body) <= WHOLE_WRITE_BYTES
        self._transport.write(head + body if self._sent else head)
        return answer

    async def upload(self, answer: Answer, body: bytes) -> None:
        """Writes as fast as the peer takes it. Ends early when the peer has answered or left: it will not read the rest."""
        view = memoryview(body)
        for start in range(0, len(view), _UPLOAD_PIECE_BYTES):
            self._transport.write(view[start : start + _UPLOAD_PIECE_BYTES])
            while not (self._writable or answer.status or answer.failure):
                await answer.changed()
            if answer.status or answer.failure:
                return
        self._sent = True

    def abort(self) -> None:
        """Idempotent. At once and impolitely, so that the peer stops."""
        self._leave(Broken("closed by us"))
        self._transport.abort()

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            return self.abort()  # nobody asked
        try:
            if not answer.status:
                data = self._read_head(answer, data)
                if not answer.status:
                    return
            self._read_body(answer, data)
        except Malformed as exc:
            # Its frames hold what was read, and the answer that is to hold it: together they would wait for the collector.
            exc.__traceback__ = exc.__context__ = None
            self._leave(exc)
            self._transport.abort()

    def eof_received(self) -> None:
        """The transport closes itself after this."""
        if self._answer is not None and self._answer.status and self._left == UNTIL_CLOSE:
            self._finish(self._answer)
        self._leave(Broken("closed by the peer", untouched=self._untouched()))

    def connection_lost(self, exc: Exception | None) -> None:
        """Without `eof_received` before it: aborted, reset, or TLS that stopped without its own end, which anybody on the
        way can bring about (RFC 9112, section 9.8)."""
        if self._chunks is not None:
            self._chunks.close()
            self._chunks = None
        self._leave(Broken(repr(exc) if exc else "closed without an end of TLS", untouched=self._untouched()))

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._answer is not None:
            self._answer.wake()

    # Reading

    def _read_head(self, answer: Answer, data: bytes) -> bytes:
        """What follows the head. While the head is not all there, the answer keeps its status of 0."""
        if self._begun:
            data = self._begun + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = parsed_head(data[:end])
            data = data[end + 4 :]
            if head.status >= 200:
                self._begun = b""
                self._left, self._clean = framing(head, self._method)
                if self._left == CHUNKED:
                    self._begin_chunks()
                answer.status, answer.fields = head.status, head.fields
                answer.wake()
                return data
            self._interim_heads += 1
            if head.status == 101 or self._interim_heads > MAX_INTERIM_HEADS:
                raise Malformed("a change of protocol, or interim answers without end")
        check_begun(data)
        self._begun = data
        return b""

    def _begin_chunks(self) -> None:
        if self._chunks is None:
            self._chunks = Chunks()
        self._chunks.begin()

    def _read_body(self, answer: Answer, data: bytes) -> None:
        ended = False
        if self._left >= 0:
            if len(data) > self._left:
                data, self._clean = data[: self._left], False
            self._left -= len(data)
            ended = self._left == 0
        elif self._left == CHUNKED and data and self._chunks is not None:
            data = self._chunks.feed(data)
            ended = self._chunks.ended
            self._clean = self._clean and (self._chunks.clean or not ended)
        if data and not answer.put(data) and not ended and self._reading:
            self._reading = False
            self._transport.pause_reading()
        if ended:
            self._finish(answer)

    def _finish(self, answer: Answer) -> None:
        """The answer is whole. The connection is free from here on, even if nobody has taken the last bytes yet."""
        self._answer = None
        answer.end()
        if self._clean and self._sent and self.owner is not None and not self._transport.get_write_buffer_size():
            self.resume_reading()
            self.owner.freed(self)
        else:
            self.abort()

    def _untouched(self) -> bool:
        return self._answer is not None and not (self._answer.status or self._begun or self._interim_heads)

    def _leave(self, failure: Malformed | Broken) -> None:
        if self.gone:
            return
        self.gone = True
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.end(failure)
        if self.owner is not None:
            self.owner.gone(self)
