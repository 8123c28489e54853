"""WS /ws/generate: several generations at once on one socket, each of which can be cancelled.

client → {"type": "auth", "key": "sk-…"}                      only where no header could carry the key
         {"type": "generate", "id": "a", "request": {…}}     the body of POST /v1/chat/completions
         {"type": "cancel", "id": "a"}
server → {"type": "delta", "id", "index", "text", "delta"}   `delta` is OpenAI's, `text` its content
         {"type": "usage", "id", "usage"}                    where the vendor gave numbers
         {"type": "done", "id", "finish_reason", "model", "provider", "request_id"}
         {"type": "error", "id", "error"}                    OpenAI's error object; ends that generation

A key that is revoked or expires ends the socket and what runs on it, with 4401, within five seconds.
A server that is going down lets what runs on a socket finish, starts nothing new there, and then closes it with 1012.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import msgspec
from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer

from core.config import CallerSpec
from core.errors import ClientGone, GatewayError, InvalidRequest, NotAuthenticated, ServerBusy
from gateway import admission, prompting
from gateway.doors import openai_chat
from gateway.doors.answer import own_fault, server_down
from gateway.doors.http import Gateway
from gateway.doors.routing_fields import routed
from gateway.pipeline import Generation

MAX_GENERATIONS_PER_SOCKET = 20
_AUTH_DEADLINE_S = 10.0
# A change of configuration takes up to two seconds to get here; together they stay well below five.
_LOOKS_AGAIN_S = 2.0
_NOT_AUTHENTICATED, _TOO_LARGE, _BAD_FRAME, _RESTARTS = 4401, 1009, 1003, 1012


class _Frame(msgspec.Struct):
    type: str
    id: str = ""
    key: str = ""
    request: msgspec.Raw = msgspec.Raw(b"")


class _Choice(msgspec.Struct):
    index: int = 0
    delta: dict[str, Any] = msgspec.field(default_factory=dict)
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    """What passes through is checked for what was said alone: a vendor's `model` may be null, its `usage` anything."""

    model: Any = ""
    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: Any = None


_frames = msgspec.json.Decoder(_Frame)
_chunks = msgspec.json.Decoder(_Chunk)


class GenerateConsumer(AsyncWebsocketConsumer):
    """One socket. The key is looked up again for every generation, and every two seconds: a revoked one ends here as elsewhere."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self._gateway = gateway
        self._credential = b""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._auth_timer: asyncio.TimerHandle | None = None
        self._look_timer: asyncio.TimerHandle | None = None
        self._refusal: NotAuthenticated | None = None
        # The server is going down: first it starts nothing new, then it ends what runs.
        self._leaving = self._cut = False
        self._closing: asyncio.Future[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:  # the server waits no longer
            self._cut = True
            await self._end_all()
            await self.close(_RESTARTS)

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Channels' own first visits Django's thread to look after database connections; here there are none to look after."""
        await getattr(self, get_handler_name(message))(message)

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        await self.disconnect(message["code"])
        raise StopConsumer

    async def websocket_shutdown(self, message: dict[str, Any]) -> None:
        """Not ASGI's: the server says so when it accepts nobody any more."""
        self._leaving = True
        if not self._running:
            await self.close(_RESTARTS)

    async def connect(self) -> None:
        if not same_origin(self.scope["headers"]):
            await self.close()
            return
        try:
            self._credential = admission.credential(self.scope["headers"], self.scope["query_string"])
            self._identify()
        except NotAuthenticated:
            if self._credential or self.scope["query_string"]:
                await self.close()
                return
            self._auth_timer = asyncio.get_running_loop().call_later(_AUTH_DEADLINE_S, self._turn_out_soon)
        except ServerBusy:
            await self.close()
            return
        await self.accept()
        if self._auth_timer is None:
            self._look_later()

    def _look_later(self) -> None:
        self._look_timer = asyncio.get_running_loop().call_later(_LOOKS_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        try:
            self._identify()
        except NotAuthenticated as refusal:
            self._refusal = refusal
            self._turn_out_soon()
            return
        except ServerBusy:
            pass  # nobody can say just now
        self._look_later()

    def _turn_out_soon(self) -> None:
        self._closing = asyncio.ensure_future(self._turn_out())

    async def _turn_out(self) -> None:
        await self._end_all()
        await self.close(_NOT_AUTHENTICATED)

    async def disconnect(self, code: int) -> None:
        self._stop_auth_timer()
        if self._look_timer is not None:
            self._look_timer.cancel()
        self._leaving = False  # there is nothing left to close
        await self._end_all()

    async def _end_all(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        data = text_data.encode() if text_data is not None else bytes_data or b""
        if len(data) > self._gateway.max_body_bytes:
            await self.close(_TOO_LARGE)
            return
        try:
            frame = _frames.decode(data)
        except (msgspec.DecodeError, RecursionError):
            await self._say_error("", InvalidRequest("A frame is a JSON object with `type`; see the documentation of /ws/generate."))
            await self.close(_BAD_FRAME)
            return
        try:
            await self._handle(frame)
        except NotAuthenticated as error:
            await self._say_error(frame.id, error)
            await self.close(_NOT_AUTHENTICATED)
        except GatewayError as error:
            await self._say_error(frame.id, error)

    async def _handle(self, frame: _Frame) -> None:
        if not self._credential and frame.type != "auth":
            admission.credential((), b"")  # which refuses, as it does at the handshake
        if frame.type == "auth":
            self._credential = frame.key.encode()
            self._identify()
            if self._auth_timer is not None:
                self._stop_auth_timer()
                self._look_later()
        elif frame.type == "generate":
            self._generate(frame)
        elif frame.type == "cancel":
            task = self._running.get(frame.id)
            if task is None:
                raise InvalidRequest(f"No generation {frame.id[:100]!r} is running on this socket.", param="id")
            task.cancel()
        else:
            raise InvalidRequest(f"Unknown frame type {frame.type[:40]!r}; use auth, generate or cancel.", param="type")

    def _identify(self) -> CallerSpec:
        return self._gateway.caller(self._gateway.live().manager.view, self._credential, self.scope)

    def _generate(self, frame: _Frame) -> None:
        if not frame.id or frame.id in self._running:
            raise InvalidRequest("Give every generation on a socket an `id` of its own.", param="id")
        if self._leaving:
            raise ServerBusy("The server is going down; open another socket.", retry_after_s=1.0)
        if len(self._running) >= MAX_GENERATIONS_PER_SOCKET:
            raise ServerBusy(f"This socket runs {MAX_GENERATIONS_PER_SOCKET} generations, its limit; let one end first.", retry_after_s=1.0)
        caller = self._identify()
        pipeline = self._gateway.live()
        request = routed(openai_chat.parse(bytes(frame.request), force_stream=True))
        view = pipeline.manager.view
        if request.template is not None:
            prompting.expand(request, view, caller, self._gateway.max_body_bytes)
        generation = Generation(pipeline, view, caller, request, pipeline.request_id())
        task = asyncio.create_task(self._run(frame.id, generation))
        self._running[frame.id] = task
        task.add_done_callback(lambda _: self._done(frame.id))

    def _done(self, id_: str) -> None:
        self._running.pop(id_, None)
        if self._leaving and not self._running and not self._cut:
            self._closing = asyncio.ensure_future(self.close(_RESTARTS))

    async def _run(self, id_: str, generation: Generation) -> None:
        try:
            await generation.start()
            finish_reason = model = ""
            while piece := await generation.next_piece():
                for chunk in _chunks_of(piece):
                    model = model or (chunk.model if isinstance(chunk.model, str) else "")
                    finish_reason = await self._say_chunk(id_, chunk) or finish_reason
            generation.end(None)
            await self._say(
                {
                    "type": "done",
                    "id": id_,
                    "finish_reason": finish_reason,
                    "model": model,
                    "provider": generation.provider_name,
                    "request_id": generation.request_id,
                }
            )
        except (Exception, asyncio.CancelledError) as exc:
            error = self._error_of(exc, generation.request_id)
            generation.end(error)
            left = isinstance(exc, asyncio.CancelledError) and self._refusal
            await self._say_error(id_, left or error)

    def _error_of(self, exc: BaseException, request_id: str) -> GatewayError:
        if isinstance(exc, GatewayError):
            return exc
        if isinstance(exc, asyncio.CancelledError):
            return server_down() if self._cut else ClientGone("The client cancelled this generation.")
        return own_fault(exc, request_id)

    async def _say_chunk(self, id_: str, chunk: _Chunk) -> str:
        """Sends what the chunk says; returns its finish reason, if it has one."""
        finish_reason = ""
        for choice in chunk.choices:
            if choice.delta:
                text = choice.delta.get("content") or ""
                await self._say({"type": "delta", "id": id_, "index": choice.index, "text": text, "delta": choice.delta})
            finish_reason = choice.finish_reason or finish_reason
        if isinstance(chunk.usage, dict):
            await self._say({"type": "usage", "id": id_, "usage": chunk.usage})
        return finish_reason

    async def _say(self, value: dict[str, Any]) -> None:
        await self.send(text_data=msgspec.json.encode(value).decode())

    async def _say_error(self, id_: str, error: GatewayError) -> None:
        await self._say({"type": "error", "id": id_, "error": openai_chat.error_value(error)})

    def _stop_auth_timer(self) -> None:
        if self._auth_timer is not None:
            self._auth_timer.cancel()
            self._auth_timer = None


def _chunks_of(piece: bytes) -> list[_Chunk]:
    """A piece is whole events that an adapter has already read strictly: one `data:` line each."""
    return [_chunks.decode(line[5:]) for line in piece.replace(b"\r", b"\n").split(b"\n") if line.startswith(b"data:")]


def same_origin(headers: list[tuple[bytes, bytes]]) -> bool:
    """Browsers send Origin with every socket, and cookies or cached credentials with it; programs send none."""
    values = dict(headers)
    origin = values.get(b"origin")
    return origin is None or urlsplit(origin).netloc == values.get(b"host")
