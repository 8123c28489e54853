"""Answers over plain ASGI: their heads, their errors, and what a client dialect has to bring along for them."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from core.chat import ChatRequest, Dialect
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
from gateway.doors import openai_chat
from gateway.doors.body import Receive, Scope, discard

_log = logging.getLogger(__name__)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
_CLOSE = (b"connection", b"close")


class DoorDialect(Dialect, Protocol):
    """A client dialect as a door needs it: a module with these, and five more where it wants them.

    `FIELD_NAMES`: what it calls fields of OpenAI's chat, by which adapters name what they refuse or leave out.
    `FORWARDED`: request headers that pass to a vendor of the same dialect, names in lower case, in `ChatRequest.headers`.
    `REQUEST_ID_HEADER`: what its clients look for beside `x-request-id`.
    `put_prompt`: see `gateway.prompting`, where its messages do not go into `messages` as they are.
    `KEEP_ALIVE`: an event that its clients pass over, where a comment of SSE is not what they are used to.
    """

    def parse(self, body: bytes) -> ChatRequest: ...
    def error_body(self, error: GatewayError) -> bytes: ...
    def stream_error(self, error: GatewayError) -> bytes: ...


def id_header(dialect: DoorDialect) -> bytes:
    name: bytes = getattr(dialect, "REQUEST_ID_HEADER", b"")
    return name


def server_down() -> ServerBusy:
    """For a request that the server cancels: it ends, and waits no longer."""
    return ServerBusy("The server was shut down while it was answering; send the request again.", retry_after_s=1.0)


def own_fault(exc: BaseException, request_id: str) -> GatewayError:
    """For what should not have happened: the log says what it was, and the client under which id."""
    _log.error("request %s failed in the gateway itself", request_id, exc_info=exc)
    return GatewayError("The gateway failed on this request; the log holds the reason under its request id.", detail=repr(exc))


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
        headers += [(name, request_id.encode()) for name in (b"x-request-id", id_header(dialect)) if name]
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
