"""GET /v1/models: what this key may call, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec

from core.config import CallerSpec, PriceSpec
from core.errors import GatewayError, UnknownModel
from core.money import plain
from gateway import admission
from gateway.doors.http import JSON, Gateway, Receive, Scope, Send, require_method, respond, respond_error
from gateway.router import Target, View


class ModelsDoor:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = ""
        try:
            pipeline = self._gateway.live()
            request_id = pipeline.request_id()
            require_method(scope, "GET")
            view = pipeline.manager.view
            caller = self._gateway.identify(view, scope)
            admission.require_scope(caller, "models")
            alias = scope["url_route"]["kwargs"].get("alias")
            wall_s = pipeline.clock.wall()
            value = _listed(view, caller, wall_s) if alias is None else _one(view, caller, alias, wall_s)
        except GatewayError as error:
            await respond_error(receive, send, error, request_id)
            return
        headers = [JSON, (b"x-request-id", request_id.encode()), (b"x-llm-config-version", b"%d" % view.snapshot.version)]
        await respond(send, 200, headers, msgspec.json.encode(value))


def _listed(view: View, caller: CallerSpec, wall_s: float) -> dict[str, Any]:
    allowed = (alias for alias in sorted(view.targets) if caller.models is None or alias in caller.models)
    return {"object": "list", "data": [_model(alias, view.targets[alias], wall_s) for alias in allowed]}


def _one(view: View, caller: CallerSpec, alias: str, wall_s: float) -> dict[str, Any]:
    if alias not in view.targets or (caller.models is not None and alias not in caller.models):
        raise UnknownModel(f"The model {alias[:200]!r} does not exist for this key; GET /v1/models lists those that do.", param="model")
    return _model(alias, view.targets[alias], wall_s)


def _model(alias: str, targets: tuple[Target, ...], wall_s: float) -> dict[str, Any]:
    """OpenAI's four fields, and what we know beyond them of the first choice."""
    first = targets[0].model
    return {
        "id": alias,
        "object": "model",
        "created": first.created,
        "owned_by": targets[0].provider.name,
        "context_window": first.context_window,
        "max_output_tokens": first.max_output_tokens,
        "capabilities": list(first.capabilities),
        "price_per_million": _price(first.price_at(wall_s)),
    }


def _price(price: PriceSpec | None) -> dict[str, str] | None:
    if price is None:
        return None
    return {
        "currency": price.currency,
        "input": plain(price.input),
        "cached_input": plain(price.cached_input),
        "cache_write": plain(price.cache_write),
        "output": plain(price.output),
    }
