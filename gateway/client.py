"""Models from Python, in the gateway's own process: the same limits, breakers, budgets and metering as over HTTP, without HTTP.

    llm = await get_llm("openai/gpt-4o")                  # provider/model, or an alias
    reply = await llm.chat([{"role": "user", "content": "Hello"}], timeout=30)
    async for text in llm.chat_stream("Tell me a story"): ...

    @llm_function(llm=llm)
    async def sentiment(text: str) -> Literal["good", "bad"]:
        '''How the writer feels.'''

Messages and options are those of POST /v1/chat/completions, `prompt={"id", "version", "variables"}` among them. Every failure is a
`core.errors.GatewayError`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec

from core.chat import ChatRequest, Dialect
from core.config import CallerSpec
from core.conversation import Text, ToolUse
from core.errors import ClientGone, GatewayError, InvalidRequest, ProviderTimeout, UnknownModel
from core.events import Begun, Content, Ended, Result, TextDelta
from core.usage import Usage
from gateway import prompting
from gateway.doors import openai_chat
from gateway.doors.body import Scope
from gateway.doors.http import Gateway
from gateway.doors.routing_fields import routed
from gateway.functions import llm_function
from gateway.pipeline import Generation
from gateway.router import View, open_targets

__all__ = ["Llm", "Reply", "get_llm", "llm_function"]

KEY_VARIABLE = "LLM_API_KEY"
_TIMEOUT_HEADER = b"x-request-timeout-s"
# Where such callers come from, for keys that are bound to networks.
_HERE: Scope = {"client": ("127.0.0.1", 0), "headers": []}
_encode, _decoder = msgspec.json.Encoder().encode, msgspec.json.Decoder(Result)


class Reply(msgspec.Struct, frozen=True):
    """A whole answer. Arguments of `tool_calls` are JSON text, as the model wrote it; `model` is the vendor's own name."""

    text: str
    finish_reason: str
    model: str
    provider: str
    request_id: str
    usage: Usage | None = None
    tool_calls: tuple[ToolUse, ...] = ()

    def __str__(self) -> str:
        return self.text


class _Python:
    """The dialect of this module: requests are OpenAI's, answers our own words."""

    NAME = "python"
    SCOPE = "chat"
    conversation = staticmethod(openai_chat.conversation)

    @staticmethod
    def whole(request: ChatRequest, result: Result) -> bytes:
        return _encode(result)

    @staticmethod
    def stream_writer(request: ChatRequest) -> _Text:
        return _Text()


class _Text:
    """Of a stream, the text alone."""

    def begin(self, begun: Begun) -> bytes:
        return b""

    def write(self, event: Content) -> bytes:
        return event.text.encode() if isinstance(event, TextDelta) else b""

    def end(self, ended: Ended, usage: Usage | None) -> bytes:
        return b""

    def tail(self) -> bytes:
        return b""


_this = cast(Dialect, _Python)


async def get_llm(model: str, *, api_key: str = "", gateway: Gateway | None = None) -> Llm:
    """`model` is an alias, or provider/model. `api_key` is whose limits and budgets count; without one, the variable LLM_API_KEY.

    `gateway` None: the one of this process, which is started if need be. Raises NotAuthenticated, NotPermitted, UnknownModel.
    """
    if gateway is None:
        from gateway.config.local import opened  # it needs a configured Django, which a given gateway does not

        gateway = await opened()
    key = (api_key or os.environ.get(KEY_VARIABLE, "")).encode()
    found, view = gateway, gateway.live().manager.view

    def caller(view: View) -> CallerSpec:
        return found.caller(view, key, _HERE)

    return Llm(gateway, caller, alias_of(view, caller(view), model))


class Llm:
    """One model, for one caller. Cheap; may be kept, and used by several tasks at once."""

    def __init__(self, gateway: Gateway, caller: Callable[[View], CallerSpec], alias: str, *, task_type: str = "") -> None:
        """`caller` is asked before each call, so that a revoked key ends here as it does elsewhere. `task_type` is for the records."""
        self._gateway = gateway
        self._caller = caller
        self.alias = alias
        self._task_type = task_type

    async def chat(self, messages: str | Sequence[Mapping[str, Any]] = (), *, timeout: float | None = None, **options: Any) -> Reply:
        """The whole answer, within `timeout` seconds. With a `prompt`, messages may be left out. Raises GatewayError."""
        generation = self._generation(messages, timeout, {**options, "stream": False})
        with _settled(generation, timeout):
            async with asyncio.timeout(timeout):
                await generation.start()
            return _reply(_decoder.decode(generation.answer.body), generation)

    async def chat_stream(
        self, messages: str | Sequence[Mapping[str, Any]] = (), *, timeout: float | None = None, **options: Any
    ) -> AsyncIterator[str]:
        """The text as it comes; no piece may take longer than `timeout` seconds.

        Whoever stops reading is charged for what came until then: close the iterator (`contextlib.aclosing`). Raises GatewayError.
        """
        generation = self._generation(messages, timeout, {**options, "stream": True})
        with _settled(generation, timeout):
            async with asyncio.timeout(timeout):
                await generation.start()
                piece = await generation.next_piece()
            while piece:
                yield piece.decode()
                async with asyncio.timeout(timeout):
                    piece = await generation.next_piece()

    def _generation(self, messages: str | Sequence[Mapping[str, Any]], timeout_s: float | None, options: dict[str, Any]) -> Generation:
        pipeline = self._gateway.live()
        view = pipeline.manager.view
        asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        try:
            own = {"messages": asked} if asked or "prompt" not in options else {}
            body = _encode({"model": self.alias, **own, **options})
        except (TypeError, ValueError) as exc:
            raise InvalidRequest(f"Messages and options must be what JSON can say: {exc}.") from None
        request, caller = routed(openai_chat.parse(body)), self._caller(view)
        request.dialect, request.task_type = _this, self._task_type or request.task_type
        if request.template is not None:
            prompting.expand(request, view, caller, self._gateway.max_body_bytes)
        headers = [] if timeout_s is None else [(_TIMEOUT_HEADER, b"%f" % timeout_s)]
        return Generation(pipeline, view, caller, request, pipeline.request_id(), headers)


@contextmanager
def _settled(generation: Generation, timeout_s: float | None) -> Iterator[None]:
    try:
        yield
    except GatewayError as error:
        generation.end(error)
        raise
    except TimeoutError:  # the caller's patience: no fault of the vendor
        generation.end(ClientGone("The caller's time was up."))
        raise ProviderTimeout(f"No answer within {timeout_s:g} s, the time this call was given.") from None
    except (asyncio.CancelledError, GeneratorExit):
        generation.end(ClientGone("The caller did not wait for the rest."))
        raise
    except Exception as exc:
        generation.end(GatewayError("The gateway failed on this request; the log holds the reason.", detail=repr(exc)))
        raise
    generation.end(None)


def _reply(result: Result, generation: Generation) -> Reply:
    return Reply(
        text="".join(part.text for part in result.parts if isinstance(part, Text)) + result.refusal,
        finish_reason=result.ended.reason,
        model=result.model,
        provider=generation.provider_name,
        request_id=generation.request_id,
        usage=result.usage,
        tool_calls=tuple(part for part in result.parts if isinstance(part, ToolUse)),
    )


def alias_of(view: View, caller: CallerSpec, model: str) -> str:
    """The name that callers use for `model`. Of provider/model, one of which it is the first target, or else any. Raises UnknownModel."""
    if model in view.targets or "/" not in model:
        return model
    provider, _, model_id = model.partition("/")
    found = [
        (place, alias)
        for alias in view.targets
        if caller.may_name(alias)
        for place, target in enumerate(open_targets(view, caller, alias))
        if target.provider.name == provider and model_id in (target.model.model_id, target.model.alias)
    ]
    if not found:
        raise UnknownModel(f"No model {model_id[:200]!r} at a provider {provider[:200]!r} that this key may use.", param="model")
    return min(found)[1]
