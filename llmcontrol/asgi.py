"""The ASGI application: both planes behind one callable, and the data plane's start and stop.

Starting, in this order: journal (ours), replay (what dead processes left), configuration, and only then ready. A database
that is not there, or not migrated, keeps /ready at 503 with the reason, and is tried again; a setting that cannot work ends
the process.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmcontrol.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from django.conf import settings  # noqa: E402

from core.clock import SystemClock  # noqa: E402
from core.errors import ConfigurationError  # noqa: E402
from core.outbound import Guard, GuardedTransport  # noqa: E402
from gateway.config.loader import load  # noqa: E402
from gateway.config.publisher import current_version  # noqa: E402
from gateway.config.states import StatePublisher  # noqa: E402
from gateway.config.watcher import Watcher  # noqa: E402
from gateway.doors.http import Gateway  # noqa: E402
from gateway.idempotency import Flights  # noqa: E402
from gateway.manager import Manager  # noqa: E402
from gateway.pipeline import Pipeline  # noqa: E402
from llmcontrol.routing import data_plane  # noqa: E402
from monitoring.journal import Journal  # noqa: E402
from monitoring.threads import in_thread  # noqa: E402
from monitoring.usage import Drainer, replay  # noqa: E402

_log = logging.getLogger(__name__)
_RETRY_S = 1.0


class DataPlane:
    """Everything of the data plane that must be opened and closed, in one process."""

    def __init__(self, gateway: Gateway) -> None:
        """Raises ConfigurationError."""
        clock = SystemClock()
        self._gateway = gateway
        self._journal = Journal(settings.JOURNAL_DIR, settings.JOURNAL_SEGMENT_BYTES, clock)
        self._transport = GuardedTransport(Guard(settings.OUTBOUND_ALLOW))
        manager = Manager(self._transport, clock, settings.QUEUE_TIMEOUT_S, settings.MAX_CONTEXT_TOKENS)
        self._pipeline = Pipeline(manager, self._journal, clock, max_retries=settings.MAX_RETRIES, max_in_flight=settings.MAX_STREAMS)
        states = StatePublisher(manager.provider_states)
        self._watcher = Watcher(load, current_version, manager.apply, settings.CONFIG_POLL_S, publish=states.due)
        self._drainer = Drainer(settings.JOURNAL_DIR, self._journal, settings.DRAIN_INTERVAL_S)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks.append(asyncio.create_task(self._bring_up()))

    async def stop(self) -> None:
        """Refuses new requests, then writes down what is left."""
        self._gateway.pipeline, self._gateway.not_ready_because = None, "the gateway is shutting down"
        self._tasks[0].cancel()
        await self._watcher.stop()
        await self._transport.close()
        await self._drainer.stop()
        self._journal.close()

    async def _bring_up(self) -> None:
        while True:
            try:
                await in_thread(lambda: replay(settings.JOURNAL_DIR))
                await self._watcher.start()
                break
            except Exception as exc:
                self._gateway.not_ready_because = f"the database is not usable yet ({type(exc).__name__})"
                _log.warning("not ready: %s; trying again in %.0f s", exc, _RETRY_S)
                await asyncio.sleep(_RETRY_S)
        self._tasks.append(asyncio.create_task(self._drainer.run()))
        # What start-up made lives as long as the process: the collector need not look at it again for each request.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 100)
        self._gateway.pipeline = self._pipeline


class Application:
    """uvicorn drives start and stop by the lifespan protocol; a server without it (runserver) starts with its first request."""

    def __init__(self) -> None:
        self._gateway = Gateway(
            pepper=settings.API_KEY_PEPPER,
            max_body_bytes=settings.MAX_BODY_BYTES,
            body_timeout_s=settings.BODY_TIMEOUT_S,
            flights=Flights(SystemClock(), ttl_s=settings.IDEMPOTENCY_TTL_S, max_bytes=settings.IDEMPOTENCY_BYTES),
        )
        self._route = data_plane(self._gateway, django_application, websocket=settings.LLM_ENABLE_WEBSOCKET)
        self._plane: DataPlane | None = None

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._plane is None:
            self._start()
        await self._route(scope, receive, send)

    def _start(self) -> None:
        self._plane = DataPlane(self._gateway)
        self._plane.start()

    async def _lifespan(
        self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]], send: Callable[[MutableMapping[str, Any]], Awaitable[None]]
    ) -> None:
        await receive()
        try:
            self._start()
        except ConfigurationError as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._plane is not None:
            await self._plane.stop()
        await send({"type": "lifespan.shutdown.complete"})


application = Application()
