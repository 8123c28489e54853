"""POST /api/count-tokens: {"text" or "messages", "model"?} → {"tokens", "model", "exact"}. No vendor is asked.

The key's scope and limits hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec

from core.chat import ChatRequest
from core.config import CallerSpec
from core.errors import GatewayError, InvalidRequest
from gateway import admission
from gateway.doors import openai_chat
from gateway.doors.answer import JSON, Send, require_method, respond, respond_error
from gateway.doors.body import Receive, Scope
from gateway.doors.counting import within_limits
from gateway.doors.http import Gateway
from gateway.router import View, default_alias, targets_of
from models_registry.tokens import Count, count_conversation, count_text


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    text: str | None = None
    messages: msgspec.Raw = msgspec.Raw(b"")
    model: str | None = None


_bodies = msgspec.json.Decoder(_Body)


class CountTokensDoor:
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
            admission.require_scope(caller, "chat")
            alias, counting = _wanted(view, caller, await self._gateway.body(scope, receive))
            async with within_limits(pipeline, caller) as limits:
                count = await asyncio.to_thread(counting)
        except GatewayError as error:
            await respond_error(receive, send, error, request_id)
            return
        body = msgspec.json.encode({"tokens": count.tokens, "model": alias, "exact": count.exact})
        await respond(send, 200, [JSON, *limits, (b"x-request-id", request_id.encode())], body)


def _wanted(view: View, caller: CallerSpec, raw: bytes) -> tuple[str, Callable[[], Count]]:
    """The alias that is counted for, and what counts; it takes a while. Raises InvalidRequest, and what `targets_of` does."""
    try:
        raw.decode()
        body = _bodies.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(f"The body cannot be read ({exc}); send text or messages, and model if you like.") from None
    if (body.text is None) == (not body.messages):
        raise InvalidRequest("Send either text or messages, one of the two.", param="text")
    alias = body.model or default_alias(view, caller)
    model_id = targets_of(view, caller, alias)[0].model.model_id
    if body.text is not None:
        return alias, partial(count_text, body.text, model_id)
    request: ChatRequest = openai_chat.parse(msgspec.json.encode({"model": alias, "messages": body.messages}))
    return alias, partial(count_conversation, request.conversation(), model_id)
