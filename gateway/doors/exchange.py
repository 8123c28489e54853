"""One generation on its way to one client."""

from __future__ import annotations

import asyncio

import msgspec

from core.deadlines import Deadlines
from core.errors import ClientGone, GatewayError
from gateway.doors import keep_alive
from gateway.doors.answer import JSON, DoorDialect, Headers, Send, error_headers, own_fault, respond, server_down
from gateway.doors.body import Receive
from gateway.doors.keep_alive import KeepAlive
from gateway.pipeline import Generation

_SSE: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
_COMMENT = b": keep-alive\n\n"
# A watch is a task of its own: an answer that is there at once is spared it, a client that leaves is noticed soon enough.
_WATCH_AFTER_S = 0.05


class Timers(msgspec.Struct, eq=False):
    """Of all exchanges of a process. `keep_alive_s`: seconds of silence in a stream before something is said, 0 = nothing is."""

    keep_alive_s: float = keep_alive.DEFAULT_S
    unwatched: Deadlines = msgspec.field(default_factory=lambda: Deadlines(_WATCH_AFTER_S))
    silent: Deadlines | None = None

    def __post_init__(self) -> None:
        self.silent = keep_alive.timer(self.keep_alive_s) if self.keep_alive_s else None


class Exchange:
    """`run` once."""

    __slots__ = (
        *("_client_gone", "_dialect", "_generation", "_head_sent", "_id_header", "_keep_alive", "_over", "_receive", "_send"),
        *("_started", "_streams", "_task", "_timers", "_watching", "due_s"),
    )

    def __init__(self, generation: Generation, dialect: DoorDialect, id_header: bytes, send: Send, timers: Timers) -> None:
        self._id_header = id_header
        self._generation = generation
        self._dialect = dialect
        self._send = send
        self._timers = timers
        self._started = self._head_sent = False
        self._over = False
        self._client_gone = False
        self._keep_alive: KeepAlive | None = None
        self._watching: asyncio.Task[None] | None = None

    async def run(self, receive: Receive, stream: bool) -> GatewayError | None:
        """How it ended: None = the client has the whole answer."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._receive, self._task, self._streams, self.due_s = receive, task, stream, loop.time() + _WATCH_AFTER_S
        self._timers.unwatched.add(self, loop)
        try:
            await self._generation.start()
            await (self._stream() if stream else self._whole())
            return None
        except (Exception, asyncio.CancelledError) as exc:
            error = self._error_of(exc)
            # How it ends is decided: a client that leaves while it is told of that changes nothing any more.
            self._over = True
            self._generation.end(error)
            if not self._client_gone:
                await self._fail(error)
            return error
        finally:
            self._let_go()

    def _error_of(self, exc: BaseException) -> GatewayError:
        if isinstance(exc, GatewayError):
            return exc
        if isinstance(exc, asyncio.CancelledError):
            return ClientGone("The client closed the connection.") if self._client_gone else server_down()
        return own_fault(exc, self._generation.request_id)

    def _let_go(self) -> None:
        self._over = True
        self._timers.unwatched.discard(self)
        if self._keep_alive is not None:
            self._keep_alive.abort()
        if self._watching is not None:
            self._watching.cancel()
        # They know this exchange: without an end to that, all it holds would wait for the collector, which comes seldom.
        self._keep_alive = self._watching = None
        del self._task

    async def _whole(self) -> None:
        answer = self._generation.answer
        self._generation.end(None)
        await respond(self._send, 200, [JSON, *self._headers()], answer.body)

    async def _stream(self) -> None:
        send, generation = self._send, self._generation
        if self._keep_alive is not None:
            await self._keep_alive.settled()
        if not self._started:
            await self._begin()
        while piece := await generation.next_piece():
            if (quiet := self._keep_alive) is not None:
                if quiet.busy:
                    await quiet.settled()
                quiet.spoke()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._say_no_more()
        generation.end(None)
        await send({"type": "http.response.body", "body": generation.tail})

    async def _begin(self) -> None:
        """The head of a stream, with what is known by then."""
        self._started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": [*_SSE, *self._headers()]})
        self._head_sent = True

    async def _fail(self, error: GatewayError) -> None:
        """A status while there is none yet, an event of the stream afterwards."""
        await self._say_no_more()
        error.request_id = self._generation.request_id
        if self._started:
            await self._send({"type": "http.response.body", "body": self._dialect.stream_error(error)})
        else:
            headers = [*error_headers(error), *self._headers()]
            await respond(self._send, error.http_status, headers, self._dialect.error_body(error))

    def _headers(self) -> Headers:
        headers = self._generation.headers()
        if self._id_header:
            headers.append((self._id_header, self._generation.request_id.encode()))
        return headers

    def overdue(self) -> None:
        """See `core.deadlines.Due`: the answer takes its time, so from now on the client is watched, and a stream kept alive."""
        timers = self._timers
        self._watching = asyncio.create_task(self._watch(self._receive, self._task))
        if self._streams and timers.silent is not None:
            self._keep_alive = KeepAlive(self._say, self.due_s - _WATCH_AFTER_S, timers.keep_alive_s, timers.silent)

    async def _say(self) -> None:
        """A comment, between two whole events. From the first one on, a failure is an event of the stream."""
        if not self._started:
            await self._begin()
        if self._head_sent:
            await self._send({"type": "http.response.body", "body": getattr(self._dialect, "KEEP_ALIVE", _COMMENT), "more_body": True})

    async def _say_no_more(self) -> None:
        self._streams = False  # what is sent now may take its time, and no comment is to begin meanwhile
        if self._keep_alive is not None:
            self._keep_alive.stop()
            await self._keep_alive.settled()

    async def _watch(self, receive: Receive, task: asyncio.Task[None]) -> None:
        """Ends the request when its client leaves. The server also says `disconnect` to an answer that is complete."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if not self._over:
            self._client_gone = True
            task.cancel()
