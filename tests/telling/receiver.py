"""A server that takes webhooks, as well or badly as it is told to, and remembers each of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Heard(NamedTuple):
    at: float
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    status: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 200


class _Handler(BaseHTTPRequestHandler):
    """`/_hook/<what>`: ok, 500, 410, flaky (every second answer is 500), redirect, stall (no answer)."""

    def do_POST(self) -> None:
        receiver: Receiver = self.server.receiver  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        how = receiver.how or self.path.split("/")[2]
        status = receiver.status_of(how, self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        with receiver.lock:
            receiver.heard.append(Heard(time.time(), self.path, headers, body, status))
        if how == "stall":
            receiver.closing.wait(60)
            return
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", receiver.redirect_to)
        self.send_header("Content-Length", str(len(receiver.answer)))
        self.end_headers()
        self.wfile.write(receiver.answer)

    def log_message(self, *_: Any) -> None:
        return


class Receiver:
    """`how` set: every path behaves so. `answer`: the body of what it answers; a chat's robot has one."""

    def __init__(self, how: str = "", port: int = 0) -> None:
        self.heard: list[Heard] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.how, self.redirect_to, self.answer = how, "", b""
        self._counts: dict[str, int] = {}
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.receiver = self  # type: ignore[attr-defined]
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, how: str = "ok", more: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/_hook/{how}{more}"

    def status_of(self, how: str, path: str) -> int:
        with self.lock:
            self._counts[path] = count = self._counts.get(path, 0) + 1
        if how == "flaky":
            return 500 if count % 2 else 204
        return {"ok": 204, "redirect": 307, "stall": 0}.get(how) or int(how if how.isdecimal() else 0)

    def of(self, path_part: str) -> list[Heard]:
        with self.lock:
            return [each for each in self.heard if path_part in each.path]

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
