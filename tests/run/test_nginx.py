"""deploy/nginx.conf, with a real nginx in front of a real server."""

from __future__ import annotations

import json
import re
import socket
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.deploy import stack
from tests.run.serving import Served, events

CONTENT = re.compile(rb'"content": ?"[^"]')
pytestmark = pytest.mark.process


@pytest.fixture
def nginx(serve: Callable[..., Served], tmp_path: Path) -> Iterator[Served]:
    """A server, whose port is that of the nginx in front of it."""
    served = serve()
    with stack.nginx(tmp_path, served.port) as port:
        upstream_port, served.port = served.port, port
        try:
            yield served
        finally:
            served.port = upstream_port


def test_probes_and_answers_pass(nginx: Served):
    assert nginx.get("/ready") == 200
    with closing(nginx.connect()) as connection:
        assert events(nginx.ask(connection, "quick").read())[-1] == "[DONE]"
        refused = nginx.ask(connection, "quick", "x" * (4 * 2**20 + 1))
        assert (refused.status, refused.headers["content-type"]) == (413, "application/json")


def test_tokens_come_one_by_one(nginx: Served):
    body = json.dumps({"model": "slow", "messages": [{"role": "user", "content": "hello"}], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {nginx.prepared.api_key}\r\n"
    reads: list[int] = []
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=10) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        while data := client.recv(2**16):
            if tokens := len(CONTENT.findall(data)):
                reads.append(tokens)
    assert sum(reads) >= 40
    assert statistics.median(reads) == 1, "what is buffered comes in lumps"


async def test_a_socket_passes(nginx: Served):
    headers = {"Authorization": f"Bearer {nginx.prepared.api_key}"}
    async with connect(f"ws://127.0.0.1:{nginx.port}/ws/generate", additional_headers=headers, proxy=None) as websocket:
        request = {"model": "quick", "messages": [{"role": "user", "content": "hello"}]}
        await websocket.send(json.dumps({"type": "generate", "id": "a", "request": request}))
        types = []
        while types[-1:] not in (["done"], ["error"]):
            types.append(json.loads(await websocket.recv())["type"])
    assert (types[0], types[-1]) == ("delta", "done")
