"""A vendor on a loopback port of this process: says what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import itertools
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
EMBEDDING = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
    "model": "embedder",
    "usage": {"prompt_tokens": 2, "total_tokens": 2},
}
NO_SUCH_MODEL = {"error": {"message": "There is no such model.", "type": "invalid_request_error", "code": "model_not_found"}}


def said(content: str | None, calls: tuple[str, ...] = ()) -> dict[str, Any]:
    """A whole answer, with a call of the tool `get_weather` for each of `calls`, which are arguments."""
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        function = [{"name": "get_weather", "arguments": arguments} for arguments in calls]
        message["tool_calls"] = [{"id": f"call_{n}", "type": "function", "function": each} for n, each in enumerate(function)]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if calls else "stop"}
    return {**CHAT, "choices": [choice]}


def streamed(*words: str, usage: Any = CHAT["usage"]) -> bytes:
    """The same in pieces, up to its end mark."""
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "small"}
    deltas: list[tuple[dict[str, str], str | None]] = [*(({"content": word}, None) for word in words), ({}, "stop")]
    chunks = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} for delta, reason in deltas]
    chunks += [{**base, "choices": [], "usage": usage}] if usage else []
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def counting() -> Iterator[bytes]:
    """A stream that goes on until the client hangs up, within reason."""
    event, _, _ = streamed(" and on").partition(b"\n\n")
    return itertools.repeat(event + b"\n\n", 1_000_000)


def chat(body: dict[str, Any]) -> tuple[int, Any]:
    """A vendor that can do everything a connection test looks for."""
    if body["model"] not in ("small", "large"):
        return 404, NO_SUCH_MODEL
    if body.get("stream"):
        return 200, streamed("O", "K") if "OK" in str(body["messages"]) else counting()
    if body.get("tools"):
        two = "Tokyo" in str(body["messages"])
        return 200, said(None, ('{"city":"Paris"}', '{"city":"Tokyo"}') if two else ('{"city":"Paris"}',))
    return 200, said('{"city":"Paris"}' if body.get("response_format") else "OK")


def embed(body: dict[str, Any]) -> tuple[int, Any]:
    return (200, EMBEDDING) if body["model"] == "embedder" else (404, NO_SUCH_MODEL)


def _answers() -> dict[str, tuple[int, Any]]:
    return {"/v1/models": (200, MODELS), "/v1/chat/completions": (0, chat), "/v1/embeddings": (0, embed)}


@dataclass
class Vendor:
    """`answers`: path → (status, body); in place of a body stands a function that makes both of the request's body."""

    base_url: str
    answers: dict[str, tuple[int, Any]] = field(default_factory=_answers)
    good_keys: set[str] | None = None
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)


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
            if status == 0:  # hangs up
                self.close_connection = True
                return
            if isinstance(answer, Iterator):
                return self._go_on(answer)
            payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def _go_on(self, pieces: Iterator[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                for piece in pieces:
                    self.wfile.write(piece)
            except ConnectionError:
                stub.hung_up.set()

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
