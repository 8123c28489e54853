"""A40, A43: heads that two readers could read in two ways, direct and behind deploy/nginx.conf: one answer at most, and the end."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.stack import NGINX, NGINX_AROUND
from tests.e2e import wire
from tests.live import ROOT
from tests.security.house import House

pytestmark = pytest.mark.process
BODY = '{"model":"echo-1","messages":[{"role":"user","content":"hi"}]}'
SIZE = len(BODY)
CHUNKED = f"{SIZE:x}\r\n{BODY}\r\n0\r\n\r\n"
SMUGGLED = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LENGTH = f"Content-Length: {SIZE}\r\n"
TE = "Transfer-Encoding: chunked\r\n"

# After `POST … Host, Authorization`: what makes the message's end doubtful.
DOUBTFUL = {
    "CL.TE": f"Content-Length: 6\r\n{TE}\r\n0\r\n\r\n{SMUGGLED}",
    "TE.CL": f"{TE}Content-Length: 4\r\n\r\n{CHUNKED}{SMUGGLED}",
    "xchunked": f"Transfer-Encoding: xchunked\r\n\r\n{CHUNKED}",
    "chunked is not last": f"Transfer-Encoding: chunked, identity\r\n\r\n{CHUNKED}",
    "two encodings": f"{TE}Transfer-Encoding: identity\r\n\r\n{CHUNKED}",
    "the same encoding twice": f"{TE}{TE}\r\n{CHUNKED}",
    "a space before the colon": f"Transfer-Encoding : chunked\r\n\r\n{CHUNKED}",
    "a vertical tab": f"Transfer-Encoding: \x0bchunked\r\n\r\n{CHUNKED}",
    "a folded encoding": f"Transfer-Encoding:\r\n chunked\r\n\r\n{CHUNKED}",
    "a folded header": f"X-A: b\r\n c\r\n{LENGTH}\r\n{BODY}",
    "a bare LF": f"X-A: b\n{LENGTH}\r\n{BODY}",
    "a bare CR": f"X-A: b\rContent-Length: 5\r\n{LENGTH}\r\n{BODY}",
    "two lengths": f"{LENGTH}Content-Length: 5\r\n\r\n{BODY}",
    "the same length twice": f"{LENGTH}{LENGTH}\r\n{BODY}",
    "a list of lengths": f"Content-Length: {SIZE}, {SIZE}\r\n\r\n{BODY}",
    "a signed length": f"Content-Length: +{SIZE}\r\n\r\n{BODY}",
    "a hexadecimal length": f"Content-Length: 0x{SIZE:x}\r\n\r\n{BODY}",
    "a negative length": f"Content-Length: -1\r\n\r\n{BODY}",
    "a length with a space in it": f"Content-Length: 6 2\r\n\r\n{BODY}",
    "an empty length": f"Content-Length: \r\n\r\n{BODY}",
    "a length beyond 64 bits": f"Content-Length: 18446744073709551679\r\n\r\n{BODY}",
    "a negative chunk": f"{TE}\r\n-1\r\n{BODY}\r\n0\r\n\r\n",
    "a chunk with 0x": f"{TE}\r\n0x{SIZE:x}\r\n{BODY}\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": f"{TE}\r\n100000000000000{SIZE:x}\r\n{BODY}\r\n0\r\n\r\n",
    "a chunk that ends in LF": f"{TE}\r\n{SIZE:x}\n{BODY}\r\n0\r\n\r\n",
    "a chunk longer than it says": f"{TE}\r\n{SIZE:x}\r\n{BODY}XX0\r\n\r\n",
    "an LF in a chunk's extension": f"{TE}\r\n{SIZE:x};a\nb\r\n{BODY}\r\n0\r\n\r\n",
    "NUL in a header": f"X-A: a\x00b\r\n{LENGTH}\r\n{BODY}",
    "a header without a colon": f"Content-Length\r\n{LENGTH}\r\n{BODY}",
    "a space in a header's name": f"Content Length: 5\r\n{LENGTH}\r\n{BODY}",
}
# Unusual and clear: answered once, whatever follows is not taken for part of it.
CLEAR = {
    "encodings before chunked": f"Transfer-Encoding: identity, chunked\r\n\r\n{CHUNKED}",
    "another case": f"Transfer-Encoding: cHuNkEd\r\n\r\n{CHUNKED}",
    "an extension of a chunk": f"{TE}\r\n{SIZE:x};a=b\r\n{BODY}\r\n0\r\n\r\n",
    "a trailer": f"{TE}\r\n{SIZE:x}\r\n{BODY}\r\n0\r\nX-A: b\r\n\r\n",
}


def sent(house: House, rest: str) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {house.key}\r\n"
    return (head + rest).encode("latin-1")


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@pytest.mark.parametrize("form", DOUBTFUL)
def test_what_is_doubtful_is_refused_and_the_connection_ends(house: House, form: str) -> None:
    answer, closed = house.raw(sent(house, DOUBTFUL[form]))
    assert statuses(answer) == [400]
    assert closed


@pytest.mark.parametrize("form", CLEAR)
def test_what_is_clear_is_one_request(house: House, form: str) -> None:
    answer, _ = house.raw(sent(house, CLEAR[form]) + SMUGGLED.encode(), timeout_s=0.3)
    assert statuses(answer) == [200, 200]  # the second is the request that honestly follows


def test_a_body_is_no_request(house: House) -> None:
    head = f"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n"
    answer, _ = house.raw((head + SMUGGLED).encode(), timeout_s=0.3)
    assert statuses(answer) == [200]


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0"])
def test_a_refused_upgrade_opens_no_tunnel(house: House, upgrade: str) -> None:
    head = f"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Version: 99\r\n\r\n"
    answer, _ = house.raw((head + SMUGGLED).encode(), timeout_s=0.3)
    assert len(statuses(answer)) == 1
    assert statuses(answer)[0] in (200, 400, 426)


# A40 ------------------------------------------------------------------------------------------------------------------

START = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
LARGE = {
    "10 000 equal headers": START + b"X-A: 1\r\n" * 10_000 + b"\r\n",
    "129 headers": START + b"X-A: 1\r\n" * 128 + b"\r\n",
    "a header of 64 KiB": START + b"X-A: " + b"a" * 2**16 + b"\r\n\r\n",
    "a name of 64 KiB": START + b"a" * 2**16 + b": 1\r\n\r\n",
    "a URL of 1 MB": b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a method of 64 KiB": b"G" * 2**16 + b" / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("what", LARGE)
def test_a_large_head_is_refused(house: House, what: str) -> None:
    """Whoever still sends when it is refused may get a reset in place of the answer: that is TCP, and bounded work is the point."""
    answer, closed = house.raw(LARGE[what])
    assert statuses(answer) in ([431], [400], [])
    assert closed
    assert house.alive()


@pytest.mark.parametrize("path", ["/api/v1/llm/providers", "/api/v1/requests", "/api/info", "/api/schema/", "/admin/login/", "/metrics"])
def test_thousands_of_parameters_are_a_400(house: House, path: str) -> None:
    headers = {"Authorization": f"Token {house.live.admin_token}"}
    answer = wire.call(house.live.base_url, "GET", f"{path}?{'a=b&' * 7_000}", headers=headers)
    assert answer.status in (200, 400)  # 200: a page that looks at none of them
    assert house.alive()


# Behind nginx ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxy(_house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an nginx with the shipped file in front of the house."""
    if NGINX is None:
        assert os.environ.get("REQUIRE_SERVICES") != "1", "nginx is not installed, and REQUIRE_SERVICES=1 wants it"
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("server 127.0.0.1:8000;", f"server 127.0.0.1:{_house.port};")
    (folder / "llmcontrol.conf").write_text(text)
    (folder / "nginx.conf").write_text(NGINX_AROUND.format(folder=folder, user="user root;" if os.geteuid() == 0 else ""))
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stdout=output, stderr=output)
    try:
        _wait(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), folder)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait(connect: Callable[[], None], folder: Path) -> None:
    give_up_at = time.monotonic() + 10
    while True:
        try:
            return connect()
        except OSError:
            assert time.monotonic() < give_up_at, (folder / "output.log").read_text()
            time.sleep(0.02)


@pytest.mark.parametrize("form", [*DOUBTFUL, *CLEAR])
def test_behind_nginx_nobody_gets_anothers_answer(house: House, proxy: int, form: str) -> None:
    """What nginx refuses never comes here; what it puts right is one request. The connections that it keeps to us are not out of
    step afterwards: those who follow on them get the answers to their own questions."""
    answer, _ = house.raw(sent(house, (DOUBTFUL | CLEAR)[form]), port=proxy, timeout_s=0.3)
    assert len(statuses(answer)) <= 1
    assert b'"status":"ok"' not in answer, "the answer to the smuggled request"
    for number in range(3):
        asked = wire.call(f"http://127.0.0.1:{proxy}", "GET", f"/v1/models/no-such-{number}", key=house.key)
        assert asked.status == 404
        assert f"no-such-{number}" in asked.error["message"]
