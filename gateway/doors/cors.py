"""Cross-origin requests from browsers, where LLM_ENABLE_CORS allows them. Credentials are headers that a page sets, never cookies, so
no answer is made readable that the page could not have asked for by itself."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[..., Awaitable[None]]

# The admin and the rest of the control plane are for pages of our own.
_PATHS = ("/v1/", "/openai/", "/api/generate", "/api/count-tokens", "/api/v1/chat/", "/api/v1/models", "/api/v1/tasks", "/api/v1/process/")
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9, \-]{0,2000}")
_EXPOSED = b", ".join(
    (
        *(b"age", b"request-id", b"retry-after", b"retry-after-ms", b"x-request-id", b"x-should-retry"),
        *(b"x-llm-alias", b"x-llm-attempts", b"x-llm-cache", b"x-llm-config-version", b"x-llm-cost", b"x-llm-degraded"),
        *(b"x-llm-dropped-params", b"x-llm-explain", b"x-llm-idempotent-replay", b"x-llm-model", b"x-llm-prompt", b"x-llm-provider"),
        *(b"x-llm-saved", b"x-llm-token-count"),
        *(b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
        *(b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
    )
)
_MAX_AGE_S = b"600"


class Cors:
    """In front of the data plane's routes."""

    def __init__(self, app: Asgi, origins: Collection[str]) -> None:
        """`origins`: such as https://app.example.com; "*" = any."""
        self._app = app
        self._any = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is None or not scope["path"].startswith(_PATHS):
            await self._app(scope, receive, send)
        elif not self._any and origin not in self._origins:
            await self._app(scope, receive, send)  # answered without a word of CORS, which the browser keeps from the page
        elif scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _answer_preflight(self._allowing(origin), headers.get(b"access-control-request-headers", b""), send)
        else:
            await self._app(scope, receive, _adding(send, [*self._allowing(origin), (b"access-control-expose-headers", _EXPOSED)]))

    def _allowing(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        return [(b"access-control-allow-origin", b"*" if self._any else origin), (b"vary", b"Origin")]


async def _answer_preflight(allowing: list[tuple[bytes, bytes]], asked: bytes, send: Send) -> None:
    headers = [
        *allowing,
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", asked if _HEADER_NAMES.fullmatch(asked) else b""),
        (b"access-control-max-age", _MAX_AGE_S),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _adding(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return with_headers
