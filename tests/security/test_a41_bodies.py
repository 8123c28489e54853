"""A41: bodies that are too long, too short, packed or in a hundred thousand parts: refused, with nothing written to disk."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e import wire
from tests.live import children_of
from tests.security.house import House

pytestmark = pytest.mark.process
CHAT = "/v1/chat/completions"
# Data plane, control plane, and where nothing is.
PATHS = [CHAT, "/v1/files", "/v1/messages", "/api/v1/llm/providers", "/admin/login/", "/nothing/here", "/health", "/", "/api/generate"]
ENOUGH = 64 * 2**20


def pour(house: House, path: str, framing: str) -> tuple[int, int]:
    """(the status of the answer, 0 = none; how many bytes of an endless body were taken)."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{framing}\r\n\r\n".encode()
    piece = b"x" * 2**16
    sent, answer = 0, b""
    with socket.create_connection(("127.0.0.1", house.port), timeout=5) as client:
        client.sendall(head)
        try:
            while sent < ENOUGH and not answer:
                client.sendall(piece if framing.startswith("Content") else b"%x\r\n%b\r\n" % (len(piece), piece))
                sent += len(piece)
                client.setblocking(False)
                with suppress(BlockingIOError):
                    answer = client.recv(4096)
                client.settimeout(5)
            answer = answer or client.recv(4096)
        except OSError:
            pass
    found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    return int(found.group(1)) if found else 0, sent


@contextmanager
def files_seen(house: House) -> Iterator[list[str]]:
    """Names of files that the server has open meanwhile and had not before."""
    seen: list[str] = []
    before, stop = set(_open_files(house)), threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            seen.extend(name for name in _open_files(house) if name not in before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def _open_files(house: House) -> list[str]:
    found = []
    for pid in [house.live.pid, *children_of(house.live.pid)]:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.append(os.readlink(link))
    return [name for name in found if name.startswith("/") and "llmcontrol" not in name and "/journal" not in name]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("framing", ["Content-Length: 1073741824", "Transfer-Encoding: chunked"])
def test_a_strangers_endless_body_is_refused_and_never_stored(house: House, path: str, framing: str) -> None:
    with files_seen(house) as files:
        status, sent = pour(house, path, framing)
    assert status in (0, 200, 401, 403, 404, 405, 413), status  # 200: /health looks at no body, and does not wait for it
    assert sent < ENOUGH, "it was all taken"
    ours = [name for name in files if "/etilqs_" not in name]  # a temporary file of SQLite is no body
    assert not [name for name in ours if "/tmp" in name or "upload" in name], files
    assert house.alive()


def test_a_body_that_is_shorter_than_it_says_is_waited_for_and_given_up(house: House) -> None:
    """The deadline is LLM_BODY_TIMEOUT_S; here the client leaves first."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {house.key}\r\nContent-Length: 500\r\n\r\n"
    answer, closed = house.raw((head + '{"model"').encode(), timeout_s=0.3)
    assert (answer, closed) == (b"", False)
    assert house.alive()


def test_what_is_longer_than_it_says_is_the_next_request_and_none(house: House) -> None:
    body = json.dumps({"model": "echo-1", "messages": wire.HELLO})
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {house.key}\r\nContent-Length: {len(body)}\r\n\r\n"
    answer, closed = house.raw((head + body + "XXXX not a request\r\n\r\n").encode())
    # Nonsense that is there before the answer ends the connection before it.
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answer)] in ([200, 400], [400])
    assert closed


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/v1/llm/providers"])
def test_a_packed_body_is_not_unpacked(house: House, path: str) -> None:
    packed = gzip.compress(b" " * 50_000_000)
    token = house.key if path.startswith("/v1") else None
    headers = {"Content-Encoding": "gzip", **({} if token else {"Authorization": f"Token {house.live.admin_token}"})}
    answer = wire.call(house.live.base_url, "POST", path, key=token, headers=headers, body=packed)
    assert answer.status == 400
    assert house.alive()


@pytest.mark.parametrize("path", ["/admin/login/", "/api/v1/llm/providers", CHAT])
def test_a_hundred_thousand_parts_are_refused(house: House, path: str) -> None:
    part = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Cookie": "csrftoken=" + "a" * 32, "X-CSRFToken": "a" * 32}
    if not path.startswith("/admin"):
        headers["Authorization"] = f"Bearer {house.key}" if path == CHAT else f"Token {house.live.admin_token}"
    with files_seen(house) as files:
        answer = wire.call(house.live.base_url, "POST", path, headers=headers, body=part * 80_000)
    assert answer.status in (400, 403, 413, 415), answer
    assert not [name for name in files if "upload" in name]
    assert house.alive()
