"""Keeps what one client sent and was sent, headers too, for API keys that want that. Nothing here waits for anything but the client."""

from __future__ import annotations

from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

from core.config import CallerSpec
from gateway import kept_headers
from gateway.doors.answer import Headers, Send
from monitoring.body_queue import Bodies, BodyQueue


class Recording:
    """Stands in for `send` inside of `with`; at its end, whatever it is, the two bodies go to the queue.

    `heard` is for the pipeline to fill with what vendors answer.
    """

    def __init__(self, send: Send, queue: BodyQueue, caller: CallerSpec, asked: tuple[Headers, bytes], begun: tuple[str, float]) -> None:
        """`asked`: the request's headers and body; `begun`: its id, and when it came, in wall seconds."""
        self._send = send
        self._queue = queue
        self._known = *begun, caller.key_id
        self._request_headers, self._request = asked
        self._response_headers: Headers = []
        self._response = bytearray()
        self._response_bytes = 0
        self.heard: list[kept_headers.Heard] = []

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        await self._send(message)
        if message["type"] == "http.response.start":
            self._response_headers = message["headers"]
        piece = message.get("body", b"")
        room = self._queue.max_bytes - len(self._response)
        self._response += piece[:room]
        self._response_bytes += len(piece)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        request = self._request[: self._queue.max_bytes]
        headers = kept_headers.kept(self._request_headers, self._response_headers, self.heard)
        self._queue.put(Bodies(*self._known, request, bytes(self._response), len(self._request), self._response_bytes, headers))
