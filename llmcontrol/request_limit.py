"""Requests in Django's hands: each has a thread of its own, and while the database hangs it keeps that, though its client be gone."""

from __future__ import annotations

from typing import Any

from core.errors import ServerBusy
from gateway.doors.answer import Send, respond_error
from gateway.doors.body import Receive, Scope

_WATCHED_WHEN_BUSY = "/metrics"


class RequestLimit:
    """Hands `app` at most `most` requests at once, beside those for metrics; more are answered 503 at once."""

    def __init__(self, app: Any, most: int) -> None:
        self._app = app
        self._most = most
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == _WATCHED_WHEN_BUSY:
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._most:
            said = f"The admin and REST of this process are answering {self._in_flight} requests, its limit; try again shortly."
            await respond_error(receive, send, ServerBusy(said, retry_after_s=1.0))
            return
        self._in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
