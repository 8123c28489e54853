"""deploy/nginx.conf, with a real nginx in front of a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.live import ROOT
from tests.run.serving import Served, events

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
CONTENT = re.compile(rb'"content": ?"[^"]')
pytestmark = pytest.mark.process

AROUND = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/llmcontrol.conf;
}}
"""


@pytest.fixture
def nginx(serve: Callable[..., Served], tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> Iterator[Served]:
    """A server, whose port is that of the nginx in front of it."""
    if NGINX is None:
        assert os.environ.get("REQUIRE_SERVICES") != "1", "nginx is not installed, and REQUIRE_SERVICES=1 wants it"
        pytest.skip("nginx is not installed")
    served, port = serve(), unused_tcp_port_factory()
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    for shipped, here in (("listen 80;", f"listen 127.0.0.1:{port};"), ("server 127.0.0.1:8000;", f"server 127.0.0.1:{served.port};")):
        assert text.count(shipped) == 1
        text = text.replace(shipped, here)
    (tmp_path / "llmcontrol.conf").write_text(text)
    main = tmp_path / "nginx.conf"
    main.write_text(AROUND.format(folder=tmp_path, user="user root;" if os.geteuid() == 0 else ""))
    with (tmp_path / "output.log").open("wb") as output:
        process = subprocess.Popen([NGINX, "-p", str(tmp_path), "-c", str(main)], stdout=output, stderr=output)
    upstream_port, served.port = served.port, port
    try:
        served.until(lambda: served.get("/health") == 200, 10)
        yield served
    finally:
        served.port = upstream_port
        process.terminate()
        process.wait(10)


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
