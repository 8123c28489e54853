"""Requests over plain ASGI: no middleware, no framework. What every data-plane route shares."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import msgspec

from core.chat import ChatRequest, Dialect
from core.clock import SystemClock
from core.config import CallerSpec
from core.deadlines import Deadlines
from core.errors import (
    BodyTooLarge,
    BudgetExhausted,
    ClientGone,
    GatewayError,
    InvalidRequest,
    NotAuthenticated,
    ProviderLacksModel,
    ProviderRejectedOurKey,
    RequestTimeout,
    ServerBusy,
)
from gateway import admission
from gateway.doors import openai_chat
from gateway.doors.body import Receive, Scope, discard, read_body
from gateway.idempotency import Abandoned, Flight, Flights, StillRunning
from gateway.pipeline import Generation, Pipeline
from gateway.router import View
from monitoring import metrics

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_log = logging.getLogger(__name__)
JSON = (b"content-type", b"application/json")
_SSE: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
_CLOSE = (b"connection", b"close")
_REPLAYED = (b"x-llm-idempotent-replay", b"true")
_IDEMPOTENCY_TTL_S, _IDEMPOTENCY_BYTES = 600.0, 32 * 2**20
# A watch is a task of its own: an answer that is there at once is spared it, a client that leaves is noticed soon enough.
_WATCH_AFTER_S = 0.05


class Gateway(msgspec.Struct, eq=False):
    """What doors are given: the pipeline, once it is alive, and the bounds of a request."""

    pepper: bytes
    max_body_bytes: int
    body_timeout_s: float
    pipeline: Pipeline | None = None
    flights: Flights = msgspec.field(default_factory=lambda: Flights(SystemClock(), ttl_s=_IDEMPOTENCY_TTL_S, max_bytes=_IDEMPOTENCY_BYTES))
    unwatched: Deadlines = msgspec.field(default_factory=lambda: Deadlines(_WATCH_AFTER_S))
    not_ready_because: str = "the gateway is starting"

    def live(self) -> Pipeline:
        """Raises ServerBusy until the configuration is loaded, and again while draining."""
        if self.pipeline is None:
            raise ServerBusy(f"Not ready: {self.not_ready_because}; try again shortly.", retry_after_s=1.0)
        return self.pipeline

    async def body(self, scope: Scope, receive: Receive) -> bytes:
        """Raises BodyTooLarge, RequestTimeout, ClientGone."""
        return await read_body(scope, receive, self.max_body_bytes, self.body_timeout_s)

    def identify(self, view: View, scope: Scope) -> CallerSpec:
        """Raises NotAuthenticated."""
        presented = admission.credential(scope["headers"], scope["query_string"])
        return admission.identify(view.snapshot, self.pepper, presented, self.live().clock.wall())


class DoorDialect(Dialect, Protocol):
    """A client dialect as a door needs it: a module with these, and three more where it wants them.

    `FIELD_NAMES`: what it calls fields of OpenAI's chat, by which adapters name what they refuse or leave out.
    `FORWARDED`: request headers that pass to a vendor of the same dialect, names in lower case, in `ChatRequest.headers`.
    `REQUEST_ID_HEADER`: what its clients look for beside `x-request-id`.
    """

    def parse(self, body: bytes) -> ChatRequest: ...
    def error_body(self, error: GatewayError) -> bytes: ...
    def stream_error(self, error: GatewayError) -> bytes: ...


class GenerationDoor:
    """POST a body, get an answer or a stream of one, in `dialect`."""

    def __init__(self, gateway: Gateway, dialect: DoorDialect) -> None:
        self._gateway = gateway
        self._dialect = dialect
        self._forwarded: frozenset[bytes] = getattr(dialect, "FORWARDED", frozenset())
        self._id_header = _id_header(dialect)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, caller = "", None
        try:
            pipeline = self._gateway.live()
            request_id = pipeline.request_id()
            require_method(scope, "POST")
            view = pipeline.manager.view
            caller = self._gateway.identify(view, scope)
            body = await self._gateway.body(scope, receive)
            request = self.read(body, scope, view, caller)
        except GatewayError as error:
            if caller is None:
                metrics.ERRORS.labels(error.code).inc()
            else:  # a known caller finds its refusals in the log, even of what could not be read
                Generation(pipeline, view, caller, _unread(self._dialect), request_id).end(error)
            await refuse(receive, send, error, request_id, self._dialect)
            return
        if self._forwarded:
            request.headers = forwarded(scope, self._forwarded)
        generation = Generation(pipeline, view, caller, request, request_id, scope["headers"])
        key = _idempotency_key(scope["headers"])
        if key is None:
            await self._exchange(generation, send).run(receive, request.stream)
        else:
            await self._once(generation, request.stream, (caller.key_id, key, scope["path"].encode() + body), receive, send)

    def _exchange(self, generation: Generation, send: Send) -> _Exchange:
        return _Exchange(generation, self._dialect, send, self._id_header, self._gateway.unwatched)

    async def _once(self, generation: Generation, stream: bool, identity: tuple[str, str, bytes], receive: Receive, send: Send) -> None:
        """With an `Idempotency-Key`: answers where nobody does yet, and otherwise gives what the first one is given."""
        try:
            while True:
                flight, new = self._gateway.flights.board(*identity)
                if new:
                    return await self._lead(flight, generation, stream, receive, send)
                if await self._follow(flight, generation, send):
                    return None
        except GatewayError as error:
            generation.end(error)
            await refuse(receive, send, error, generation.request_id, self._dialect)

    async def _lead(self, flight: Flight, generation: Generation, stream: bool, receive: Receive, send: Send) -> None:
        flights = self._gateway.flights

        async def recorded(message: MutableMapping[str, Any]) -> None:
            flights.record(flight, message)
            await send(message)

        ended: GatewayError | None = ClientGone("Nobody finished this answer.")
        try:
            ended = await self._exchange(generation, recorded).run(receive, stream)
        finally:
            if isinstance(ended, ClientGone):
                flights.abandon(flight)
            else:
                flights.land(flight, ended)

    async def _follow(self, flight: Flight, generation: Generation, send: Send) -> bool:
        """False where the first client left before anything was sent here: then somebody must begin anew."""
        head: MutableMapping[str, Any] | None = None  # goes out with the first of the body: until then another answer is possible
        started = False
        try:
            async for message in flight.follow():
                if head is None:
                    head = {**message, "headers": [*message["headers"], _REPLAYED]}
                    continue
                if not started:
                    started = True
                    await send(head)
                await send({**message})
        except (Abandoned, StillRunning) as broken:
            if not started:
                if isinstance(broken, StillRunning):
                    raise
                return False
            error = ServerBusy("The answer that is shared under this Idempotency-Key broke off; send the request again.")
            generation.end(error)
            await send({"type": "http.response.body", "body": self._dialect.stream_error(error)})
            return True
        generation.end(flight.error)
        return True

    def read(self, body: bytes, scope: Scope, view: View, caller: CallerSpec) -> ChatRequest:
        """For doors whose URL or caller says what the body does not to override. Raises InvalidRequest."""
        return self._dialect.parse(body)


def _idempotency_key(headers: list[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"idempotency-key":
            return value.decode("latin-1")
    return None


def forwarded(scope: Scope, names: frozenset[bytes]) -> tuple[tuple[str, str], ...]:
    """The request's headers of these names, as `ChatRequest.headers` wants them."""
    return tuple((name.decode(), value.decode("latin-1")) for name, value in scope["headers"] if name in names)


def _id_header(dialect: DoorDialect) -> bytes:
    name: bytes = getattr(dialect, "REQUEST_ID_HEADER", b"")
    return name


def _unread(dialect: DoorDialect) -> ChatRequest:
    return ChatRequest(dialect=dialect, model="", stream=False, wants_usage=False, max_output_tokens=None, body_bytes=0, fields={})


class _Exchange:
    """One generation on its way to one client."""

    __slots__ = (
        *(
            "_client_gone",
            "_dialect",
            "_generation",
            "_id_header",
            "_over",
            "_receive",
            "_send",
            "_started",
            "_task",
            "_unwatched",
            "_watching",
        ),
        "due_s",
    )

    def __init__(self, generation: Generation, dialect: DoorDialect, send: Send, id_header: bytes, unwatched: Deadlines) -> None:
        self._id_header = id_header
        self._unwatched = unwatched
        self._generation = generation
        self._dialect = dialect
        self._send = send
        self._started = False
        self._over = False
        self._client_gone = False
        self._watching: asyncio.Task[None] | None = None

    async def run(self, receive: Receive, stream: bool) -> GatewayError | None:
        """How it ended: None = the client has the whole answer."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._receive, self._task, self.due_s = receive, task, loop.time() + _WATCH_AFTER_S
        self._unwatched.add(self, loop)
        generation = self._generation
        try:
            await generation.start()
            await (self._stream() if stream else self._whole())
            return None
        except GatewayError as error:
            generation.end(error)
            await self._fail(error)
            return error
        except asyncio.CancelledError:
            if not self._client_gone:  # the server is going down
                generation.end(ServerBusy("The server was shut down while it was answering."))
                raise
            gone = ClientGone("The client closed the connection.")
            generation.end(gone)
            return gone
        except Exception as exc:
            _log.exception("request %s failed in the gateway itself", generation.request_id)
            fault = GatewayError("The gateway failed on this request; the log holds the reason under its request id.", detail=repr(exc))
            generation.end(fault)
            await self._fail(fault)
            return fault
        finally:
            self._over = True
            self._unwatched.discard(self)
            if self._watching is not None:
                self._watching.cancel()

    async def _whole(self) -> None:
        answer = self._generation.answer
        self._generation.end(None)
        await respond(self._send, 200, [JSON, *self._headers()], answer.body)

    async def _stream(self) -> None:
        send, generation = self._send, self._generation
        self._started = True
        await send({"type": "http.response.start", "status": 200, "headers": [*_SSE, *self._headers()]})
        while piece := await generation.next_piece():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        generation.end(None)
        await send({"type": "http.response.body", "body": generation.tail})

    async def _fail(self, error: GatewayError) -> None:
        """A status while there is none yet, an event of the stream afterwards."""
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
        """See `core.deadlines.Due`: the answer takes its time, so the client is watched from now on."""
        self._watching = asyncio.create_task(self._watch(self._receive, self._task))

    async def _watch(self, receive: Receive, task: asyncio.Task[None]) -> None:
        """Ends the request when its client leaves. The server also says `disconnect` to an answer that is complete."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if not self._over:
            self._client_gone = True
            task.cancel()


def require_method(scope: Scope, *methods: str) -> None:
    """Raises InvalidRequest."""
    if scope["method"] not in methods:
        raise MethodNotAllowed(f"{scope['method']} is not supported here; use {' or '.join(methods)}.")


class MethodNotAllowed(InvalidRequest):
    http_status = 405
    code = "method_not_allowed"


async def refuse(receive: Receive, send: Send, error: GatewayError, request_id: str, dialect: DoorDialect) -> None:
    """Answers a request whose body may be unread: takes in a bounded rest, so that the client gets to read why."""
    if isinstance(error, ClientGone):
        return
    headers = error_headers(error)
    if isinstance(error, BodyTooLarge | RequestTimeout | NotAuthenticated):
        headers.append(_CLOSE)
    if isinstance(error, NotAuthenticated | MethodNotAllowed):
        await discard(receive)
    if request_id:
        error.request_id = request_id
        headers += [(name, request_id.encode()) for name in (b"x-request-id", _id_header(dialect)) if name]
    await respond(send, error.http_status, headers, dialect.error_body(error))


def error_headers(error: GatewayError) -> Headers:
    headers = [JSON]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after_s)))
        headers.append((b"retry-after-ms", b"%d" % math.ceil(error.retry_after_s * 1000)))
    if isinstance(error, BudgetExhausted | ProviderRejectedOurKey | ProviderLacksModel):  # until somebody does something about it
        headers.append((b"x-should-retry", b"false"))
    if isinstance(error, NotAuthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_error(receive: Receive, send: Send, error: GatewayError, request_id: str = "") -> None:
    """For routes without a dialect of their own."""
    await refuse(receive, send, error, request_id, openai_chat)
