"""What a key's team may is decided once per configuration; here it is obeyed: names, models behind them, networks, open sockets."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import msgspec
import pytest
from channels.testing import WebsocketCommunicator

from access import keys
from core.config import RouteSpec
from core.errors import InvalidRequest, NotAuthenticated, NotPermitted, UnknownModel
from gateway.doors import ws
from gateway.doors.http import Gateway
from gateway.doors.models import ModelsDoor
from gateway.router import View, default_alias, targets_of
from tests.gateway.scripted import KEY, PEPPER, Bench

HEADER = (b"authorization", b"Bearer " + KEY.encode())


def with_caller(bench: Bench, **changes: Any) -> Any:
    """The bench's caller with these changes, in force."""
    bench.caller = msgspec.structs.replace(bench.caller, **changes)
    routes = {"r": RouteSpec("r", ("m",), "", "")}
    snapshot = msgspec.structs.replace(bench.snapshot, callers={keys.digest(PEPPER, KEY.encode()): bench.caller}, routes=routes)
    bench.manager.apply(snapshot)
    return bench.caller


def view(bench: Bench) -> View:
    return bench.manager.view


def names(bench: Bench, alias: str) -> list[str]:
    return [target.provider.name for target in targets_of(view(bench), bench.caller, alias)]


def test_a_barred_model_is_behind_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    with_caller(bench)
    assert names(bench, "m") == names(bench, "r") == ["a", "b"]
    with_caller(bench, barred=frozenset({"m-a"}))
    assert names(bench, "m") == names(bench, "r") == ["b"]
    with_caller(bench, barred=frozenset({"m-a", "m-b"}))
    for alias in ("m", "r"):
        with pytest.raises(UnknownModel):
            names(bench, alias)
    with pytest.raises(InvalidRequest):
        default_alias(view(bench), bench.caller)


def test_a_hidden_name_is_one_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    with_caller(bench, hidden=frozenset({"r"}))
    refusals = []
    for alias in ("r", "no"):
        with pytest.raises(UnknownModel) as refused:
            names(bench, alias)
        refusals.append(refused.value.message.replace(repr(alias), "NAME"))
    assert refusals[0] == refusals[1]
    assert names(bench, "m") == ["a", "b"]


def test_a_name_that_only_this_key_lacks_is_refused_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    with_caller(bench, models=frozenset({"r"}))
    with pytest.raises(NotPermitted):
        names(bench, "m")
    assert names(bench, "r") == ["a", "b"]


async def listed(bench: Bench) -> list[dict[str, Any]]:
    gateway = Gateway(pepper=PEPPER, max_body_bytes=1000, body_timeout_s=1, pipeline=bench.pipeline)
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"method": "GET", "headers": [HEADER], "query_string": b"", "path": "/v1/models"}
    await ModelsDoor(gateway)(scope, None, send)  # type: ignore[arg-type]
    return msgspec.json.decode(b"".join(message.get("body", b"") for message in sent))["data"]


async def test_the_list_of_models_tells_nothing_of_what_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    with_caller(bench, barred=frozenset({"m-a"}), hidden=frozenset({"r"}))
    assert [(model["id"], model["owned_by"]) for model in await listed(bench)] == [("m", "b")]
    with_caller(bench, barred=frozenset({"m-a", "m-b"}), hidden=frozenset())
    assert await listed(bench) == []


@pytest.mark.parametrize(
    ("peer", "forwarded", "accepted"),
    [
        ("10.1.2.3", "", True),
        ("10.2.2.3", "", False),
        ("::ffff:10.1.2.3", "", True),
        ("10.2.2.3", "10.1.2.3", False),  # anybody may write this header
        ("192.0.2.1", "10.1.2.3", True),  # a trusted proxy says it
        ("192.0.2.1", "10.1.2.3, 203.0.113.9", False),  # the proxy saw 203.0.113.9, which claimed the other
        ("192.0.2.1", "203.0.113.9, 10.1.2.3, 192.0.2.7", True),  # through two trusted proxies
        ("192.0.2.1", "unknown", False),
        ("2001:db8::5", "", True),
        ("", "", False),
    ],
)
def test_a_key_of_some_networks_is_unknown_elsewhere(monkeypatch: pytest.MonkeyPatch, peer: str, forwarded: str, accepted: bool) -> None:
    bench = Bench(monkeypatch)
    with_caller(bench, networks=(ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("2001:db8::/32")))
    trusted = [ipaddress.ip_network("192.0.2.0/24")]
    gateway = Gateway(pepper=PEPPER, max_body_bytes=1, body_timeout_s=1, pipeline=bench.pipeline, trusted_proxies=trusted)
    headers = [HEADER, *([(b"x-forwarded-for", forwarded.encode())] if forwarded else [])]
    scope = {"headers": headers, "query_string": b"", "client": (peer, 1) if peer else None}
    if accepted:
        assert gateway.identify(view(bench), scope) is bench.caller
        return
    with pytest.raises(NotAuthenticated) as refused:
        gateway.identify(view(bench), scope)
    with pytest.raises(NotAuthenticated) as unknown:
        gateway.identify(view(bench), {**scope, "headers": [(b"x-api-key", b"sk-nobodys")]})
    assert refused.value.message == unknown.value.message


# Sockets --------------------------------------------------------------------------------------------------------------------


async def open_socket(bench: Bench, *headers: tuple[bytes, bytes]) -> WebsocketCommunicator:
    gateway = Gateway(pepper=PEPPER, max_body_bytes=1000, body_timeout_s=1, pipeline=bench.pipeline)
    socket = WebsocketCommunicator(ws.GenerateConsumer.as_asgi(gateway=gateway), "/ws/generate", headers=list(headers))
    assert (await socket.connect())[0]
    return socket


async def closing_code(socket: WebsocketCommunicator) -> int:
    while (message := await socket.receive_output(timeout=10))["type"] != "websocket.close":
        pass
    return int(message["code"])


def revoke(bench: Bench) -> None:
    bench.manager.apply(msgspec.structs.replace(bench.snapshot, callers={}))


@pytest.mark.parametrize("first_frame", [False, True])
async def test_a_revoked_key_ends_the_socket_that_says_nothing(monkeypatch: pytest.MonkeyPatch, first_frame: bool) -> None:
    monkeypatch.setattr(ws, "_LOOKS_AGAIN_S", 0.01)
    bench = Bench(monkeypatch)
    socket = await open_socket(bench, *(() if first_frame else (HEADER,)))
    if first_frame:
        await socket.send_json_to({"type": "auth", "key": KEY})
    await asyncio.sleep(0)
    assert await socket.receive_nothing(timeout=0.05)  # as long as it holds, nothing happens
    revoke(bench)
    assert await closing_code(socket) == 4401


async def test_it_ends_what_runs_there_and_the_vendors_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws, "_LOOKS_AGAIN_S", 0.01)
    bench = Bench(monkeypatch)
    called = asyncio.Event()

    async def silence() -> Any:
        called.set()
        await asyncio.Event().wait()

    bench.scripts["a"] = [silence]
    socket = await open_socket(bench, HEADER)
    request = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    await socket.send_json_to({"type": "generate", "id": "1", "request": request})
    await called.wait()
    revoke(bench)
    error = await socket.receive_json_from(timeout=10)
    assert (error["type"], error["id"], error["error"]["code"]) == ("error", "1", "invalid_api_key")
    assert await closing_code(socket) == 4401
    assert bench.settled_in_full()


async def test_an_expired_key_ends_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws, "_LOOKS_AGAIN_S", 0.01)
    bench = Bench(monkeypatch)
    with_caller(bench, expires_at=bench.clock.wall() + 60)
    socket = await open_socket(bench, HEADER)
    bench.clock.advance(61)
    assert await closing_code(socket) == 4401


def test_it_looks_often_enough() -> None:
    """A changed row is here within two seconds (tests/e2e/test_changes.py); together that is less than five."""
    assert ws._LOOKS_AGAIN_S + 2 < 5
