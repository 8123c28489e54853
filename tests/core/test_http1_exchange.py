"""Whole exchanges over real sockets, plain and TLS: reuse, cancellation, bounds on memory, uploads, compressed answers."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gzip
import ipaddress
import socket
import ssl
import zlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core import errors, http1_connection
from core.chat import WireCall
from core.connector import Connector
from core.guard import Guard
from core.outbound import GuardedTransport, trusting
from tests.adapters.cast import quick
from tests.core.raw_server import OK, RawServer

HI = OK + b"Content-Length: 2\r\n\r\nhi"
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


def on(loop: Callable[[], asyncio.AbstractEventLoop], scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario)


@LOOPS
def test_calls_one_after_the_other_share_a_connection(loop: Any) -> None:
    async def scenario() -> None:
        chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        async with RawServer(HI, chunked, HI, OK + b"Content-Length: 0\r\n\r\n", HI) as server:
            for expected in (b"hi", b"hi", b"hi", b"", b"hi"):
                response = await server.post(b'{"a": 1}')
                assert await response.read(10) == expected
                response.close()
            assert len(server.connections) == 1
            assert server.requests[0].startswith(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % server.port)
            assert server.requests[0].endswith(b'\r\nContent-Length: 8\r\n\r\n{"a": 1}')

    on(loop, scenario())


@LOOPS
@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n\r\n", OK + b"Connection: close\r\n\r\n"])
def test_an_answer_may_end_with_its_connection(loop: Any, head: bytes) -> None:
    async def scenario() -> None:
        async with RawServer(head + b"hello" * 100_000, close=True) as server:
            for _ in range(2):
                assert await (await server.get()).read(10**6) == b"hello" * 100_000
            assert len(server.connections) == 2

    on(loop, scenario())


@LOOPS
def test_an_answer_that_is_cut_short_is_unreachable(loop: Any) -> None:
    async def scenario() -> None:
        async with RawServer(OK + b"Content-Length: 100\r\n\r\nhello", close=True) as server:
            with pytest.raises(errors.ProviderUnreachable, match="broke before its answer was complete"):
                await (await server.get()).read(100)

    on(loop, scenario())


async def test_an_answer_that_was_not_read_to_its_end_costs_the_connection() -> None:
    async with RawServer(OK + b"Content-Length: 3\r\n\r\nhi", HI) as server:
        (await server.get()).close()
        assert await (await server.get()).read(2) == b"hi"
        assert len(server.connections) == 2


async def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    async with RawServer(HI) as server:
        for _ in range(2):
            assert await (await server.post(b"")).read(2) == b"hi"
            server.connections[-1].close()
            await server.until(lambda: not server.transport._pool._open)
        assert len(server.connections) == 2


async def test_the_socket_itself_is_asked_after_a_while() -> None:
    async with RawServer(HI) as server:
        assert await (await server.get()).read(2) == b"hi"
        pool = server.transport._pool
        (connection,) = pool._open
        now = asyncio.get_running_loop().time()
        assert connection.usable(now + 10)
        connection._transport.pause_reading()  # the loop learns nothing from here on
        server.connections[0].write(b"x")
        await server.until(lambda: not connection.usable(now + 10))
        assert connection.usable(now)
        connection._transport.resume_reading()


async def test_what_can_be_asked_twice_is_asked_again_when_an_idle_connection_dies() -> None:
    async with RawServer(HI, None, HI, None) as server:
        for _ in range(2):
            assert await (await server.get()).read(2) == b"hi"
        assert len(server.connections) == 2
        with pytest.raises(errors.ProviderUnreachable, match="broke"):  # once, not for ever
            await server.get()
        assert len(server.connections) == 3


async def test_a_generation_is_never_asked_for_twice() -> None:
    async with RawServer(HI, None, HI) as server:
        assert await (await server.post(b"{}")).read(2) == b"hi"
        with pytest.raises(errors.ProviderUnreachable, match="broke"):
            await server.post(b"{}")
        assert len(server.requests) == 2


async def test_an_answer_that_has_begun_is_not_asked_for_twice() -> None:
    async with RawServer(HI, b"HTTP/1.1 200", HI) as server:
        assert await (await server.get()).read(2) == b"hi"
        waiting = asyncio.ensure_future(server.get())
        await server.until(lambda: len(server.requests) == 2)
        server.connections[0].close()
        with pytest.raises(errors.ProviderUnreachable, match="broke"):
            await waiting


async def test_a_new_connection_that_dies_is_not_tried_again() -> None:
    async with RawServer(b"", close=True) as server:
        with pytest.raises(errors.ProviderUnreachable, match="broke"):
            await server.get()
        assert len(server.connections) == 1


async def test_a_cancelled_call_takes_its_connection_with_it() -> None:
    async with RawServer(b"", OK + b"Content-Length: 3\r\n\r\nhi", HI) as server:
        waiting = asyncio.ensure_future(server.get())
        await server.until(lambda: server.requests)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        response = await server.get()
        assert await response.next_chunk() == b"hi"
        reading = asyncio.ensure_future(response.next_chunk())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not server.transport._pool._open
        assert await (await server.get()).read(2) == b"hi"
        assert len(server.connections) == 3


async def test_cancelled_after_its_answer_came_a_call_leaves_the_connection_to_the_next() -> None:
    async with RawServer(HI, b"", HI) as server:
        assert await (await server.get()).read(2) == b"hi"
        first = asyncio.ensure_future(server.get())
        await server.until(lambda: len(server.requests) == 2)
        (connection,) = server.transport._pool._open
        connection.data_received(HI)  # whole, and the connection is free at once
        second = server.transport._pool.take(connection.origin)
        assert second is connection
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not connection.gone


async def test_waiting_for_the_pool_counts_as_connecting() -> None:
    async with RawServer(OK + b"Content-Length: 3\r\n\r\nhi", max_per_host=1) as server:
        response = await server.get()
        with pytest.raises(errors.ProviderTimeout, match=r"No connection to the provider within 0\.05 seconds"):
            await server.get(quick(connect_s=0.05))
        response.close()
        (await server.get(quick(connect_s=2))).close()


@LOOPS
def test_a_slow_reader_does_not_fill_the_memory(loop: Any) -> None:
    async def scenario() -> None:
        size = 30 * 2**20
        async with RawServer(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size) as server:
            response = await server.get()
            for _ in range(50):
                await asyncio.sleep(0.001)
            most = received = 0
            while data := await response.next_chunk():
                most, received = max(most, len(data)), received + len(data)
                await asyncio.sleep(0)
            assert received == size
            assert most <= http1_connection.MAX_BUFFERED_BYTES

    on(loop, scenario())


@LOOPS
def test_a_large_body_arrives_whole(loop: Any) -> None:
    async def scenario() -> None:
        body = bytes(range(256)) * 2**15  # 8 MiB
        async with RawServer(HI) as server:
            for _ in range(2):
                assert await (await server.post(body, quick(first_byte_s=20, total_s=20))).read(2) == b"hi"
            assert [request[-len(body) :] == body for request in server.requests] == [True, True]
            assert len(server.connections) == 1

    on(loop, scenario())


@LOOPS
def test_an_answer_before_the_end_of_the_upload_is_the_answer(loop: Any) -> None:
    async def scenario() -> None:
        async with RawServer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno", early=True) as server:
            response = await server.post(b"x" * (64 * 2**20), quick(first_byte_s=20, total_s=20))
            assert (response.status, await response.read(10)) == (413, b"no")
            assert not server.transport._pool._open

    on(loop, scenario())


def packed(coding: str, data: bytes) -> bytes:
    match coding:
        case "gzip" | "x-gzip":
            return gzip.compress(data)
        case "deflate":
            return zlib.compress(data)
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate", "Deflate"])
async def test_a_compressed_answer_is_inflated_piecewise(coding: str) -> None:
    text = b"".join(b"%d " % n for n in range(100_000))
    for body in {packed(coding.lower(), text), packed("raw" if coding == "deflate" else coding.lower(), text)}:
        answer = OK + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(body)) + body
        async with RawServer(answer) as server:
            assert await (await server.get()).read(2**20) == text
            response = await server.get()
            pieces = []
            while piece := await response.next_chunk():
                pieces.append(piece)
            assert b"".join(pieces) == text
            assert max(map(len, pieces)) <= 2**16
            assert len(server.connections) == 1


async def test_what_zlib_holds_back_is_not_lost() -> None:
    """Without a checksum behind it, the last of the input may be used up while output is still to come."""
    for surplus in range(1, 2000, 37):
        text = b" " * (2**16 + surplus)
        body = packed("raw", text)
        async with RawServer(OK + b"Content-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as server:
            assert await (await server.get()).read(2**20) == text


async def test_a_bomb_goes_off_within_the_limit() -> None:
    body = gzip.compress(b" " * 2**27)
    async with RawServer(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as server:
        with pytest.raises(errors.ProviderNonsense, match="longer than 1000000 bytes"):
            await (await server.get()).read(10**6)


@pytest.mark.parametrize(
    ("coding", "body", "says"),
    [
        (b"br", b"abc", "compressed as 'br'"),
        (b"gzip, gzip", b"abc", "compressed as 'gzip, gzip'"),
        (b"gzip", b"not gzip", "cannot be inflated"),
        (b"deflate", b"\xff\xff\xff", "cannot be inflated"),
        (b"gzip", gzip.compress(b"hello", mtime=0)[:-3], "ends in the middle"),
        (b"gzip", gzip.compress(b"hello", mtime=0) + b"more", "goes on after the end"),
        (b"gzip", gzip.compress(b"hello", mtime=0) * 2, "goes on after the end"),
    ],
)
async def test_a_coding_that_is_unknown_or_damaged_is_nonsense(coding: bytes, body: bytes, says: str) -> None:
    async with RawServer(OK + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(body)) + body) as server:
        with pytest.raises(errors.ProviderNonsense, match=says):
            await (await server.get()).read(1000)


@pytest.mark.parametrize("coding", [b"gzip", b"br"])
async def test_no_body_needs_no_inflating(coding: bytes) -> None:
    async with RawServer(OK + b"Content-Encoding: %s\r\nContent-Length: 0\r\n\r\n" % coding) as server:
        assert await (await server.get()).read(10) == b""


async def test_an_answer_that_turns_out_to_be_malformed_stays_so() -> None:
    async with RawServer(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n") as server:
        response = await server.get()
        for _ in range(2):
            with pytest.raises(errors.ProviderNonsense, match="not valid HTTP"):
                await response.next_chunk()
        assert not server.transport._pool._open


async def test_many_calls_at_once_stay_within_the_limit_and_get_their_own_answers() -> None:
    async with RawServer(HI, max_per_host=3) as server:

        async def one() -> bytes:
            return await (await server.get()).read(10)

        assert await asyncio.gather(*(one() for _ in range(50))) == [b"hi"] * 50
        assert len(server.connections) == 3


async def test_a_name_is_asked_for_once_by_all_who_want_it_and_then_kept() -> None:
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        await asyncio.sleep(0)
        return ["127.0.0.1"]

    async with RawServer(HI, resolve=resolve) as server:
        call = server.call(host="vendor.test")
        responses = await asyncio.gather(*(server.transport.open(call, quick()) for _ in range(5)))
        assert [await response.read(2) for response in responses] == [b"hi"] * 5
        assert asked == ["vendor.test"]
        assert b"Host: vendor.test:%d\r\n" % server.port in server.requests[0]


async def test_who_gives_up_waiting_for_a_name_does_not_take_it_from_the_others() -> None:
    answered = asyncio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        await answered.wait()
        return ["127.0.0.1"]

    async with RawServer(HI, resolve=resolve) as server:
        call = server.call(host="vendor.test")
        first, second = (asyncio.ensure_future(server.transport.open(call, quick())) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        answered.set()
        assert await (await second).read(2) == b"hi"
        assert first.cancelled()


async def test_a_name_that_was_not_found_is_asked_for_again() -> None:
    answers = [OSError("not yet"), None]

    async def resolve(host: str, port: int) -> list[str]:
        if error := answers.pop(0):
            raise error
        return ["127.0.0.1"]

    async with RawServer(HI, resolve=resolve) as server:
        call = server.call(host="vendor.test")
        with pytest.raises(errors.ProviderUnreachable, match="does not resolve"):
            await server.transport.open(call, quick())
        assert await (await server.transport.open(call, quick())).read(2) == b"hi"


async def test_an_address_that_does_not_answer_is_followed_by_the_next() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.3", "127.0.0.1"]

    async with RawServer(HI, resolve=resolve) as server:
        assert await (await server.transport.open(server.call(host="vendor.test"), quick())).read(2) == b"hi"


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
