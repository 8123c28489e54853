"""The baseline: the least that a Python relay can do. Raw ASGI, one aiohttp session, a bearer check, bytes in, bytes out.

No limits, no accounting, no retry, no checks of what passes by. Run as `python -m bench.relay --upstream URL --key KEY`;
prints its port in one line.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
import uvicorn
from yarl import URL

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_REFUSED = b'{"error":{"message":"Not a key of this relay.","type":"invalid_request_error","param":null,"code":null}}'
_JSON = (b"content-type", b"application/json")


class Relay:
    def __init__(self, upstream: str, key: str) -> None:
        self._url = URL(upstream)
        self._callers = {b"Bearer " + key.encode(): "bench"}
        self._headers = {"authorization": "Bearer sk-bench-upstream", "content-type": "application/json"}
        self._session: aiohttp.ClientSession

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        if dict(scope["headers"]).get(b"authorization") not in self._callers:
            return await _answer(send, 401, _JSON, _REFUSED)
        if scope["path"] != "/v1/chat/completions":
            return await _answer(send, 404, _JSON, b"{}")
        await self._forward(await _body(receive), send)

    async def _forward(self, body: bytes, send: Send) -> None:
        async with self._session.post(self._url, data=body, headers=self._headers) as upstream:
            content_type = (b"content-type", upstream.headers["content-type"].encode())
            if not content_type[1].startswith(b"text/event-stream"):
                return await _answer(send, upstream.status, content_type, await upstream.read())
            await send({"type": "http.response.start", "status": upstream.status, "headers": [content_type]})
            async for chunk in upstream.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._session.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body


async def _answer(send: Send, status: int, content_type: tuple[bytes, bytes], body: bytes) -> None:
    headers = [content_type, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True, help="where to forward to, whole URL")
    parser.add_argument("--key", required=True, help="the only bearer that may pass")
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        Relay(options.upstream, options.key),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
