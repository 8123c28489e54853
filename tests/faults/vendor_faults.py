"""What the fault vendor can do wrong, each by its name: `FAULTS`."""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

from tests.faults.vendor_call import BEFORE_FAULT, Call
from tests.faults.vendor_wire import error


async def ok(call: Call, usage: Any = ...) -> None:
    """The whole, right answer; `usage` replaces the true one, None leaves it out."""
    if not call.stream:
        if call.option("delay", 0):
            await call.connection.pause(call.option("delay", 0) * len(call.tokens))
        call.sent("".join(call.tokens), len(call.tokens))
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
    call.entry["how"] = "cut"
    call.connection.reset()


async def reset_midstream(call: Call) -> None:
    await call.half()
    call.entry["how"] = "cut"
    await call.connection.pause(0.02)  # let the client read what was sent: a RST throws away what it has not
    call.connection.reset()


async def eof_midstream(call: Call) -> None:
    await call.half()
    call.entry["how"] = "cut"
    call.connection.transport.close()


async def no_done(call: Call) -> None:
    if call.stream:
        await call.begin()
        await call.say(BEFORE_FAULT)
        await call.end()
    else:
        call.sent("".join(call.tokens[:BEFORE_FAULT]), BEFORE_FAULT)
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
        call.sent("x" * 2**14)
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
    """`retry_after` seconds; with `date=1` spelled as the date that is then, rounded up to a whole second."""
    wait = call.options.get("retry_after", "1")
    if "date" in call.options:
        wait = formatdate(math.ceil(time.time() + float(wait)), usegmt=True)
    headers = {"retry-after": wait}
    await call.connection.reply(429, error("Slow down.", "requests", "rate_limit_exceeded"), headers)


async def echo_key(call: Call) -> None:
    await call.connection.reply(400, error(f"Your key {call.key} is odd.", "invalid_request_error", "odd"))


async def redirect(call: Call) -> None:
    await call.connection.reply(307, b"", {"location": call.options.get("to", "/v1/elsewhere")})


def status(code: int, body: Any, content_type: str = "application/json") -> Callable[[Call], Awaitable[None]]:
    async def answer(call: Call) -> None:
        await call.connection.reply(code, body, content_type=content_type)

    return answer


async def flap(call: Call) -> None:
    """`bad` calls fail, the next `good` ones are answered, and so on."""
    bad, good = call.option("bad", 20), call.option("good", 20)
    failing = (call.number - 1) % (bad + good) < bad
    await (FAULTS["fault-500"] if failing else ok)(call)


async def no_usage(call: Call) -> None:
    await ok(call, usage=None)


async def bad_usage(call: Call) -> None:
    await ok(call, usage={"prompt_tokens": -5, "completion_tokens": 10**15, "total_tokens": "many"})


async def huge_usage(call: Call) -> None:
    """Numbers in order, of a prompt that no model could take."""
    await ok(call, usage={"prompt_tokens": 10**8, "completion_tokens": 3, "total_tokens": 10**8 + 3})


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
    "fault-500-flap": flap,
    "fault-503": status(503, error("Overloaded.", "server_error")),
    "fault-401": status(401, error("Incorrect API key provided.", "invalid_request_error", "invalid_api_key")),
    "fault-404": status(404, error("The model does not exist.", "invalid_request_error", "model_not_found")),
    "fault-truncated-json": whole(b'data: {"choices": [{"index": 0, "delta": {"conte', b'{"id": "x", "choices": [{"index": 0, "mess'),
    "fault-error-in-200": whole(b"data: " + IN_200 + b"\n\n", IN_200),
    "fault-error-midstream": error_midstream,
    "fault-no-usage": no_usage,
    "fault-bad-usage": bad_usage,
    "fault-huge-usage": huge_usage,
    "fault-echo-key": echo_key,
    "fault-redirect": redirect,
}
