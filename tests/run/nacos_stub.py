"""What of Nacos' open API v1 an instance speaks with, on loopback: logins, instances, beats. It forgets and fails when told to."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

USERNAME, PASSWORD = "gateway", "of-the-registry"


class NacosStub:
    """`instances` by (namespace, service, ip, port); `asked` is (method, path, parameters) of what was let in."""

    def __init__(self, *, login: bool = False, port: int = 0) -> None:
        self.instances: dict[tuple[str, str, str, str], dict[str, str]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.passes: set[str] = set()
        self.logins = 0
        self.fails = False
        self._login = login
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def weights(self) -> list[float]:
        return [float(each["weight"]) for each in self.instances.values()]

    def beats(self) -> int:
        return sum(path.endswith("/beat") for _, path, _ in self.asked)

    def answer(self, method: str, path: str, given: dict[str, str], authorization: str) -> tuple[int, str]:
        if self.fails:
            return 500, "caused: something"
        if path == "/nacos/v1/auth/login":
            return self._logged_in(given)
        if self._login and authorization.removeprefix("Bearer ") not in self.passes:
            return 403, "token invalid!"
        self.asked.append((method, path, given))
        return self._of_instance(method, path, given)

    def _logged_in(self, given: dict[str, str]) -> tuple[int, str]:
        if (given.get("username"), given.get("password")) != (USERNAME, PASSWORD):
            return 403, "unknown user!"
        self.logins += 1
        self.passes = {f"pass-{self.logins}"}
        return 200, json.dumps({"accessToken": f"pass-{self.logins}", "tokenTtl": 18000, "globalAdmin": False})

    def _of_instance(self, method: str, path: str, given: dict[str, str]) -> tuple[int, str]:
        which = (given.get("namespaceId", "public"), given["serviceName"], given["ip"], given["port"])
        match method, path:
            case ("POST", "/nacos/v1/ns/instance"):
                self.instances[which] = given
                return 200, "ok"
            case ("DELETE", "/nacos/v1/ns/instance"):
                self.instances.pop(which, None)
                return 200, "ok"
            case ("PUT", "/nacos/v1/ns/instance/beat"):
                known = which in self.instances
                assert json.loads(given["beat"])["port"] == int(given["port"])
                return 200, json.dumps({"clientBeatInterval": 5000, "code": 10200 if known else 20404, "lightBeatEnabled": True})
        return 404, "no such thing"


def _handler_of(stub: NacosStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            form = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            parts = urlsplit(self.path)
            given = {name: values[-1] for name, values in parse_qs(f"{parts.query}&{form}").items()}
            status, said = stub.answer(self.command, parts.path, given, self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said.encode())

        do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, *_: Any) -> None: ...

    return Handler
