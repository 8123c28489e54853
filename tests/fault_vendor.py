"""An OpenAI-compatible vendor that misbehaves on demand, on loopback only, and keeps a ledger of what it really sent.

    python -m tests.fault_vendor --port 9100
    async with FaultVendor() as vendor: …  vendor.base_url

The model's name picks the behaviour: `ok`, or a fault of `FAULTS`, with options behind an @: `ok@tokens=40,delay=0.02`.
Options of every streamed answer: `tokens`, `delay` (s between tokens), `ttfb` (s before the status line), `cap` (calls at
once; more get a 429). The first token of an answer is `echo:` and eight hex digits of the last user message's SHA-256, so
that a test can tell whose answer it holds. GET /_ledger, GET /_stats and POST /_reset are for tests and checkers.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

CREATED = 1_700_000_000
BEFORE_FAULT = 3  # tokens that a midstream fault lets through


class ClientLeft(Exception):
    """The client closed the connection."""


class Connection(asyncio.Protocol):
    """One client connection; `gone` is set the moment the client leaves."""

    def __init__(self, vendor: FaultVendor) -> None:
        self.vendor = vendor
        self.buffer = bytearray()
        self.more, self.gone, self.writable = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.task = asyncio.get_running_loop().create_task(self._serve())
        self.vendor.tasks.add(self.task)
        self.task.add_done_callback(self.vendor.tasks.discard)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.more.set()

    def eof_received(self) -> None:
        self._left()

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()

    def _left(self) -> None:
        for event in (self.gone, self.more, self.writable):
            event.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    async def send(self, data: bytes) -> None:
        if self.gone.is_set():
            raise ClientLeft
        self.transport.write(data)
        await asyncio.sleep(0)
        await self.writable.wait()

    async def pause(self, seconds: float | None) -> None:
        """None = until the client leaves."""
        try:
            await asyncio.wait_for(self.gone.wait(), seconds)
        except TimeoutError:
            return
        raise ClientLeft

    def reset(self) -> None:
        """RST instead of FIN."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def _read(self, until: Callable[[], int]) -> bytes:
        """`until` returns how many bytes of the buffer are one whole thing, 0 = not yet."""
        while not (size := until()):
            if self.gone.is_set():
                raise ClientLeft
            self.more.clear()
            await self.more.wait()
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    async def _serve(self) -> None:
        try:
            while True:
                head = (await self._read(lambda: self.buffer.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in self.buffer else 0)).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                method, path, _ = first.split(" ", 2)
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                size = int(headers.get("content-length") or 0)
                body = await self._read(lambda: size if len(self.buffer) >= size else 0) if size else b""  # noqa: B023
                await self.vendor.answer(self, method, path, headers, body)
        except ClientLeft:
            pass
        finally:
            self.transport.close()

    async def reply(self, status: int, body: Any, headers: dict[str, str] | None = None, content_type: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        await self.send(head_of(status, {"content-type": content_type, "content-length": str(len(data)), **(headers or {})}) + data)


def head_of(status: int, headers: dict[str, str]) -> bytes:
    return (f"HTTP/1.1 {status} Fault\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n").encode("latin-1")


def error(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class Call:
    """One request for a completion, and the pieces its answer is made of."""

    def __init__(self, connection: Connection, model: str, options: dict[str, str], body: dict[str, Any], entry: dict[str, Any]) -> None:
        self.connection, self.model, self.options, self.body, self.entry = connection, model, options, body, entry
        self.stream = bool(body.get("stream"))
        self.include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self.key = ""
        self.tokens = [f"echo:{entry['echo']}", *(f" t{n}" for n in range(1, int(options.get("tokens", 5))))]
        self.cut = 0

    def option(self, name: str, default: float) -> float:
        return float(self.options.get(name, default))

    @property
    def usage(self) -> Any:
        prompt, sent = self.entry["prompt_tokens"], self.entry["tokens_sent"]
        return {"prompt_tokens": prompt, "completion_tokens": sent, "total_tokens": prompt + sent}

    def completion(self, content: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": content, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        base = {"id": f"chatcmpl-{self.entry['n']}", "object": "chat.completion", "created": CREATED, "model": self.body["model"]}
        return {**base, "choices": [choice], "usage": self.usage}

    def chunk(self, delta: dict[str, Any] | None, finish_reason: str | None = None, usage: Any = None) -> bytes:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
        base = {"id": f"chatcmpl-{self.entry['n']}", "object": "chat.completion.chunk", "created": CREATED, "model": self.body["model"]}
        extra = {"usage": usage} if self.include_usage else {}
        return b"data: " + json.dumps({**base, "choices": choices, **extra}).encode() + b"\n\n"

    async def begin(self, content_type: str = "text/event-stream", **headers: str) -> None:
        await self.connection.send(head_of(200, {"content-type": content_type, "transfer-encoding": "chunked", **headers}))

    async def write(self, data: bytes) -> None:
        """Body bytes, in one HTTP chunk or, with `cut`, in pieces of 1 to `cut` bytes."""
        position = step = 0
        while position < len(data):
            step = step % self.cut + 1 if self.cut else len(data)
            piece = data[position : position + step]
            await self.connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            position += step

    async def end(self) -> None:
        await self.connection.send(b"0\r\n\r\n")

    async def say(self, count: int | None = None) -> None:
        """The role and the first `count` tokens of a stream, or all of them."""
        await self.write(self.chunk({"role": "assistant", "content": ""}))
        for token in self.tokens[:count]:
            await self.connection.pause(self.option("delay", 0)) if self.option("delay", 0) else None
            await self.write(self.chunk({"content": token}))
            self.entry["tokens_sent"] += 1

    async def half(self) -> None:
        """An answer that stops in the middle: some tokens of a stream, or half of a promised body."""
        if self.stream:
            await self.begin()
            await self.say(BEFORE_FAULT)
        else:
            data = json.dumps(self.completion("".join(self.tokens))).encode()
            await self.connection.send(
                head_of(200, {"content-type": "application/json", "content-length": str(len(data))}) + data[: len(data) // 2]
            )


async def ok(call: Call, usage: Any = ...) -> None:
    """The whole, right answer; `usage` replaces the true one, None leaves it out."""
    if not call.stream:
        call.entry["tokens_sent"] = len(call.tokens)
        for _ in call.tokens if call.option("delay", 0) else ():
            await call.connection.pause(call.option("delay", 0))
        body = call.completion("".join(call.tokens))
        body["usage"] = call.usage if usage is ... else usage
        await call.connection.reply(200, {name: value for name, value in body.items() if value is not None})
        return
    await call.begin()
    await call.say()
    await call.write(call.chunk({}, "stop"))
    if call.include_usage and usage is not None:
        await call.write(call.chunk(None, usage=call.usage if usage is ... else usage))
    await call.write(b"data: [DONE]\n\n")
    await call.end()


async def stall(call: Call) -> None:
    await call.connection.pause(None)


async def slow_first_byte(call: Call) -> None:
    await call.connection.pause(call.option("s", 5))
    await ok(call)


async def stall_midstream(call: Call) -> None:
    await call.half()
    await call.connection.pause(None)


async def reset(call: Call) -> None:
    call.connection.reset()


async def reset_midstream(call: Call) -> None:
    await call.half()
    await call.connection.pause(0.02)  # let the client read what was sent: a RST throws away what it has not
    call.connection.reset()


async def eof_midstream(call: Call) -> None:
    await call.half()
    call.connection.transport.close()


async def no_done(call: Call) -> None:
    if call.stream:
        await call.begin()
        await call.say(BEFORE_FAULT)
        await call.end()
    else:
        body = call.completion("".join(call.tokens[:BEFORE_FAULT]))
        body["choices"][0]["finish_reason"] = None
        await call.connection.reply(200, body)


def whole(streamed: bytes, plain: bytes, content_type: str = "") -> Callable[[Call], Awaitable[None]]:
    """A fault that is one fixed body, sent with status 200 and every sign of success."""

    async def answer(call: Call) -> None:
        if call.stream:
            await call.begin(content_type or "text/event-stream")
            await call.write(streamed)
            await call.end()
        else:
            await call.connection.reply(200, plain, content_type=content_type or "application/json")

    return answer


async def error_midstream(call: Call) -> None:
    if not call.stream:
        return await call.connection.reply(200, error("The engine broke.", "server_error", "engine_broken"))
    await call.begin()
    await call.say(BEFORE_FAULT)
    await call.write(b"data: " + json.dumps(error("The engine broke.", "server_error", "engine_broken")).encode() + b"\n\n")
    await call.end()


async def bad_utf8(call: Call) -> None:
    if not call.stream:
        data = json.dumps(call.completion("MARK")).encode().replace(b"MARK", b"\xff\xfe")
        return await call.connection.reply(200, data)
    await call.begin()
    await call.write(call.chunk({"content": "MARK"}).replace(b"MARK", b"\xff\xfe"))
    await call.write(call.chunk({}, "stop") + b"data: [DONE]\n\n")
    await call.end()


async def split(call: Call) -> None:
    call.cut = 7
    await ok(call)


async def huge(call: Call) -> None:
    """`mb` megabytes: of content in one body, or of well-formed events."""
    pieces = int(call.option("mb", 256) * 64)
    await call.begin("text/event-stream" if call.stream else "application/json")
    if not call.stream:
        await call.write(b'{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"')
    for _ in range(pieces):
        await call.write(call.chunk({"content": "x" * 2**14}) if call.stream else b"x" * 2**14)
    await call.write(call.chunk({}, "stop") + b"data: [DONE]\n\n" if call.stream else b'"}}]}')
    await call.end()


async def huge_line(call: Call) -> None:
    await call.begin("text/event-stream" if call.stream else "application/json")
    await call.write(b'data: {"choices":[{"index":0,"delta":{"content":"')
    for _ in range(int(call.option("mb", 64) * 64)):
        await call.write(b"x" * 2**14)
    await call.write(b'"}}]}\n\n')
    await call.end()


async def gzip_bomb(call: Call) -> None:
    """About a thousandth of `mb` megabytes on the wire."""
    await call.begin("text/event-stream" if call.stream else "application/json", **{"content-encoding": "gzip"})
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    for _ in range(int(call.option("mb", 1024))):
        if packed := packer.compress(b" " * 2**20):
            await call.write(packed)
    await call.write(packer.flush())
    await call.end()


async def drip(call: Call) -> None:
    """A byte at a time, without end: each one resets a naive idle timeout."""
    await call.begin("text/event-stream" if call.stream else "application/json")
    while True:
        await call.write(b":" if call.stream else b" ")
        await call.connection.pause(call.option("delay", 0.02))


async def huge_header(call: Call) -> None:
    await call.connection.reply(200, call.completion("x"), {"x-padding": "x" * 2**20})


async def limited(call: Call) -> None:
    headers = {"retry-after": call.options.get("retry_after", "1")}
    await call.connection.reply(429, error("Slow down.", "requests", "rate_limit_exceeded"), headers)


async def echo_key(call: Call) -> None:
    await call.connection.reply(400, error(f"Your key {call.key} is odd.", "invalid_request_error", "odd"))


async def redirect(call: Call) -> None:
    await call.connection.reply(307, b"", {"location": call.options.get("to", "/v1/elsewhere")})


def status(code: int, body: Any, content_type: str = "application/json") -> Callable[[Call], Awaitable[None]]:
    async def answer(call: Call) -> None:
        await call.connection.reply(code, body, content_type=content_type)

    return answer


async def no_usage(call: Call) -> None:
    await ok(call, usage=None)


async def bad_usage(call: Call) -> None:
    await ok(call, usage={"prompt_tokens": -5, "completion_tokens": 10**15, "total_tokens": "many"})


HTML = b"<html><body><h1>Welcome to the captive portal</h1></body></html>"
IN_200 = json.dumps(error("The engine is overloaded.", "server_error", "overloaded")).encode()
FAULTS: dict[str, Callable[[Call], Awaitable[None]]] = {
    "ok": ok,
    "fault-stall": stall,
    "fault-slow-first-byte": slow_first_byte,
    "fault-stall-midstream": stall_midstream,
    "fault-reset": reset,
    "fault-reset-midstream": reset_midstream,
    "fault-eof-midstream": eof_midstream,
    "fault-no-done": no_done,
    "fault-garbage-json": whole(b'data: {"id": "x", "choi\n\ndata: [DONE]\n\n', b"{not json at all"),
    "fault-html-200": whole(HTML, HTML, "text/html"),
    "fault-wrong-shape": whole(b'data: {"result": "ok"}\n\ndata: [DONE]\n\n', b'{"result": "ok"}'),
    "fault-huge-header": huge_header,
    "fault-garbage-sse": whole(b": hi\r\nfoo: bar\r\ndata\r\n\r\nretry: x\ndata: not json\n\ndata: [DONE]\n\n", b"data: not json\n\n"),
    "fault-split": split,
    "fault-bad-utf8": bad_utf8,
    "fault-huge": huge,
    "fault-huge-line": huge_line,
    "fault-gzip-bomb": gzip_bomb,
    "fault-drip": drip,
    "fault-429": limited,
    "fault-500": status(500, error("The server had an error.", "server_error")),
    "fault-503": status(503, error("Overloaded.", "server_error")),
    "fault-401": status(401, error("Incorrect API key provided.", "invalid_request_error", "invalid_api_key")),
    "fault-404": status(404, error("The model does not exist.", "invalid_request_error", "model_not_found")),
    "fault-truncated-json": whole(b'data: {"choices": [{"index": 0, "delta": {"conte', b'{"id": "x", "choices": [{"index": 0, "mess'),
    "fault-error-in-200": whole(b"data: " + IN_200 + b"\n\n", IN_200),
    "fault-error-midstream": error_midstream,
    "fault-no-usage": no_usage,
    "fault-bad-usage": bad_usage,
    "fault-echo-key": echo_key,
    "fault-redirect": redirect,
}


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content)


class FaultVendor:
    """The server. `port` 0 takes any free one; only loopback is ever listened on."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.tasks: set[asyncio.Task[None]] = set()
        self.reset()

    def reset(self) -> None:
        self.ledger: list[dict[str, Any]] = []
        self.in_flight = 0
        self.unexpected: list[str] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> FaultVendor:
        self._server = await asyncio.get_running_loop().create_server(lambda: Connection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def answer(self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        match method, path:
            case "GET", "/v1/models":
                models = [{"id": name, "object": "model", "created": CREATED, "owned_by": "fault"} for name in FAULTS]
                await connection.reply(200, {"object": "list", "data": models})
            case "GET", "/_ledger":
                await connection.reply(200, self.ledger)
            case "GET", "/_stats":
                by_key = Counter(entry["key_last4"] for entry in self.ledger)
                await connection.reply(200, {"total": len(self.ledger), "in_flight": self.in_flight, "by_key": by_key})
            case "POST", "/_reset":
                self.reset()
                await connection.reply(200, {"ok": True})
            case "POST", "/v1/chat/completions":
                await self._complete(connection, headers, body)
            case _:
                self.unexpected.append(f"{method} {path}")
                await connection.reply(404, error(f"There is no {path}.", "invalid_request_error"))

    async def _complete(self, connection: Connection, headers: dict[str, str], raw: bytes) -> None:
        body = json.loads(raw)
        name, _, spelled = str(body.get("model")).partition("@")
        options = dict(part.split("=", 1) for part in spelled.split(",") if "=" in part)
        messages = body.get("messages") or []
        last = next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), "")
        key = headers.get("authorization", "").removeprefix("Bearer ")
        entry = {
            "n": len(self.ledger) + 1,
            "model": body.get("model"),
            "echo": hashlib.sha256(last.encode()).hexdigest()[:8],
            "stream": bool(body.get("stream")),
            "tokens_sent": 0,
            "prompt_tokens": sum(len(text_of(message).split()) for message in messages),
            "client_gone": False,
            "started": time.time(),
            "ended": None,
            "key_last4": key[-4:],
        }
        self.ledger.append(entry)
        behave = FAULTS.get(name)
        call = Call(connection, name, options, body, entry)
        call.key = key
        self.in_flight += 1
        try:
            if behave is None:
                return await connection.reply(404, error(f"The model {name!r} does not exist.", "invalid_request_error", "model_not_found"))
            if self.in_flight > call.option("cap", float("inf")):
                return await limited(call)
            if call.option("ttfb", 0):
                await connection.pause(call.option("ttfb", 0))
            await behave(call)
        except ClientLeft:
            entry["client_gone"] = True
            raise
        finally:
            self.in_flight -= 1
            entry["ended"] = time.time()


async def serve(port: int) -> None:
    async with FaultVendor(port) as vendor:
        print(f"listening on {vendor.base_url}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    try:
        asyncio.run(serve(parser.parse_args().port))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
