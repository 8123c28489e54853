"""WS /ws: what happens to tasks, providers and budgets, as far as the holder may see it.

client → {"type": "auth", "key": "sk-…"} or {"type": "auth", "ticket": "…"}    only where the handshake carried neither
server → {"type": "hello", "seq"}                      where it begins
         {"seq", "type": "task" | "provider" | "alert", "at", "data"}
         {"type": "resync", "seq"}                     events up to this number may be missing: ask REST how things stand

The handshake carries a key as header, or as subprotocols `llmcontrol` and `key.<key>` or `ticket.<ticket>`; `/ws?since=SEQ` resumes.
Closed with 4401 within five seconds after key, token, session or user are no good any more, with 1012 when the server goes down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec
from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError

from core.errors import GatewayError, NotAuthenticated, ServerBusy
from gateway import admission
from gateway.doors.http import Gateway
from gateway.doors.ws import same_origin
from monitoring.threads import DatabaseThread
from telling import events, tickets, topics
from telling.events import Told
from telling.hub import Hub, Listener, Log
from telling.tickets import Holder

T = TypeVar("T")
PROTOCOL = "llmcontrol"
_AUTH_DEADLINE_S = 10.0
_LOOKS_AGAIN_S = 2.0
_SLOW_AFTER_S = 10.0
_MAX_FRAME = 4_096
_NOT_AUTHENTICATED, _BAD_FRAME, _RESTARTS = 4401, 1003, 1012


class Feed(Log):
    """The event log, the tickets and the hub of one process."""

    def __init__(self, poll_s: float) -> None:
        self._database = DatabaseThread("events")
        self._turn = asyncio.Lock()
        self.hub = Hub(self, poll_s)

    async def ask(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await self._database.run(work)

    async def held(self) -> tuple[int, int]:
        return await self.ask(events.held)

    async def after(self, seq: int, most: int, up_to: int | None = None) -> list[Told]:
        return await self.ask(lambda: events.after(seq, most, up_to))

    async def stop(self) -> None:
        await self.hub.stop()
        await self._database.disconnect()


class _Auth(msgspec.Struct, tag_field="type", tag="auth", forbid_unknown_fields=True):
    key: str = ""
    ticket: str = ""


class EventsConsumer(AsyncWebsocketConsumer):
    """One socket. What its holder may hear is asked again every two seconds."""

    def __init__(self, gateway: Gateway, feed: Callable[[], Feed | None]) -> None:
        super().__init__()
        self._gateway = gateway
        self._feed_of = feed
        self._feed: Feed | None = None
        self._credential = b""
        self._holder: Holder | None = None
        self._listener: Listener | None = None
        self._since: int | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._auth_timer: asyncio.TimerHandle | None = None

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Channels' own first visits Django's thread to look after database connections; here there are none to look after."""
        await getattr(self, get_handler_name(message))(message)

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        await self.disconnect(message["code"])
        raise StopConsumer

    async def websocket_shutdown(self, message: dict[str, Any]) -> None:
        """Not ASGI's: the server says so when it accepts nobody any more."""
        await self.close(_RESTARTS)

    async def connect(self) -> None:
        self._feed = self._feed_of()
        if self._feed is None or not same_origin(self.scope["headers"]) or not self._read_since():
            await self.close()
            return
        offered = [str(each) for each in self.scope.get("subprotocols", ())]
        try:
            known = await self._shown(offered)
        except (GatewayError, DatabaseError):
            await self.close()
            return
        await self.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
        if known is not None:
            self._begin(known)
            return
        loop = asyncio.get_running_loop()
        self._auth_timer = loop.call_later(_AUTH_DEADLINE_S, lambda: self._run(self.close(_NOT_AUTHENTICATED)))

    def _read_since(self) -> bool:
        values = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True).get("since", [])
        if not values:
            return True
        if len(values) != 1 or not (values[0].isascii() and values[0].isdecimal() and len(values[0]) < 19):
            return False
        self._since = int(values[0])
        return True

    async def _shown(self, offered: list[str]) -> frozenset[str] | None:
        """What whoever the handshake names may hear; None where it names nobody. Raises NotAuthenticated, ServerBusy, DatabaseError."""
        for each in offered:
            if each.startswith("ticket."):
                return await self._by_ticket(each.removeprefix("ticket."))
            if each.startswith("key."):
                return self._by_key(each.removeprefix("key.").encode())
        headers, query = self.scope["headers"], self.scope["query_string"]
        if any(name in admission.CREDENTIAL_HEADERS for name, _ in headers) or not all(
            part[:6] == b"since=" for part in query.split(b"&") if part
        ):
            return self._by_key(admission.credential(headers, query))
        return None

    def _by_key(self, credential: bytes) -> frozenset[str]:
        caller = self._gateway.caller(self._gateway.live().manager.view, credential, self.scope)
        self._credential = credential
        return topics.of_key(caller)

    async def _by_ticket(self, ticket: str) -> frozenset[str]:
        assert self._feed is not None
        holder = await self._feed.ask(lambda: tickets.redeem(ticket))
        heard = await self._feed.ask(lambda: tickets.topics_of(holder))
        self._holder = holder
        return heard

    def _begin(self, heard: frozenset[str]) -> None:
        assert self._feed is not None
        self._listener = Listener(heard)
        self._feed.hub.join(self._listener, self._since)
        self._run(self._write(self._listener))
        self._run(self._watch(self._listener))

    def _run(self, work: Any) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        data = text_data.encode() if text_data is not None else bytes_data or b""
        try:
            if self._listener is not None or len(data) > _MAX_FRAME:
                raise msgspec.DecodeError
            frame = msgspec.json.decode(data, type=_Auth)
        except (msgspec.DecodeError, RecursionError):
            await self.close(_BAD_FRAME)
            return
        try:
            heard = await self._by_ticket(frame.ticket) if frame.ticket else self._by_key(frame.key.encode())
        except (GatewayError, DatabaseError):
            await self.close(_NOT_AUTHENTICATED)
            return
        if self._auth_timer is not None:
            self._auth_timer.cancel()
        self._begin(heard)

    async def _write(self, listener: Listener) -> None:
        texts_at_once = self.scope.get("extensions", {}).get("websocket.texts")
        while True:
            texts = await listener.next()
            messages: list[dict[str, Any]]
            if texts_at_once is None:
                messages = [{"type": "websocket.send", "text": text.decode()} for text in texts]
            elif texts_at_once["write"](texts):
                continue
            else:
                messages = [{"type": "websocket.texts", "texts": texts}]
            for message in messages:
                try:
                    async with asyncio.timeout(_SLOW_AFTER_S):
                        await self.base_send(message)
                except TimeoutError:
                    # Closing would wait for what it does not take.
                    await self.base_send({"type": "websocket.abort"})
                    return

    async def _watch(self, listener: Listener) -> None:
        assert self._feed is not None
        while True:
            await asyncio.sleep(_LOOKS_AGAIN_S)
            try:
                holder = self._holder
                heard = await self._feed.ask(lambda: tickets.topics_of(holder)) if holder else self._by_key(self._credential)  # noqa: B023
            except NotAuthenticated:
                await self.close(_NOT_AUTHENTICATED)
                return
            except (ServerBusy, DatabaseError):
                continue  # nobody can say just now
            if heard != listener.topics:
                self._feed.hub.move(listener, heard)

    async def disconnect(self, code: int) -> None:
        if self._auth_timer is not None:
            self._auth_timer.cancel()
        if self._listener is not None and self._feed is not None:
            self._feed.hub.leave(self._listener)
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        with suppress(Exception):
            await asyncio.gather(*(task for task in self._tasks if task is not current), return_exceptions=True)
