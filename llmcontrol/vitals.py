"""What a worker of tasks tells at a port: whether it lives, whether it is ready, and its metrics. It answers nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from llmcontrol import server
from llmcontrol.draining import DrainingServer

PATHS = frozenset({"/health", "/ready", "/metrics"})
_NOT_FOUND = b"This process works on tasks: it answers /health, /ready and /metrics.\n"
_CLOSES_WITHIN_S = 1.0

Message = MutableMapping[str, Any]


class Vitals:
    """Those paths of another application, and no other. Who may see metrics is that one's affair."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
        if scope["path"] in PATHS:
            await self._application(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
        await send({"type": "http.response.body", "body": _NOT_FOUND})


class _Beside(DrainingServer):
    """A server in a process whose signals are somebody else's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def told(application: Any, sock: socket.socket | None) -> AsyncIterator[None]:
    """How `application` fares is told at `sock` for as long as the block runs; None: nowhere. Thereafter it drains."""
    if sock is None:
        yield
        return
    config = server.config_of(Vitals(application), "WARNING", ws="none", lifespan="off")
    beside = _Beside(config, lambda: application, delay_s=0, grace_s=_CLOSES_WITHIN_S)
    serving = asyncio.create_task(beside.serve(sockets=[sock]))
    try:
        yield
    finally:
        beside.should_exit = True
        await serving
