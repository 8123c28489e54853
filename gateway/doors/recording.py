"""Keeps what one client sent and was sent, for API keys that want that. Nothing here waits for anything but the client."""

from __future__ import annotations

from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

from core.config import CallerSpec
from gateway.doors.answer import Send
from monitoring.body_queue import Bodies, BodyQueue


class Recording:
    """Stands in for `send` inside of `with`; at its end, whatever it is, the two bodies go to the queue."""

    def __init__(self, send: Send, queue: BodyQueue, caller: CallerSpec, body: bytes, request_id: str, started_at: float) -> None:
        self._send = send
        self._queue = queue
        self._known = request_id, started_at, caller.key_id
        self._request = body
        self._response = bytearray()
        self._response_bytes = 0

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        await self._send(message)
        piece = message.get("body", b"")
        room = self._queue.max_bytes - len(self._response)
        self._response += piece[:room]
        self._response_bytes += len(piece)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        request = self._request[: self._queue.max_bytes]
        self._queue.put(Bodies(*self._known, request, bytes(self._response), len(self._request), self._response_bytes))
