"""Requests over plain ASGI: no middleware, no framework. What every data-plane route shares."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import msgspec

from core.addresses import Network
from core.chat import ChatRequest
from core.config import CallerSpec
from core.errors import GatewayError, NotAuthenticated, ServerBusy
from gateway import admission, prompting
from gateway.doors.answer import DoorDialect, Send, id_header, refuse, require_method, server_down
from gateway.doors.body import Receive, Scope, read_body
from gateway.doors.exchange import Exchange, Timers
from gateway.doors.idempotent import Idempotency, IdempotentExchange
from gateway.doors.recording import Recording
from gateway.doors.routing_fields import routed
from gateway.pipeline import Generation, Pipeline
from gateway.retry import client_timeout_s
from gateway.router import View
from monitoring import metrics
from monitoring.body_queue import BodyQueue

_OWN = frozenset({b"idempotency-key", b"x-llm-tag", b"x-llm-explain"})
_NO = frozenset({b"", b"0", b"false"})


class Gateway(msgspec.Struct, eq=False):
    """What doors are given: the pipeline, once it is alive, and the bounds of a request."""

    pepper: bytes
    max_body_bytes: int
    body_timeout_s: float
    pipeline: Pipeline | None = None
    idempotency: Idempotency = msgspec.field(default_factory=Idempotency)
    timers: Timers = msgspec.field(default_factory=Timers)
    body_bytes_per_s: int = 0
    not_ready_because: str = "the gateway is starting"
    stale: bool = False  # the database is away: what is not known may all the same exist
    trusted_proxies: Sequence[Network] = ()
    bodies: BodyQueue | None = None  # for keys that want them kept; None = nobody's are
    draining: bool = False  # still serves, and says at /ready that it soon will not

    def live(self) -> Pipeline:
        """Raises ServerBusy until the configuration is loaded, and again while draining."""
        if self.pipeline is None:
            raise ServerBusy(f"Not ready: {self.not_ready_because}; try again shortly.", retry_after_s=1.0)
        return self.pipeline

    async def body(self, scope: Scope, receive: Receive) -> bytes:
        """Raises BodyTooLarge, RequestTimeout, ClientGone, ServerBusy."""
        try:
            return await read_body(scope, receive, self.max_body_bytes, self.body_timeout_s, self.body_bytes_per_s)
        except asyncio.CancelledError:  # nobody else cancels a request that is not being answered yet
            raise server_down() from None

    def identify(self, view: View, scope: Scope) -> CallerSpec:
        """Raises NotAuthenticated, ServerBusy."""
        return self.caller(view, admission.credential(scope["headers"], scope["query_string"]), scope)

    def caller(self, view: View, presented: bytes, scope: Scope) -> CallerSpec:
        """Raises NotAuthenticated, and ServerBusy where nobody can say whether there is such a key."""
        try:
            caller = admission.identify(view.snapshot, self.pepper, presented, self.live().clock.wall())
            if caller.networks:
                admission.require_network(caller, scope, self.trusted_proxies)
            return caller
        except NotAuthenticated:
            if self.stale and not admission.known(view.snapshot, self.pepper, presented):
                raise ServerBusy(
                    "This API key is not known yet, and the database cannot be asked; try again shortly.", retry_after_s=1.0
                ) from None
            raise


class GenerationDoor:
    """POST a body, get an answer or a stream of one, in `dialect`."""

    def __init__(self, gateway: Gateway, dialect: DoorDialect) -> None:
        self._gateway = gateway
        self._dialect = dialect
        self._forwarded: frozenset[bytes] = getattr(dialect, "FORWARDED", frozenset())
        self._id_header = id_header(dialect)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, caller = "", None
        try:
            pipeline = self._gateway.live()
            request_id = pipeline.request_id()
            require_method(scope, "POST")
            view = pipeline.manager.view
            caller = self._gateway.identify(view, scope)
            body = await self._gateway.body(scope, receive)
            request = routed(self.read(body, scope, view, caller))
            if request.template is not None:
                prompting.expand(request, view, caller, self._gateway.max_body_bytes)
        except GatewayError as error:
            if caller is None:
                metrics.ERRORS.labels(error.code).inc()
            else:  # a known caller finds its refusals in the log, even of what could not be read
                Generation(pipeline, view, caller, _unread(self._dialect), request_id).end(error)
            await refuse(receive, send, error, request_id, self._dialect)
            return
        if self._forwarded:
            request.headers = forwarded(scope, self._forwarded)
        key, request.tag, request.explain = _own_headers(scope["headers"])
        generation = Generation(pipeline, view, caller, request, request_id, scope["headers"])
        identity = None if key is None else (caller.key_id, key, scope["path"].encode() + body)
        if caller.store_bodies and self._gateway.bodies is not None:
            asked, begun = (scope["headers"], body), (request_id, pipeline.clock.wall())
            with Recording(send, self._gateway.bodies, caller, asked, begun) as recorded:
                generation.heard = recorded.heard
                await self._answer(generation, request.stream, identity, scope, receive, recorded)
        else:
            await self._answer(generation, request.stream, identity, scope, receive, send)

    def _answer(
        self, generation: Generation, stream: bool, identity: tuple[str, str, bytes] | None, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[Any]:
        """To be awaited. `identity`: of a request that must not be answered anew when it comes again."""
        if identity is None:
            return self._exchange(generation, send).run(receive, stream)
        patience_s = client_timeout_s(scope["headers"])
        once = IdempotentExchange(self._gateway.idempotency, generation, self._dialect, identity, patience_s)
        return once.run(lambda recorded: self._exchange(generation, recorded).run(receive, stream), receive, send)

    def _exchange(self, generation: Generation, send: Send) -> Exchange:
        return Exchange(generation, self._dialect, self._id_header, send, self._gateway.timers)

    def read(self, body: bytes, scope: Scope, view: View, caller: CallerSpec) -> ChatRequest:
        """For doors whose URL or caller says what the body does not to override. Raises InvalidRequest."""
        return self._dialect.parse(body)


def _own_headers(headers: list[tuple[bytes, bytes]]) -> tuple[str | None, str, bool]:
    """The idempotency key, None where there is none; the tag; and whether the answer is to say why its model was chosen."""
    key, tag, explain = None, "", False
    for name, value in headers:
        if name in _OWN:
            if name == b"idempotency-key":
                key = value.decode("latin-1")
            elif name == b"x-llm-tag":
                tag = value.decode("latin-1")
            else:
                explain = value not in _NO
    return key, tag, explain


def forwarded(scope: Scope, names: frozenset[bytes]) -> tuple[tuple[str, str], ...]:
    """The request's headers of these names, as `ChatRequest.headers` wants them."""
    return tuple((name.decode(), value.decode("latin-1")) for name, value in scope["headers"] if name in names)


def _unread(dialect: DoorDialect) -> ChatRequest:
    return ChatRequest(dialect=dialect, model="", stream=False, wants_usage=False, max_output_tokens=None, body_bytes=0, fields={})
