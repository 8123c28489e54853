"""The ASGI application: both planes behind one callable, and the data plane's start and stop.

Starting, in this order: journal (ours), replay (what dead processes left), configuration, and only then ready. A database
that is not there, or not migrated, keeps /ready at 503 with the reason, and is tried again; a setting that cannot work ends
the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmcontrol.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from django.conf import settings  # noqa: E402

from core.clock import SystemClock  # noqa: E402
from core.config import Snapshot  # noqa: E402
from core.errors import ConfigurationError  # noqa: E402
from core.outbound import Guard, GuardedTransport  # noqa: E402
from gateway.budget import Budgets  # noqa: E402
from gateway.cache import Cache  # noqa: E402
from gateway.config.budgets import DatabaseBank  # noqa: E402
from gateway.config.loader import load  # noqa: E402
from gateway.config.probes import DatabaseLedger  # noqa: E402
from gateway.config.publisher import current_version  # noqa: E402
from gateway.config.states import StatePublisher  # noqa: E402
from gateway.config.watcher import Watcher  # noqa: E402
from gateway.doors.exchange import Timers  # noqa: E402
from gateway.doors.http import Gateway  # noqa: E402
from gateway.doors.idempotent import Idempotency  # noqa: E402
from gateway.idempotency import Flights  # noqa: E402
from gateway.listing import Lister  # noqa: E402
from gateway.manager import Manager  # noqa: E402
from gateway.pipeline import Pipeline  # noqa: E402
from gateway.probing import Bounds as ProbeBounds  # noqa: E402
from gateway.probing import Prober  # noqa: E402
from gateway.progress import ProgressNotes  # noqa: E402
from gateway.sharing.answers import Answers  # noqa: E402
from gateway.sharing.entries import Entries  # noqa: E402
from gateway.sharing.machine import joined  # noqa: E402
from gateway.sharing.peers import Alone, Peers  # noqa: E402
from gateway.sharing.together import Together  # noqa: E402
from llmcontrol import memory, tracing  # noqa: E402
from llmcontrol.body_limit import BodyLimit  # noqa: E402
from llmcontrol.migrated import NotMigrated, require_migrated  # noqa: E402
from llmcontrol.request_limit import RequestLimit  # noqa: E402
from llmcontrol.routing import data_plane  # noqa: E402
from monitoring import metrics  # noqa: E402
from monitoring.bodies import BodyStore  # noqa: E402
from monitoring.body_queue import BodyQueue  # noqa: E402
from monitoring.journal import Journal  # noqa: E402
from monitoring.progress import ProgressFiles  # noqa: E402
from monitoring.threads import in_thread  # noqa: E402
from monitoring.usage import Drainer, replay  # noqa: E402
from tasks.dispatcher import Dispatcher, Feed  # noqa: E402
from tasks.endings import Endings  # noqa: E402
from tasks.engine import distributed  # noqa: E402
from tasks.execution import Runner  # noqa: E402
from tasks.signals import submitted  # noqa: E402
from tasks.sync import ProcessSync  # noqa: E402
from telling.alerts.watch import Watch  # noqa: E402
from telling.delivery import Bounds, Deliverer, Sender  # noqa: E402
from telling.signals import webhooks_due  # noqa: E402
from telling.sockets import Feed as EventFeed  # noqa: E402

_log = logging.getLogger(__name__)
_RETRY_S = 1.0
_READY_WITHIN_S = 5.0


class DataPlane:
    """Everything of the data plane that must be opened and closed, in one process."""

    def __init__(self, gateway: Gateway) -> None:
        """Raises ConfigurationError."""
        clock = SystemClock()
        self._gateway = gateway
        self._journal = Journal(settings.JOURNAL_DIR, settings.JOURNAL_SEGMENT_BYTES, clock)
        self._transport = GuardedTransport(Guard(settings.OUTBOUND_ALLOW), min_progress_bytes=settings.MIN_PROGRESS_BYTES)
        self._together = _together(lambda machines: manager.share_among(machines))
        self.peers = self._together.peers
        manager = self._manager = _manager(self._transport, clock, self._together)
        gateway.idempotency.answers = _answers(self.peers, clock)
        self._cache = _cache(self.peers, clock)
        self._progress = ProgressFiles(settings.JOURNAL_DIR, self._journal.token)
        self._bank = DatabaseBank(self._journal.token, settings.BUDGET_LEASE_S)
        self._budgets = Budgets(self._bank, clock, lease_s=settings.BUDGET_LEASE_S, timeout_s=settings.BUDGET_TIMEOUT_S)
        self._lister = Lister(manager.runtimes, self.peers, clock, settings.LIST_INTERVAL_S, settings.LIST_TIMEOUT_S)
        self._tracer = tracing.tracer()
        self._pipeline = self._pipeline_of(manager, clock)
        self._prober = self._prober_of(manager, clock)
        states = StatePublisher(manager.provider_states)
        self._watcher = Watcher(load, current_version, self._apply, settings.CONFIG_POLL_S, publish=states.due, aged=self._aged)
        gateway.bodies = BodyQueue(settings.BODY_MAX_BYTES, settings.BODY_QUEUE_BYTES) if settings.BODY_MAX_BYTES else None
        self._drainer = _drainer(gateway, self._journal, clock)
        self._dispatcher = _dispatcher(gateway, clock)
        self._deliverer = _deliverer(clock)
        self._watch = Watch(
            lambda: self._drainer.backlog_bytes, clock, interval_s=settings.ALERT_INTERVAL_S, keep_days=settings.ALERT_KEEP_DAYS
        )
        self.feed = EventFeed(settings.EVENTS_POLL_S)
        self._tasks: list[asyncio.Task[None]] = []
        self._resting: asyncio.Task[None] | None = None
        self._stopping = False
        # Set once bringing up has worked or failed for the first time.
        self.tried = asyncio.Event()

    def _pipeline_of(self, manager: Manager, clock: SystemClock) -> Pipeline:
        return Pipeline(
            manager,
            self._journal,
            clock,
            max_retries=settings.MAX_RETRIES,
            retry_delay_s=settings.RETRY_DELAY_S,
            max_in_flight=settings.MAX_STREAMS,
            strict=settings.ACCOUNTING == "strict",
            progress=ProgressNotes(self._progress, clock, settings.PROGRESS_INTERVAL_S) if settings.PROGRESS_INTERVAL_S else None,
            budgets=self._budgets,
            budget_output_tokens=settings.BUDGET_OUTPUT_TOKENS,
            cache=self._cache if settings.CACHE_BYTES else None,
            tracer=self._tracer,
        )

    def _prober_of(self, manager: Manager, clock: SystemClock) -> Prober:
        """Probes are requests of their own: not tried again, not counted among those of callers, in no trace and no cache."""
        pipeline = Pipeline(
            manager,
            self._journal,
            clock,
            max_retries=0,
            max_in_flight=settings.MAX_STREAMS,
            strict=settings.ACCOUNTING == "strict",
            budgets=self._budgets,
        )
        bounds = ProbeBounds(settings.PROBE_INTERVAL_S, settings.PROBE_TIMEOUT_S, settings.PROBE_TOKENS)
        return Prober(pipeline, DatabaseLedger(), self.peers, bounds)

    def start(self) -> None:
        self._tasks.append(asyncio.create_task(self._bring_up()))

    def rest(self) -> None:
        """Begins no more tasks; those that run go on."""
        self._resting = self._resting or asyncio.create_task(self._dispatcher.rest())

    async def tasks_done(self) -> None:
        await self._dispatcher.done()

    async def stop(self) -> None:
        """Refuses new requests, then writes down what is left. Tasks that still run go back into the queue."""
        submitted.disconnect(self._wake)
        if self._resting is not None:
            await self._resting
        await self._dispatcher.stop()
        await self._watch.stop()
        webhooks_due.disconnect(self._wake_deliverer)
        await self._deliverer.stop()
        await self.feed.stop()
        self._stopping = True
        self._gateway.pipeline, self._gateway.not_ready_because = None, "the gateway is shutting down"
        self._tasks[0].cancel()
        await self._prober.stop()
        await self._lister.stop()
        await self._watcher.stop()
        await self._cache.stop()
        await self._together.stop()
        await self._transport.close()
        await self._drainer.stop()
        for task in self._tasks[1:]:
            task.cancel()
        await self._bank.stop(drained=not self._drainer.backlog_bytes)
        self._journal.close()
        self._progress.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)

    def _apply(self, snapshot: Snapshot) -> None:
        self._budgets.apply(snapshot)
        self._manager.apply(snapshot)

    def _aged(self, age_s: float) -> None:
        """Is told at each look for how long nobody has known whether the configuration in force is still the right one."""
        metrics.CONFIG_AGE.set(age_s)
        self._gateway.stale = age_s > 0
        if 0 < settings.MAX_CONFIG_AGE_S < age_s:
            self._gateway.pipeline = None
            self._gateway.not_ready_because = f"the database has not been readable for {age_s:.0f} s, longer than LLM_MAX_CONFIG_AGE_S"
        elif self._gateway.pipeline is None and not self._stopping:
            self._gateway.pipeline = self._pipeline

    async def _bring_up(self) -> None:
        await self._together.start()
        while True:
            try:
                await in_thread(require_migrated)
                await in_thread(lambda: replay(settings.JOURNAL_DIR))
                await self._watcher.start()
                break
            except Exception as exc:
                self._gateway.not_ready_because = (
                    str(exc) if isinstance(exc, NotMigrated) else f"the database is not usable yet ({type(exc).__name__})"
                )
                self.tried.set()
                _log.warning("not ready: %s; trying again in %.0f s", exc, _RETRY_S)
                await asyncio.sleep(_RETRY_S)
        self._tasks.append(asyncio.create_task(self._drainer.run()))
        self._tasks.append(asyncio.create_task(self._budgets.run()))
        self._tasks.append(asyncio.create_task(memory.give_back()))
        memory.collect_seldom()
        self._gateway.pipeline = self._pipeline
        self._loop = asyncio.get_running_loop()
        webhooks_due.connect(self._wake_deliverer)
        self._deliverer.start()
        self._watch.start()
        self._lister.start()
        self._prober.start()
        self.feed.hub.start()
        if settings.TASK_CONCURRENCY:
            submitted.connect(self._wake)
            self._dispatcher.start(self._feed())
        self.tried.set()

    def _feed(self) -> Feed | None:
        if not distributed():
            return None
        from tasks import jobs  # what SQLite does without

        return jobs.Feed(
            self._dispatcher.take, concurrency=settings.TASK_CONCURRENCY, poll_s=settings.TASK_POLL_S, silence_s=settings.TASK_LEASE_S
        )

    def _wake(self, **signal: Any) -> None:
        """Tasks are submitted in Django's threads."""
        self._loop.call_soon_threadsafe(self._dispatcher.wake)

    def _wake_deliverer(self, **signal: Any) -> None:
        self._loop.call_soon_threadsafe(self._deliverer.wake)


def _together(on_machines: Callable[[int], None]) -> Together:
    return Together(
        settings.REDIS_ADDRESS,
        settings.API_KEY_PEPPER,
        settings.IDEMPOTENCY_BYTES,
        on_machines,
        max_cache_bytes=settings.CACHE_BYTES,
    )


def _manager(transport: GuardedTransport, clock: SystemClock, together: Together) -> Manager:
    return Manager(
        transport,
        clock,
        settings.QUEUE_TIMEOUT_S,
        settings.MAX_CONTEXT_TOKENS,
        limits=joined(),
        cluster=together.cluster,
        peers=together.peers,
    )


def _answers(peers: Peers, clock: SystemClock) -> Answers | None:
    """None: nobody else serves. Peers keep a value of up to a sixteenth of what they keep in all."""
    if isinstance(peers, Alone):
        return None
    return Answers(peers, clock, ttl_s=settings.IDEMPOTENCY_TTL_S, max_bytes=settings.IDEMPOTENCY_BYTES // 32)


def _cache(peers: Peers, clock: SystemClock) -> Cache:
    cache = Cache(clock, max_bytes=settings.CACHE_BYTES, max_entry_bytes=settings.CACHE_ENTRY_BYTES)
    if not isinstance(peers, Alone):
        # As of idempotent answers: peers keep a value of up to a sixteenth of what they keep in all.
        cache.shared = Entries(peers, clock, max_bytes=settings.CACHE_BYTES // 32)
    return cache


def _drainer(gateway: Gateway, journal: Journal, clock: SystemClock) -> Drainer:
    return Drainer(
        journal,
        settings.DRAIN_INTERVAL_S,
        retention_days=settings.RETENTION_DAYS,
        bodies=BodyStore(gateway.bodies, settings.BODY_RETENTION_DAYS, clock),
    )


def _dispatcher(gateway: Gateway, clock: SystemClock) -> Dispatcher:
    return Dispatcher(
        Runner(gateway, clock.wall, random.Random()),
        clock.wall,
        concurrency=settings.TASK_CONCURRENCY,
        lease_s=settings.TASK_LEASE_S,
        poll_s=settings.TASK_POLL_S,
    )


def _deliverer(clock: SystemClock) -> Deliverer:
    bounds = Bounds(
        per_host=settings.WEBHOOK_PER_HOST,
        timeout_s=settings.WEBHOOK_TIMEOUT_S,
        max_tries=settings.WEBHOOK_TRIES,
        poll_s=settings.WEBHOOK_POLL_S,
        keep_days=settings.WEBHOOK_KEEP_DAYS,
        keep_events_s=settings.EVENTS_KEEP_S,
    )
    return Deliverer(Sender(settings.WEBHOOK_ALLOW, bounds.timeout_s, clock.wall), clock, bounds)


class Application:
    """uvicorn drives start and stop by the lifespan protocol; a server without it (runserver) starts with its first request."""

    def __init__(self) -> None:
        self._gateway = Gateway(
            pepper=settings.API_KEY_PEPPER,
            max_body_bytes=settings.MAX_BODY_BYTES,
            body_timeout_s=settings.BODY_TIMEOUT_S,
            body_bytes_per_s=settings.BODY_BYTES_PER_S,
            idempotency=Idempotency(
                flights=Flights(SystemClock(), ttl_s=settings.IDEMPOTENCY_TTL_S, max_bytes=settings.IDEMPOTENCY_BYTES),
                wait_s=settings.IDEMPOTENCY_WAIT_S,
            ),
            timers=Timers(settings.SSE_KEEPALIVE_S),
            trusted_proxies=settings.TRUSTED_PROXIES,
        )
        # Bodies first: one that is slow to come takes no place.
        self._endings = Endings()
        control = ProcessSync(RequestLimit(django_application, settings.MAX_CONTROL_REQUESTS), self._endings)
        site = BodyLimit(control, settings.MAX_BODY_BYTES, settings.BODY_TIMEOUT_S, settings.BODY_BYTES_PER_S)
        self._route = data_plane(
            self._gateway,
            site,
            websocket=settings.LLM_ENABLE_WEBSOCKET,
            feed=self._events,
            cors_origins=settings.CORS_ORIGINS if settings.ENABLE_CORS else (),
            generate={"max_tokens": settings.MAX_RESPONSE_TOKENS, "temperature": settings.TEMPERATURE},
        )
        self._plane: DataPlane | None = None

    def _events(self) -> EventFeed | None:
        """None: not started, or at its end."""
        return self._plane.feed if self._plane is not None and self.ready else None

    @property
    def ready(self) -> bool:
        return self._gateway.pipeline is not None

    async def tasks_done(self) -> None:
        """Once none is running here."""
        if self._plane is not None:
            await self._plane.tasks_done()

    def drain(self) -> None:
        """/ready says no from now on; requests are served as before, and no task is begun."""
        self._gateway.draining = True
        if self._plane is not None:
            self._plane.rest()

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

    async def opened(self) -> Gateway:
        """The gateway, once it serves: for Python code in this process. Raises ServerBusy where it cannot; ConfigurationError."""
        plane = self._plane or self._start()
        await plane.tried.wait()
        self._gateway.live()
        return self._gateway

    async def closed(self) -> None:
        """Stops what `opened` has started, where no server does it: everything settled is then written down."""
        await self._endings.stop()
        if self._plane is not None:
            await self._plane.stop()
            self._plane = None

    def _start(self) -> DataPlane:
        self._plane = plane = DataPlane(self._gateway)
        plane.start()
        return plane

    async def _lifespan(
        self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]], send: Callable[[MutableMapping[str, Any]], Awaitable[None]]
    ) -> None:
        await receive()
        try:
            plane = self._start()
        except ConfigurationError as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            return
        # A worker that takes another's place is not to refuse what the other would have answered.
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_WITHIN_S):
                await plane.tried.wait()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._endings.stop()
        await plane.stop()
        await send({"type": "lifespan.shutdown.complete"})


application = Application()
