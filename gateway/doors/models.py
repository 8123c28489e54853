"""GET /v1/models: what this key may call, and nothing else. Anthropic's clients, known by their version header, get its shape."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from core.config import CallerSpec, PriceSpec
from core.errors import GatewayError, UnknownModel
from core.money import plain
from gateway import admission
from gateway.doors import anthropic_messages, openai_chat
from gateway.doors.answer import JSON, Send, refuse, require_method, respond
from gateway.doors.body import Receive, Scope
from gateway.doors.http import Gateway
from gateway.router import Target, View, open_targets


class ModelsDoor:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = ""
        anthropic = anthropic_messages.speaks(scope["headers"])
        try:
            pipeline = self._gateway.live()
            request_id = pipeline.request_id()
            require_method(scope, "GET")
            view = pipeline.manager.view
            caller = self._gateway.identify(view, scope)
            admission.require_scope(caller, "models")
            alias = scope["url_route"]["kwargs"].get("alias") if "url_route" in scope else None
            if alias is not None:
                value = (_anthropic_model if anthropic else _model)(*_one(view, caller, alias), pipeline.clock.wall())
            else:
                value = (_anthropic_list if anthropic else _list)(_allowed(view, caller), pipeline.clock.wall())
        except GatewayError as error:
            await refuse(receive, send, error, request_id, anthropic_messages if anthropic else openai_chat)
            return
        headers = [JSON, (b"x-request-id", request_id.encode()), (b"x-llm-config-version", b"%d" % view.snapshot.version)]
        if anthropic:
            headers.append((anthropic_messages.REQUEST_ID_HEADER, request_id.encode()))
        await respond(send, 200, headers, msgspec.json.encode(value))


Offered = tuple[str, tuple[Target, ...]]


def _allowed(view: View, caller: CallerSpec) -> list[Offered]:
    named = ((alias, open_targets(view, caller, alias)) for alias in sorted(view.targets) if caller.may_name(alias))
    return [(alias, targets) for alias, targets in named if targets]


def _one(view: View, caller: CallerSpec, alias: str) -> Offered:
    targets = open_targets(view, caller, alias) if caller.may_name(alias) else ()
    if not targets:
        raise UnknownModel(f"The model {alias[:200]!r} does not exist for this key; GET /v1/models lists those that do.", param="model")
    return alias, targets


def _list(offered: list[Offered], wall_s: float) -> dict[str, Any]:
    return {"object": "list", "data": [_model(*one, wall_s) for one in offered]}


def _anthropic_list(offered: list[Offered], wall_s: float) -> dict[str, Any]:
    """One page, whatever its size was to be: `has_more` tells clients not to ask for another."""
    data = [_anthropic_model(*one, wall_s) for one in offered]
    return {"data": data, "has_more": False, "first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}


def _anthropic_model(alias: str, targets: tuple[Target, ...], wall_s: float) -> dict[str, Any]:
    """https://platform.claude.com/docs/en/api/models: a time of 1970 says that it is not known."""
    first = targets[0].model
    return {
        "type": "model",
        "id": alias,
        "display_name": alias,
        "created_at": datetime.fromtimestamp(first.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": first.context_window,
        "max_tokens": first.max_output_tokens,
    }


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
