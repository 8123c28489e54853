"""Bodies on their way to Django: it writes one of any size to disk, for as long as it may take, before it asks who sends it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from core.errors import GatewayError
from gateway.doors.answer import Send, respond_error
from gateway.doors.body import Receive, Scope, read_body

ANONYMOUS_BYTES = 64 * 2**10
_CREDENTIALS = (b"authorization", b"cookie")


class BodyLimit:
    """Hands `app` whole bodies alone. `max_bytes` is for requests that at least claim to come from somebody."""

    def __init__(self, app: Any, max_bytes: int, timeout_s: float, bytes_per_s: int = 0) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s, self._bytes_per_s = timeout_s, bytes_per_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = any(name in _CREDENTIALS for name, _ in scope["headers"])
        limit = self._max_bytes if known else min(ANONYMOUS_BYTES, self._max_bytes)
        try:
            body = await read_body(scope, receive, limit, self._timeout_s, self._bytes_per_s)
        except GatewayError as error:
            await respond_error(receive, send, error)
            return
        unread: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

        async def given() -> MutableMapping[str, Any]:
            return unread.pop() if unread else await receive()

        await self._app(scope, given, send)
