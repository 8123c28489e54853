"""Which addresses may be connected to, and that nothing gets around the check.

Only loopback is ever really connected to. Every other address is tested with the connect call stubbed to raise, so that
a guard which fails cannot send a packet.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core import errors
from core.chat import WireCall
from core.outbound import Guard, GuardedTransport, prepared_url
from tests.adapters.cast import quick
from tests.core.raw_server import OK, RawServer
from tests.fault_vendor import FaultVendor

FORBIDDEN_HOSTS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0",
    "0.0.0.0",
    "①②⑦.⓪.⓪.①",
    "127.0.0.1.",
    "localhost",
    "localhost.",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::a00:1]",
    "[2002:7f00:1::]",
    "[::7f00:1]",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.0.1",
    "169.254.169.254",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[ff02::1]",
    "[fd00::1]",
    "[fe80::1]",
    "[fec0::1]",
    "[2001::1]",
    "[2001:db8::1]",
]
METADATA = [
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "fd00:ec2::254",
    "192.0.0.192",
    "100.100.100.200",
    "168.63.129.16",
]


@pytest.fixture
def no_connect(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses that would have been connected to."""
    reached: list[Any] = []

    async def refuse(self: Any, sock: socket.socket, address: Any) -> None:
        reached.append(address)
        raise ConnectionRefusedError(111, "stubbed")

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", refuse)
    return reached


class Names:
    """A DNS that gives these answers, one after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def call(url: str, **headers: str) -> WireCall:
    return WireCall(url, {"Content-Type": "application/json", **headers}, b'{"model": "ok", "messages": []}')


async def open_and_close(url: str, *, resolve: Names | None = None, allow: list[tuple[str, int | None]] | None = None) -> None:
    transport = GuardedTransport(Guard(allow or []), resolve=resolve)
    try:
        (await transport.open(call(url), quick())).close()
    finally:
        await transport.close()


@pytest.mark.parametrize("host", FORBIDDEN_HOSTS)
async def test_an_address_that_is_not_public_is_refused_in_every_spelling(host: str, no_connect: list[Any]) -> None:
    with pytest.raises(errors.OutboundRefused) as caught:
        await open_and_close(f"http://{host}:8080/v1/chat/completions", resolve=Names(["127.0.0.1"]))  # asked for names alone
    assert no_connect == []
    assert not caught.value.blames_provider
    assert caught.value.http_status == 502


@pytest.mark.parametrize("host", ["8.8.8.8", "1.1.1.1", "[2606:4700:4700::1111]"])
async def test_a_public_address_is_connected_to(host: str, no_connect: list[Any]) -> None:
    with pytest.raises(errors.ProviderUnreachable):
        await open_and_close(f"http://{host}/")
    assert no_connect[0][0] == host.strip("[]")


@pytest.mark.parametrize("address", METADATA)
def test_metadata_is_never_reached_even_if_allowed(address: str) -> None:
    guard = Guard([("0.0.0.0/0", None), ("::/0", None)])
    with pytest.raises(errors.OutboundRefused, match="metadata"):
        guard.check(address, 80)


def test_what_is_allowed_is_a_network_and_a_port() -> None:
    guard = Guard([("127.0.0.0/8", 11434), ("10.1.0.0/16", None), ("fd00:1::/64", 443)])
    for address, port in [
        ("127.0.0.1", 11434),
        ("127.9.9.9", 11434),
        ("::ffff:127.0.0.1", 11434),
        ("10.1.2.3", 1),
        ("fd00:1::5", 443),
        ("fd00:1::5%eth0", 443),
    ]:
        guard.check(address, port)
    for address, port in [("127.0.0.1", 11435), ("10.2.0.1", 80), ("fd00:2::5", 443), ("::1", 11434), ("64:ff9b::7f00:1", 11434)]:
        with pytest.raises(errors.OutboundRefused, match="OUTBOUND_ALLOW"):
            guard.check(address, port)


def test_a_refusal_tells_the_operator_what_to_add_and_the_caller_no_address() -> None:
    with pytest.raises(errors.OutboundRefused) as caught:
        Guard().check("10.0.0.5", 8000)
    assert "10.0.0.5" not in caught.value.message
    assert "add 10.0.0.5/32:8000 to OUTBOUND_ALLOW" in str(caught.value.detail)


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(errors.OutboundRefused):
        Guard([("0.0.0.0/0", None)]).check("localhost", 80)


@pytest.mark.parametrize("addresses", [["127.0.0.2"], ["10.0.0.1", "::1"], ["127.0.0.2", "127.0.0.3", "::1"]])
async def test_a_name_is_judged_by_its_addresses(addresses: list[str], no_connect: list[Any]) -> None:
    with pytest.raises(errors.OutboundRefused):
        await open_and_close("https://evil.test/v1", resolve=Names(addresses))
    assert no_connect == []


async def test_of_mixed_addresses_only_the_public_ones_are_tried(no_connect: list[Any]) -> None:
    with pytest.raises(errors.ProviderError):
        await open_and_close("http://mixed.test/v1", resolve=Names(["127.0.0.2", "8.8.8.8", "10.0.0.1"]))
    assert {address for address, _ in no_connect} == {"8.8.8.8"}


async def test_a_name_that_changes_its_mind_is_caught(no_connect: list[Any]) -> None:
    names = Names(["8.8.8.8"], ["127.0.0.2"])
    transport = GuardedTransport(Guard(), resolve=names)
    with pytest.raises(errors.ProviderUnreachable):
        await transport.open(call("http://rebind.test/"), quick())
    transport._connector.forget()
    with pytest.raises(errors.OutboundRefused):
        await transport.open(call("http://rebind.test/"), quick())
    await transport.close()
    assert names.asked == ["rebind.test", "rebind.test"]
    assert [address for address, _ in no_connect] == ["8.8.8.8"]


@pytest.mark.parametrize("url", ["http://127.0.0.1.evil.test:{port}/", "http://evil.test:{port}/127.0.0.1"])
async def test_looking_like_an_allowed_address_is_not_enough(url: str, no_connect: list[Any]) -> None:
    with pytest.raises(errors.ProviderUnreachable):
        await open_and_close(url.format(port=11434), resolve=Names(["8.8.8.8"]), allow=[("127.0.0.0/8", 11434)])
    assert no_connect[0][0] == "8.8.8.8"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:11434@evil.test/",
        "https://user:secret@vendor.test/v1",
        "https://user@vendor.test/v1",
        "file:///etc/passwd",
        "gopher://vendor.test/",
        "ftp://vendor.test/",
        "ws://vendor.test/",
        "unix:///run/docker.sock",
        "vendor.test/v1",
        "//vendor.test/v1",
        "/v1",
        "",
        "http://",
        "http:///v1",
        "http://vendor.test:99999/",
        "http://vendor.test:port/",
        "http://[::1/",
        "http://vendor.test/\r\nX-Evil: 1",
        "http://vendor.test/a b",
        "http://vendor.test\t/",
        "http://vendor.test/\x00",
    ],
)
async def test_a_url_must_be_plain_http_with_a_host(url: str, no_connect: list[Any]) -> None:
    with pytest.raises(errors.OutboundRefused) as caught:
        await open_and_close(url)
    assert "secret" not in f"{caught.value.message}{caught.value.detail}"
    assert no_connect == []


def test_a_prepared_url_keeps_path_and_query() -> None:
    assert str(prepared_url("https://Vendor.test/v1/a%2Fb?x=1&api-version=2")) == "https://vendor.test/v1/a%2Fb?x=1&api-version=2"


@pytest.fixture
async def vendor() -> AsyncIterator[FaultVendor]:
    async with FaultVendor() as running:
        yield running


@pytest.fixture
async def transport(vendor: FaultVendor) -> AsyncIterator[GuardedTransport]:
    transport = GuardedTransport(Guard([("127.0.0.0/8", vendor.port), ("::1/128", vendor.port)]))
    yield transport
    await transport.close()


async def test_a_redirect_is_an_answer_not_an_order(vendor: FaultVendor, transport: GuardedTransport) -> None:
    url = vendor.base_url + "/chat/completions"
    body = b'{"model": "fault-redirect@to=/_elsewhere", "messages": []}'
    response = await transport.open(WireCall(url, {}, body), quick())
    assert response.status == 307
    assert response.headers["location"] == "/_elsewhere"
    response.close()
    assert vendor.unexpected == []


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login from password netrc\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")


@pytest.mark.usefixtures("proxies")
async def test_proxies_and_netrc_of_the_environment_are_ignored(vendor: FaultVendor, transport: GuardedTransport) -> None:
    response = await transport.open(call(vendor.base_url + "/chat/completions"), quick())
    assert response.status == 200
    await response.read(2**16)
    assert vendor.ledger[0]["key_last4"] == ""


async def test_status_type_and_headers_are_read(vendor: FaultVendor) -> None:
    async with RawServer(OK + b"Content-Length: 2\r\n\r\nhi") as server:
        response = await server.get()
        assert (response.status, response.content_type, response.headers["x-request-id"]) == (200, "text/event-stream", "7")
        assert await response.read(2) == b"hi"
        head = server.requests[0].lower()
    assert b"accept-encoding: identity" in head
    assert b"aiohttp" not in head
    assert b"cookie" not in head


async def test_cookies_are_not_kept() -> None:
    async with RawServer(OK + b"Set-Cookie: a=1\r\nContent-Length: 0\r\n\r\n") as server:
        for _ in range(2):
            assert await (await server.get()).read(10) == b""
        assert b"cookie" not in server.requests[1].lower()


async def test_a_body_over_the_limit_is_cut_off() -> None:
    async with RawServer(OK + b"Content-Length: 11\r\n\r\nhello world") as server:
        with pytest.raises(errors.ProviderNonsense, match="longer than 10 bytes"):
            await (await server.get()).read(10)


async def test_more_headers_than_a_hundred_are_nonsense() -> None:
    async with RawServer(OK + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"Content-Length: 0\r\n\r\n") as server:
        with pytest.raises(errors.ProviderNonsense):
            await server.get()


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x01\x02\x03\r\n\r\n", b"HTTP/1.1 banana\r\n\r\n"])
async def test_what_does_not_speak_http_is_nonsense(answer: bytes) -> None:
    async with RawServer(answer, close=True) as server:
        with pytest.raises(errors.ProviderNonsense, match="not valid HTTP"):
            await server.get()


async def test_a_bad_encoding_is_a_typed_error() -> None:
    async with RawServer(OK + b"Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\nnotgzip", close=True) as server:
        with pytest.raises(errors.ProviderError):
            await (await server.get()).read(100)


async def test_a_connection_closed_without_an_answer_is_unreachable() -> None:
    async with RawServer(b"", close=True) as server:
        with pytest.raises(errors.ProviderUnreachable):
            await server.get()


async def test_headers_that_come_too_slowly_are_a_timeout() -> None:
    async with RawServer(b"HTTP/1.1 200 OK\r\nX-Slow: ") as server:
        with pytest.raises(errors.ProviderTimeout, match=r"begin to answer within 0\.1 seconds"):
            await server.get(quick(first_byte_s=0.1))


async def test_a_reader_that_pauses_is_not_the_vendors_silence() -> None:
    async with RawServer(OK + b"Content-Length: 2\r\n\r\nhi") as server:
        response = await server.get(quick(idle_s=0.05))
        await asyncio.sleep(0.15)
        assert await response.read(10) == b"hi"


async def test_a_refused_connection_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(errors.ProviderUnreachable, match="refused") as caught:
        await open_and_close(f"http://127.0.0.1:{port}/", allow=[("127.0.0.0/8", port)])
    assert type(caught.value) is errors.ProviderUnreachable


async def test_a_connection_that_hangs_is_a_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(self: Any, sock: socket.socket, address: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", hang)
    transport = GuardedTransport(Guard())
    with pytest.raises(errors.ProviderTimeout, match=r"No connection to the provider within 0\.05 seconds"):
        await transport.open(call("http://8.8.8.8/"), quick(connect_s=0.05))
    await transport.close()


async def test_a_name_without_an_address_is_unreachable(no_connect: list[Any]) -> None:
    class Nowhere(Names):
        async def __call__(self, host: str, port: int) -> list[str]:
            raise OSError(-2, "Name or service not known")

    with pytest.raises(errors.ProviderUnreachable, match="does not resolve"):
        await open_and_close("http://nowhere.test/", resolve=Nowhere([]))


async def test_a_line_break_in_a_header_is_refused_without_repeating_it(vendor: FaultVendor, transport: GuardedTransport) -> None:
    with pytest.raises(errors.OutboundRefused) as caught:
        await transport.open(call(vendor.base_url + "/chat/completions", Authorization="Bearer sk-secret\r\nX-Evil: 1"), quick())
    assert "sk-secret" not in f"{caught.value.message}{caught.value.detail}"


async def test_plain_http_on_an_https_address_is_a_tls_failure() -> None:
    async with RawServer(b"HTTP/1.1 400 Bad Request\r\n\r\n", close=True) as server:
        with pytest.raises(errors.ProviderTlsFailed):
            await server.get(scheme="https")


async def test_the_transport_opens_nothing_before_its_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = GuardedTransport(Guard())
    assert transport._pool is None
    await transport.close()
    await transport.close()
