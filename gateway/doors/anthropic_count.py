"""POST /v1/messages/count_tokens → {"input_tokens"}. `x-llm-token-count` says whether it is exact or estimated.

A vendor that counts for nothing is asked; where there is none, or it fails, we count. The key's scope and limits hold.
"""

from __future__ import annotations

import asyncio

import msgspec

from core.chat import ChatRequest
from core.errors import GatewayError, InvalidRequest, ProviderError
from gateway import admission, prompting
from gateway.doors import anthropic_messages
from gateway.doors.answer import JSON, Send, refuse, require_method, respond
from gateway.doors.body import Receive, Scope
from gateway.doors.counting import within_limits
from gateway.doors.http import Gateway, forwarded
from gateway.doors.routing_fields import routed
from gateway.router import Target, targets_for
from models_registry.tokens import Count, count_conversation
from monitoring import metrics


class MessagesCountDoor:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = ""
        try:
            pipeline = self._gateway.live()
            request_id = pipeline.request_id()
            require_method(scope, "POST")
            view = pipeline.manager.view
            caller = self._gateway.identify(view, scope)
            admission.require_scope(caller, anthropic_messages.SCOPE)
            request = routed(anthropic_messages.parse_to_count(await self._gateway.body(scope, receive)))
            if request.template is not None:
                prompting.expand(request, view, caller, self._gateway.max_body_bytes)
            request.headers = forwarded(scope, anthropic_messages.FORWARDED)
            target = targets_for(view, caller, request)[0]
            async with within_limits(pipeline, caller) as limits:
                count = await _counted(target, request)
        except GatewayError as error:
            metrics.ERRORS.labels(error.code).inc()
            await refuse(receive, send, error, request_id, anthropic_messages)
            return
        headers = [*limits, *target.headers, (b"x-llm-token-count", b"exact" if count.exact else b"estimated")]
        headers += [(name, request_id.encode()) for name in (b"x-request-id", anthropic_messages.REQUEST_ID_HEADER)]
        await respond(send, 200, [JSON, *headers], msgspec.json.encode({"input_tokens": count.tokens}))


async def _counted(target: Target, request: ChatRequest) -> Count:
    if target.runtime.counts_tokens:
        try:
            return Count(await _asked(target, request), True)
        except ProviderError as error:
            if not error.retryable:  # the request is wrong, and would be when it is meant
                raise
    try:
        return await asyncio.to_thread(count_conversation, request.conversation(), target.model.model_id)
    except InvalidRequest:  # only its own vendor can read it
        return Count(request.estimated_input_tokens, False)


async def _asked(target: Target, request: ChatRequest) -> int:
    """Vendors limit counting apart from answering, so what becomes of it says nothing about the key or the breaker."""
    upstream = await target.runtime.acquire(target.model, lambda: target.runtime.spec.timeouts.total_s)
    try:
        return await upstream.count(request, target.model)
    finally:
        upstream.close(None, says_nothing=True)
