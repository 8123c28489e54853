"""A19, A21, A22, G19: no spelling of a forbidden address is connected to, on any way on which an administrator's address is used.

With sockets, loopback alone. All other forms are tried in this process with the connect call stubbed, so that a guard which
fails cannot send a packet.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.core.exceptions import ValidationError

from core.chat import WireCall
from core.errors import GatewayError, OutboundRefused
from core.outbound import Guard, GuardedTransport
from models_registry.services import sync_models
from providers import services
from tests.adapters.cast import quick
from tests.e2e import wire
from tests.e2e.control import unique
from tests.security.house import House, Redirector

PUBLIC = "8.8.8.8"
# How it is spelled → where it leads.
FORMS = {
    "127.0.0.1": "127.0.0.1",
    "127.1": "127.0.0.1",
    "2130706433": "127.0.0.1",
    "0x7f000001": "127.0.0.1",
    "0177.0.0.1": "127.0.0.1",
    "0": "0.0.0.0",
    "0.0.0.0": "0.0.0.0",
    "localhost": "127.0.0.1",
    "127.0.0.1.": "127.0.0.1",
    "①②⑦.⓪.⓪.①": "127.0.0.1",
    "[::1]": "::1",
    "[::ffff:127.0.0.1]": "::ffff:127.0.0.1",
    "[::ffff:0:127.0.0.1]": "::ffff:0:7f00:1",
    "[64:ff9b::7f00:1]": "64:ff9b::7f00:1",
    "[2002:7f00:1::]": "2002:7f00:1::",
    "10.0.0.1": "10.0.0.1",
    "192.168.1.1": "192.168.1.1",
    "100.64.0.1": "100.64.0.1",
    "169.254.169.254": "169.254.169.254",
    "192.0.0.192": "192.0.0.192",
    "198.18.0.1": "198.18.0.1",
    "224.0.0.1": "224.0.0.1",
    "[ff02::1]": "ff02::1",
    "[fd00::1]": "fd00::1",
    "[fe80::1]": "fe80::1",
    "[3fff::1]": "3fff::1",
    "[5f00::1]": "5f00::1",
}
WAYS = ("plain", "redirect", "rebind")
LOOPBACK = [form for form, address in FORMS.items() if address in ("127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1")]


class Wires:
    """The connect call and the resolver of this process, stubbed: the one public address leads to a server that redirects."""

    def __init__(self, redirector: Redirector, address: str) -> None:
        self.redirector, self.address = redirector, address
        self.tried: list[str] = []
        self.lookups = 0
        self._connect = BaseSelectorEventLoop.sock_connect

    async def sock_connect(self, loop: Any, sock: socket.socket, address: tuple[Any, ...]) -> None:
        self.tried.append(address[0])
        if address[0] != PUBLIC:
            raise ConnectionRefusedError(111, "stubbed")
        await self._connect(loop, sock, ("127.0.0.1", self.redirector.port))

    def getaddrinfo(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        """`redirects.test` is public; `rebind.test` is so when it is first asked for; everything else is the form."""
        self.lookups += 1
        public = host == "redirects.test" or (host == "rebind.test" and self.lookups == 1)
        address = PUBLIC if public else self.address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    def forbidden(self) -> list[str]:
        return [address for address in self.tried if address != PUBLIC]


@pytest.fixture(scope="module")
def redirector() -> Iterator[Redirector]:
    running = Redirector()
    yield running
    running.close()


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch, redirector: Redirector) -> Callable[[str], Wires]:
    def stub(address: str) -> Wires:
        made = Wires(redirector, address)
        monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", lambda loop, sock, to: made.sock_connect(loop, sock, to))
        monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
        return made

    return stub


def url(form: str, way: str) -> str:
    if way == "plain":
        return f"http://{form}:8080/v1"
    target = quote(f"http://{form}:8080/v1", safe="")
    return f"http://redirects.test/{target}/v1" if way == "redirect" else "http://rebind.test/v1"


def saved(form: str, way: str) -> Any:
    """A provider with this address, None where it is refused when it is saved."""
    try:
        return services.create_provider(name="p", provider_type="openai_compatible", base_url=url(form, way), secrets=["sk-not-to-be-sent"])
    except ValidationError:
        return None


def tried_out(form: str, way: str) -> None:
    if provider := saved(form, way):
        assert not services.test_connection(provider, "m").ok


def synced(form: str, way: str) -> None:
    if provider := saved(form, way):
        with pytest.raises(GatewayError):
            sync_models(provider, apply=True)


async def _call(form: str, way: str, times: int) -> None:
    transport = GuardedTransport(Guard())
    try:
        for _ in range(times):
            transport._connector.forget()  # as after NAMES_KEPT_S
            try:
                response = await transport.open(WireCall(url(form, way), {}, b"{}"), quick())
                assert response.status == 307
                response.close()
            except GatewayError:
                pass
    finally:
        await transport.close()


SURFACES: dict[str, Callable[[str, str], object]] = {
    "save": saved,
    "test": tried_out,
    "sync": synced,
    "call": lambda form, way: asyncio.run(_call(form, way, 2)),
}


@pytest.mark.django_db
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("form", FORMS)
def test_no_form_is_connected_to(wires: Callable[[str], Wires], form: str, surface: str, way: str) -> None:
    stubbed = wires(FORMS[form])
    SURFACES[surface](form, way)
    if way == "rebind" and surface != "save":
        assert stubbed.lookups, "the name was asked for"
    assert stubbed.forbidden() == []
    if way == "redirect" and surface != "save":
        assert stubbed.tried, "the server that redirects was reached, and what it said was not followed"
    if surface == "save":
        assert stubbed.tried == []


@pytest.mark.django_db
@pytest.mark.parametrize("surface", ["test", "sync"])
def test_a_name_that_turns_between_two_uses_is_caught(wires: Callable[[str], Wires], surface: str) -> None:
    """The first use finds it public and connects; the second meets its new address and does not."""
    stubbed = wires("127.0.0.2")
    provider = saved("unused", "rebind")
    for _ in range(2):
        if surface == "test":
            assert not services.test_connection(provider, "m").ok
        else:
            with pytest.raises(GatewayError):
                sync_models(provider, apply=True)
    assert stubbed.lookups >= 2
    assert PUBLIC in stubbed.tried
    assert stubbed.forbidden() == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "ftp://vendor.test/",
        "ws://vendor.test/",
        "unix:///run/docker.sock",
        "http://user:secret@vendor.test/v1",
        "http://127.0.0.1:11434@evil.test/v1",
        "http://vendor.test/\r\nX-Evil: 1",
        "http://vendor.test/v1?to=x",
        "http://vendor.test/v1#x",
        "http://vendor.test\\@evil.test/",
        "http://vendor.test:99999/",
        "http://[::1/",
        "//vendor.test/v1",
        "javascript:alert(1)",
    ],
)
def test_an_address_that_is_no_plain_http_is_refused_when_it_is_saved(address: str) -> None:
    with pytest.raises(ValidationError) as refused:
        services.create_provider(name="p", provider_type="openai_compatible", base_url=address)
    assert "secret" not in str(refused.value.message_dict["base_url"])


@pytest.mark.parametrize("port", [22, 25, 6379])
@pytest.mark.parametrize("form", LOOPBACK)
def test_no_other_port_of_an_allowed_address_is_reached(wires: Callable[[str], Wires], form: str, port: int) -> None:
    stubbed = wires(FORMS[form])

    async def call() -> None:
        transport = GuardedTransport(Guard([("127.0.0.0/8", 11434), ("::1/128", 11434)]))
        try:
            await transport.open(WireCall(f"http://{form}:{port}/", {}, b"{}"), quick())
        finally:
            await transport.close()

    with pytest.raises(OutboundRefused):
        asyncio.run(call())
    assert stubbed.tried == []


def test_of_ipv6_only_what_is_assigned_as_public_is_public() -> None:
    """A look at the whole space from afar: one address of each /8, and of what lies where IANA has given nothing away."""
    for first in range(256):
        address = ipaddress.IPv6Address(first << 120 | 1)
        if first in range(0x20, 0x40):
            continue
        with pytest.raises(OutboundRefused):
            Guard().check(str(address), 443)


# With sockets ---------------------------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("way", ["plain", "redirect"])
@pytest.mark.parametrize("form", LOOPBACK)
def test_live_nothing_reaches_the_canary(house: House, form: str, way: str) -> None:
    control = house.control
    there = f"http://{form}:{house.canary.port}/v1"
    address = there if way == "plain" else f"http://127.0.0.1:{house.redirector.port}/{quote(there, safe='')}/v1"
    body = {"name": unique("ssrf"), "provider_type": "openai_compatible", "config": {"base_url": address, "api_key": "sk-bait"}}
    answer = wire.call(control.base_url, "POST", "/api/v1/llm/providers", body=body, headers=_as_admin(house))
    if answer.status == 400:
        assert re.search(rb"config\.base_url", answer.body)
        return
    provider = answer.json
    alias = control.model(provider, "m")["alias"]
    control.apply()
    try:
        assert not control.call("POST", f"/api/v1/llm/providers/{provider['id']}/test", {})["ok"]
        refused = wire.call(
            control.base_url, "POST", f"/api/v1/llm/providers/{provider['id']}/sync-models", body={}, headers=_as_admin(house)
        )
        assert refused.status >= 400
        answer = house.ask(alias)
        assert answer.status in (502, 503)
        assert str(house.canary.port) not in answer.error["message"]
    finally:
        control.call("DELETE", f"/api/v1/llm/providers/{provider['id']}")


def _as_admin(house: House) -> dict[str, str]:
    return {"Authorization": f"Token {house.live.admin_token}"}
