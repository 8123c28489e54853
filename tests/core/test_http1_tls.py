"""Exchanges over TLS and real sockets: who is trusted, and where an answer ends."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core import errors
from core.chat import WireCall
from core.connector import Connector
from core.guard import Guard
from core.outbound import GuardedTransport, trusting
from tests.adapters.cast import quick
from tests.core.raw_server import HI, LOOPS, OK, RawServer, on


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of `vendor.test` and 127.0.0.1, its own authority, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vendor.test")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("vendor.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = (
        builder.not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    file = tmp_path_factory.mktemp("tls") / "vendor.pem"
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + made.public_bytes(pem))
    return file


def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["http/1.1", "h2"])
    return context


async def local(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@LOOPS
def test_a_trusted_connection_is_verified_and_used_again(loop: Any, certificate: Path) -> None:
    async def scenario() -> None:
        trust = ssl.create_default_context(cafile=certificate)
        async with RawServer(HI, context=serving(certificate), tls=trust, resolve=local) as server:
            for host in ("127.0.0.1", "127.0.0.1", "vendor.test", "vendor.test."):
                response = await server.transport.open(server.call("https", host), quick())
                assert await response.read(2) == b"hi"
            assert len(server.connections) == 3
            body = b"x" * (3 * 2**20)
            response = await server.transport.open(server.call("https", method="POST", body=body), quick(first_byte_s=20))
            assert await response.read(2) == b"hi"
            assert server.requests[-1].endswith(body)

    on(loop, scenario())


@LOOPS
@pytest.mark.parametrize(("host", "trusted"), [("vendor.test", False), ("other.test", True)])
def test_an_untrusted_chain_or_another_host_name_stops_the_request(loop: Any, certificate: Path, host: str, trusted: bool) -> None:
    async def scenario() -> None:
        tls = ssl.create_default_context(cafile=certificate) if trusted else None
        async with RawServer(HI, context=serving(certificate), tls=tls, resolve=local) as server:
            with pytest.raises(errors.ProviderTlsFailed):
                await server.transport.open(server.call("https", host), quick())
            assert server.requests == []
            assert server.transport._pool._slots == {}  # type: ignore[union-attr]

    on(loop, scenario())


@LOOPS
def test_authorities_vouch_for_one_provider_and_for_no_other_at_the_same_address(loop: Any, certificate: Path) -> None:
    ca = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(serialization.Encoding.PEM).decode()

    async def scenario() -> None:
        async with RawServer(HI, context=serving(certificate), resolve=local) as server:
            theirs = trusting(server.transport, ca)
            for _ in range(2):
                assert await (await theirs.open(server.call("https"), quick())).read(2) == b"hi"
            with pytest.raises(errors.ProviderTlsFailed):  # not on the connection that is idle, either
                await server.transport.open(server.call("https"), quick())
            with pytest.raises(errors.ProviderTlsFailed):  # another name is refused as ever
                await theirs.open(server.call("https", "other.test"), quick())
            assert len(server.requests) == 2

    on(loop, scenario())


@LOOPS
def test_authorities_of_ones_own_take_the_place_of_the_systems(loop: Any, certificate: Path) -> None:
    """The transport trusts the server by the system's; a provider that names others does not."""
    other = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, other.public_key(), 1, now, now + datetime.timedelta(hours=1)).sign(other, hashes.SHA256())

    async def scenario() -> None:
        trust = ssl.create_default_context(cafile=certificate)
        async with RawServer(HI, context=serving(certificate), tls=trust, resolve=local) as server:
            ca = made.public_bytes(serialization.Encoding.PEM).decode()
            with pytest.raises(errors.ProviderTlsFailed):
                await trusting(server.transport, ca).open(server.call("https"), quick())
            with pytest.raises(errors.ProviderTlsFailed):  # what came into the database past the forms
                await trusting(server.transport, "no certificate").open(server.call("https"), quick())
            assert server.requests == []

    on(loop, scenario())


@pytest.mark.parametrize("orderly", [True, False])
def test_tls_that_stops_without_its_own_end_is_no_end_of_an_answer(certificate: Path, orderly: bool) -> None:
    """uvloop's TLS, which serves; asyncio's does not tell the two apart."""

    def serve(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with serving(certificate).wrap_socket(accepted, server_side=True) as line:
            line.recv(2**16)
            line.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
            with contextlib.suppress(OSError):  # the other side need not answer in kind
                line.unwrap() if orderly else line.shutdown(socket.SHUT_WR)

    async def scenario() -> None:
        trust = ssl.create_default_context(cafile=certificate)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            served = asyncio.create_task(asyncio.to_thread(serve, listener))
            transport = GuardedTransport(Guard([("127.0.0.0/8", port)]), tls=trust)
            response = await transport.open(WireCall(f"https://127.0.0.1:{port}/", {}, None, "GET"), quick())
            if orderly:
                assert await response.read(10) == b"hello"
            else:
                with pytest.raises(errors.ProviderUnreachable) as caught:
                    await response.read(10)
                assert "without an end of TLS" in (caught.value.detail or "")
            await transport.close()
            await served

    on(uvloop.new_event_loop, scenario())


@LOOPS
def test_a_handshake_that_hangs_is_a_connect_timeout_and_leaves_nothing_open(loop: Any) -> None:
    async def scenario() -> None:
        async with RawServer(b"", early=True) as server:  # never says a word of TLS
            with pytest.raises(errors.ProviderTimeout, match="No connection"):
                await server.get(quick(connect_s=0.5), scheme="https")
            await server.until(lambda: server.ended == 1)
            assert server.transport._pool._slots == {}  # type: ignore[union-attr]

    on(loop, scenario())


async def test_tls_is_new_enough_and_verifies() -> None:
    context = Connector(Guard())._start_tls("")
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@LOOPS
def test_a_whole_answer_over_tls_with_a_slow_reader(loop: Any, certificate: Path) -> None:
    async def scenario() -> None:
        size = 8 * 2**20
        trust = ssl.create_default_context(cafile=certificate)
        async with RawServer(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size, context=serving(certificate), tls=trust) as server:
            response = await server.get(scheme="https")
            await asyncio.sleep(0.05)
            assert len(await response.read(size)) == size

    on(loop, scenario())
