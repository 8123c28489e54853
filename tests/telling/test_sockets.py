"""The consumer behind /ws, driven as a server drives it: who is let in, what is sent, when it ends. The log and people are stand-ins."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator

from core.config import CallerSpec
from core.errors import NotAuthenticated
from telling import sockets, tickets
from telling.hub import Hub
from telling.sockets import EventsConsumer
from telling.tickets import Holder
from tests.telling.test_hub import MINE, OTHERS, Written

WAIT_S = 60
CALLER = CallerSpec("1", "bot", "sk", "t", "team", frozenset({"tasks"}))


class Doors:
    """Stands for the gateway: one key, which may be revoked."""

    def __init__(self) -> None:
        self.known = {b"good"}
        self.manager = self
        self.view: Any = None

    def live(self) -> Any:
        return self

    def caller(self, view: Any, presented: bytes, scope: Any) -> CallerSpec:
        if presented not in self.known:
            raise NotAuthenticated("unknown")
        return CALLER


class StandIn(Written):
    def __init__(self) -> None:
        super().__init__()
        self.hub = Hub(self, 0.01)

    async def ask(self, work: Callable[[], Any]) -> Any:
        return work()


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> dict[str, Holder]:
    """Ticket → who holds it, once; a holder who is not `active` any more is nobody."""
    held = {"once": Holder(7, None, "session")}

    def redeem(ticket: str) -> Holder:
        if ticket not in held:
            raise NotAuthenticated("used")
        return held.pop(ticket)

    monkeypatch.setattr(tickets, "redeem", redeem)
    monkeypatch.setattr(tickets, "topics_of", lambda holder: MINE | OTHERS)
    return held


def socket(doors: Doors, feed: StandIn, query: str = "", protocols: tuple[str, ...] = (), **headers: str) -> Any:
    app = EventsConsumer.as_asgi(gateway=doors, feed=lambda: feed)
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "here", **headers}.items()]
    return WebsocketCommunicator(app, "/ws" + query, headers=sent, subprotocols=list(protocols))


async def heard(communicator: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await communicator.receive_from(WAIT_S))
    return found


async def test_a_key_is_let_in_and_hears_what_is_its_own(people: dict[str, Holder]) -> None:
    feed = StandIn()
    feed.write(MINE, 3)
    feed.hub.start()
    for options in ({"authorization": "Bearer good"}, {"protocols": ("llmcontrol", "key.good")}):
        one = socket(Doors(), feed, "?since=2", **options)  # type: ignore[arg-type]
        connected, chosen = await one.connect(WAIT_S)
        assert (connected, chosen) == (True, "llmcontrol" if "protocols" in options else None)
        seq = feed.told[-1].seq
        assert await heard(one) == {"type": "hello", "seq": seq}
        assert (await heard(one))["seq"] == 3
        for told in feed.told[3:]:
            if told.topics == MINE:
                assert (await heard(one))["seq"] == told.seq
        feed.write(OTHERS)
        feed.write(MINE)
        while (await heard(one))["seq"] != feed.told[-1].seq:
            pass
        await one.disconnect()
    await feed.hub.stop()
    assert feed.hub._listeners == {}


async def test_a_ticket_lets_in_once(people: dict[str, Holder]) -> None:
    feed = StandIn()
    feed.hub.start()
    first = socket(Doors(), feed, protocols=("llmcontrol", "ticket.once"))
    assert (await first.connect(WAIT_S))[0]
    assert (await heard(first))["type"] == "hello"
    assert not (await socket(Doors(), feed, protocols=("llmcontrol", "ticket.once")).connect(WAIT_S))[0]
    people["again"] = Holder(7, None, "session")
    by_message = socket(Doors(), feed)
    assert (await by_message.connect(WAIT_S))[0]
    await by_message.send_to(json.dumps({"type": "auth", "ticket": "again"}))
    assert (await heard(by_message))["type"] == "hello"
    await first.disconnect()
    await by_message.disconnect()
    await feed.hub.stop()


@pytest.mark.parametrize(
    ("query", "protocols", "headers"),
    [
        ("", (), {"authorization": "Bearer bad"}),
        ("", ("llmcontrol", "key.bad"), {}),
        ("", ("llmcontrol", "ticket.bad"), {}),
        ("?key=good", (), {}),
        ("?since=x", (), {"authorization": "Bearer good"}),
        ("?since=1&since=2", (), {"authorization": "Bearer good"}),
        ("", (), {"authorization": "Bearer good", "origin": "https://evil.example"}),
        ("", (), {"authorization": "Token good"}),
    ],
)
async def test_others_are_refused_before_the_socket_opens(
    people: dict[str, Holder], query: str, protocols: tuple[str, ...], headers: dict[str, str]
) -> None:
    assert not (await socket(Doors(), StandIn(), query, protocols, **headers).connect(WAIT_S))[0]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ('{"type": "auth", "key": "bad"}', 4401),
        ('{"type": "auth", "ticket": "bad"}', 4401),
        ('{"type": "auth"}', 4401),
        ('{"type": "hello"}', 1003),
        ('{"type": "auth", "x": 1}', 1003),
        ("[" * 100_000, 1003),
    ],
)
async def test_a_first_message_that_names_nobody_ends_it(people: dict[str, Holder], frame: str, code: int) -> None:
    one = socket(Doors(), StandIn())
    assert (await one.connect(WAIT_S))[0]
    await one.send_to(frame)
    assert (await one.receive_output(WAIT_S))["code"] == code


async def test_a_key_that_is_revoked_ends_it(people: dict[str, Holder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_LOOKS_AGAIN_S", 0.01)
    doors, feed = Doors(), StandIn()
    feed.hub.start()
    one = socket(doors, feed, authorization="Bearer good")
    assert (await one.connect(WAIT_S))[0]
    await heard(one)
    doors.known.clear()
    ended = await one.receive_output(WAIT_S)
    assert (ended["type"], ended["code"]) == ("websocket.close", 4401)
    await feed.hub.stop()


async def test_a_socket_that_takes_nothing_is_cut_off(people: dict[str, Holder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_SLOW_AFTER_S", 0.01)
    feed = StandIn()
    feed.hub.start()
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    aborted = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            await asyncio.Event().wait()
        if message["type"] == "websocket.abort":
            aborted.set()

    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": [(b"authorization", b"Bearer good")], "subprotocols": []}
    app = EventsConsumer.as_asgi(gateway=Doors(), feed=lambda: feed)
    running = asyncio.create_task(app(scope, inbox.get, send))
    inbox.put_nowait({"type": "websocket.connect"})
    async with asyncio.timeout(WAIT_S):
        await aborted.wait()
        inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})
        await running
    await feed.hub.stop()


class AtOnce:
    """A server that writes many texts at once, whose client takes something or nothing."""

    def __init__(self, *, takes: bool) -> None:
        self.takes, self.aborted = takes, asyncio.Event()
        self.written: list[bytes] = []
        self.waiting: list[bytes] = []

    def write(self, texts: list[bytes]) -> bool:
        self.written += texts if self.takes else []
        return self.takes

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.texts":
            self.waiting += message["texts"]
            await asyncio.Event().wait()
        if message["type"] == "websocket.abort":
            self.aborted.set()

    async def run(self, feed: StandIn, until: Callable[[], bool]) -> None:
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": [(b"authorization", b"Bearer good")]}
        app = EventsConsumer.as_asgi(gateway=Doors(), feed=lambda: feed)
        running = asyncio.create_task(
            app({**scope, "subprotocols": [], "extensions": {"websocket.texts": {"write": self.write}}}, inbox.get, self.send)
        )
        inbox.put_nowait({"type": "websocket.connect"})
        async with asyncio.timeout(WAIT_S):
            while not until():  # noqa: ASYNC110
                await asyncio.sleep(0)
            inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})
            await running


async def test_where_the_server_can_it_is_given_many_texts_at_once(people: dict[str, Holder]) -> None:
    feed, server = StandIn(), AtOnce(takes=True)
    feed.hub.start()

    def all_told() -> bool:
        if server.written and not feed.told:
            feed.write(MINE, 3)
        return len(server.written) == 4

    await server.run(feed, all_told)
    assert [json.loads(text)["seq"] for text in server.written] == [0, 1, 2, 3]
    assert server.waiting == []
    await feed.hub.stop()


async def test_and_waits_there_for_a_client_that_takes_nothing(people: dict[str, Holder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_SLOW_AFTER_S", 0.01)
    feed, server = StandIn(), AtOnce(takes=False)
    feed.hub.start()
    await server.run(feed, server.aborted.is_set)
    assert [json.loads(text)["type"] for text in server.waiting] == ["hello"]
    await feed.hub.stop()


async def test_a_server_that_goes_down_says_so(people: dict[str, Holder]) -> None:
    feed = StandIn()
    feed.hub.start()
    one = socket(Doors(), feed, authorization="Bearer good")
    assert (await one.connect(WAIT_S))[0]
    await heard(one)
    await one.send_input({"type": "websocket.shutdown"})
    assert (await one.receive_output(WAIT_S))["code"] == 1012
    await one.disconnect()
    await feed.hub.stop()
