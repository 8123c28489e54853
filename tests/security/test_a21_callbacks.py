"""A21: `callback_url` of a task, as an attacker would write it. Refused when it is handed in, refused again at the connection; nothing
is followed. What is connected to is loopback alone: for every other address the connect call is stubbed."""

from __future__ import annotations

import socket
import time
from asyncio.selector_events import BaseSelectorEventLoop
from typing import Any

import pytest
from rest_framework.test import APIClient

from access.services import create_api_key
from tasks.models import Task
from telling import signing
from telling.deliveries import Delivery
from telling.delivery import Sender
from tests.security.test_a19_address_forms import FORMS
from tests.telling.rows import a_team

HOSTILE = (
    *(f"https://hooks.example.com:{port}/x" for port in (0, 22, 25, 80, 6379, 65536)),
    *("file:///etc/passwd", "gopher://hooks.example.com/_x", "ftp://hooks.example.com/", "javascript:alert(1)", "//hooks.example.com/x"),
    *("https://user@hooks.example.com/", "https://user:pw@hooks.example.com/", "https://hooks.example.com\\@127.0.0.1/"),
    *("https://hooks.example.com/\r\nHost: other", "https://hooks.example.com/\nx", "https://hooks.example.com/\t", "https://a b/"),
    *("http://hooks.example.com/", "https://", "https://:443/x", "x", " "),
)


@pytest.fixture
def client(db: None) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {create_api_key(name='bot', team=a_team(), scopes=['tasks'])[1]}")
    return client


@pytest.mark.parametrize("url", [*HOSTILE, *(f"{scheme}://{form}/x" for form in FORMS for scheme in ("https", "http"))])
def test_it_is_refused_when_it_is_handed_in(client: APIClient, url: str) -> None:
    answer = client.post("/api/v1/tasks", {"type": "custom", "prompt": "hi", "callback_url": url}, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "callback_not_allowed"), answer.json()
    assert not Task.objects.exists()


async def sent(url: str) -> Any:
    sender = Sender([], 5, time.time)
    try:
        return await sender.send(Delivery("1", "msg_1", None, url, b"{}", 0, 1), [signing.new_secret()])
    finally:
        await sender.close()


@pytest.mark.parametrize("address", sorted(set(FORMS.values())))
@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_a_name_that_leads_there_is_refused_at_the_connection(monkeypatch: pytest.MonkeyPatch, scheme: str, address: str) -> None:
    tried: list[str] = []

    async def connect(loop: Any, sock: socket.socket, to: tuple[Any, ...]) -> None:
        tried.append(to[0])
        raise ConnectionRefusedError(111, "stubbed")

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_, **__: [(family, socket.SOCK_STREAM, 6, "", (address, port))])
    outcome = await sent(f"{scheme}://hooks.test/x")
    assert (tried, outcome.final) == ([], True)
    assert "may not be called" in outcome.error


@pytest.mark.parametrize(
    ("url", "reached"), [("https://hooks.test/x", True), ("http://hooks.test/x", False), ("https://hooks.test:25/x", False)]
)
async def test_of_public_addresses_only_https_and_its_ports(monkeypatch: pytest.MonkeyPatch, url: str, reached: bool) -> None:
    tried: list[Any] = []

    async def connect(loop: Any, sock: socket.socket, to: tuple[Any, ...]) -> None:
        tried.append(to[:2])
        raise ConnectionRefusedError(111, "stubbed")

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", connect)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))]
    )
    outcome = await sent(url)
    assert tried == ([("8.8.8.8", 443)] if reached else [])
    assert outcome.error
