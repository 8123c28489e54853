"""The house that is attacked: a live gateway that may call its vendor and a server that redirects, and a canary that nobody may call."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.e2e import wire
from tests.e2e.control import Control
from tests.e2e.vendor import Vendor
from tests.live import LiveServer

# Looking ten times a second keeps tests short; all else is as delivered.
QUICK = {"LLM_CONFIG_POLL_S": "0.1", "LLM_DRAIN_INTERVAL_S": "0.05", "MAX_RETRIES": "0"}


class Canary:
    """Listens at every loopback address on one port, and remembers what was sent to it. `heard` is to stay empty."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._sockets = self._bound()
        self.port = self._sockets[0].getsockname()[1]
        for sock in self._sockets:
            threading.Thread(target=self._listen, args=(sock,), daemon=True).start()

    @staticmethod
    def _bound() -> list[socket.socket]:
        everywhere = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        everywhere.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        everywhere.bind(("::1", 0))
        port = everywhere.getsockname()[1]
        bound = [everywhere]
        for address in ("127.0.0.1", "127.0.0.2"):
            sock = socket.socket()
            sock.bind((address, port))
            bound.append(sock)
        for sock in bound:
            sock.listen(50)
        return bound

    def _listen(self, sock: socket.socket) -> None:
        while True:
            try:
                connection, _ = sock.accept()
            except OSError:
                return
            self.heard.append(b"")
            connection.settimeout(0.5)
            try:
                self.heard[-1] = connection.recv(65536)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            except OSError:
                pass
            connection.close()

    def close(self) -> None:
        for sock in self._sockets:
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class _Redirects(BaseHTTPRequestHandler):
    """`/<where to, quoted>/…` → 307 to there, whatever is asked."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.server.heads.append(str(self.headers))  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(307)
        self.send_header("Location", unquote(self.path.split("/")[1]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = _answer

    def log_message(self, *_: Any) -> None:
        return


class Redirector:
    """`heads`: the heads of what it was asked."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Redirects)
        self._server.heads = self.heads  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.port = int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class House:
    def __init__(self, folder: Path, **env: str) -> None:
        self.vendor, self.canary, self.redirector = Vendor(), Canary(), Redirector()
        self.vendor_port = int(urlsplit(self.vendor.base_url).port or 0)
        allow = f"127.0.0.1/32:{self.vendor_port},127.0.0.1/32:{self.redirector.port}"
        self.live = LiveServer(folder, env={**QUICK, "OUTBOUND_ALLOW": allow, **env})
        self.live.start()
        self.port = int(urlsplit(self.live.base_url).port or 0)
        self.control = Control(self.live.base_url, self.live.admin_token or "", self.live.api_key or "")

    @property
    def key(self) -> str:
        return self.control.key

    def model(self, vendor_model: str = "ok@tokens=2", *, api_key: str = "sk-vendor-key-of-the-house", **fields: Any) -> str:
        """The alias of a model of the fault vendor, in force when this returns."""
        provider = self.control.provider(self.vendor.base_url, api_key=api_key)
        alias: str = self.control.model(provider, vendor_model, **fields)["alias"]
        self.control.apply()
        return alias

    def ask(self, model: str, prompt: str = "Say hello.", **fields: Any) -> wire.Answer:
        return wire.chat(self.live.base_url, self.key, model, prompt, **fields)

    def raw(self, data: bytes, *, port: int = 0, timeout_s: float = 1.0) -> tuple[bytes, bool]:
        """What is answered to these bytes, and whether the connection is then closed; an open one is waited for `timeout_s`."""
        answer, closed = b"", True
        with socket.create_connection(("127.0.0.1", port or self.port), timeout=timeout_s) as client:
            try:
                client.sendall(data)
                while piece := client.recv(65536):
                    answer += piece
            except TimeoutError:
                closed = False
            except ConnectionError:
                pass
        return answer, closed

    def alive(self) -> bool:
        return self.ask(self.live.model or "").status == 200

    def stored(self) -> dict[str, bytes]:
        """Every file of the state folder: database, its log, journal, server's log."""
        return {str(path): path.read_bytes() for path in self.live.state_dir.rglob("*") if path.is_file()}

    def close(self) -> None:
        self.live.stop()
        for server in (self.vendor, self.canary, self.redirector):
            server.close()
