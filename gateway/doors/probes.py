"""Is the process alive, and may it be sent requests? Answered without Django, so that they say what the data plane sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec

from core.errors import GatewayError, UnknownRoute
from gateway.doors.answer import JSON, Send, require_method, respond, respond_error
from gateway.doors.body import Receive, Scope
from gateway.doors.http import Gateway
from gateway.router import Target


async def health(scope: Scope, receive: Receive, send: Send) -> None:
    """200 as long as the event loop turns."""
    await respond(send, 200, [JSON], b'{"status":"ok"}')


class Ready:
    """503 until migrated, replayed and loaded, and again while draining."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pipeline = self._gateway.pipeline
        if pipeline is None or self._gateway.draining:
            reason = "the gateway is shutting down" if self._gateway.draining else self._gateway.not_ready_because
            body = msgspec.json.encode({"status": "not ready", "reason": reason})
            await respond(send, 503, [JSON, (b"retry-after", b"1")], body)
            return
        snapshot = pipeline.manager.view.snapshot
        await respond(send, 200, [JSON], msgspec.json.encode({"status": "ready", "config_version": snapshot.version}))


class ProviderHealth:
    """GET /api/health: is there anything to answer from? Names the first model that calls get through to."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            require_method(scope, "GET", "HEAD")
            view = self._gateway.live().manager.view
        except GatewayError as error:
            await respond_error(receive, send, error)
            return
        await respond(send, 200, [JSON], msgspec.json.encode(_provider_health(view.targets.values())))


def _provider_health(aliases: Iterable[Sequence[Target]]) -> dict[str, Any]:
    """The body of the contract. Models whose provider is paused or in doubt count as not there."""
    first: Target | None = None
    for target in chain.from_iterable(aliases):
        if not target.runtime.standing.doubt and not target.runtime.paused_s(target.model.model_id):
            return _health_of(target, True, "Ready to answer.")
        first = first or target
    if first is None:
        return _health_of(None, False, "No active model is configured; add one in the admin.")
    return _health_of(first, False, "Every model's provider is failing or at rest; the admin's list of providers says why and until when.")


def _health_of(target: Target | None, available: bool, message: str) -> dict[str, Any]:
    return {
        "status": "ok" if available else "degraded",
        "provider": target.provider.name if target else None,
        "model": target.model.alias if target else None,
        "provider_available": available,
        "message": message,
    }


class Root:
    """HEAD / is how Claude Code sees, without a key and before all else, that somebody is there. The rest is for `site`."""

    def __init__(self, site: Callable[..., Any]) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await respond(send, 200, [JSON], b"")
        else:
            await self._site(scope, receive, send)


class Unknown:
    """What lies under the data plane's prefix and is nothing."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pipeline = self._gateway.pipeline
        request_id = pipeline.request_id() if pipeline else ""
        await respond_error(receive, send, UnknownRoute(f"There is no {scope['path'][:200]!r} here."), request_id)
