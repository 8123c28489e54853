"""A vendor on a loopback port of this process: says what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = {"object": "list", "data": [{"id": "small", "object": "model"}, {"id": "large", "object": "model"}]}
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "small",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "OK", "refusal": None}, "logprobs": None, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}


@dataclass
class Vendor:
    base_url: str
    answers: dict[str, tuple[int, Any]] = field(default_factory=lambda: {"/v1/models": (200, MODELS), "/v1/chat/completions": (200, CHAT)})
    good_keys: set[str] | None = None
    asked: list[tuple[str, str, Any]] = field(default_factory=list)


@contextmanager
def vendor() -> Iterator[Vendor]:
    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            stub.asked.append((self.path, key, json.loads(body) if body else None))
            status, answer = stub.answers[self.path]
            if stub.good_keys is not None and key not in stub.good_keys:
                status, answer = 401, {"error": {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"}}
            if callable(answer):
                status, answer = answer(stub.asked[-1][2])
            payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = _reply

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub = Vendor(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
