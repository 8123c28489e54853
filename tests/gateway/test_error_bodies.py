"""A vendor's status stands, whatever becomes of the body that comes with it."""

from __future__ import annotations

import msgspec
import pytest

from core.clock import FrozenClock
from core.config import KeySpec, ModelSpec, ProviderSpec
from core.errors import ProviderLimited, ProviderRejectedOurKey
from core.secrets import Secret
from gateway.doors import anthropic_messages, openai_chat
from gateway.runtime import ProviderRuntime
from tests.core.raw_server import RawServer

BODY = msgspec.json.encode({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]})
MODEL = ModelSpec(id="m", alias="m", model_id="v", provider_id="p")
UNREADABLE = {
    "a long page": b"Content-Length: 70000\r\n\r\n" + b"<" * 70_000,
    "a coding nobody asked for": b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
    "cut short": b"Content-Length: 100\r\n\r\n{",
}


def runtime_for(server: RawServer, kind: str) -> ProviderRuntime:
    spec = ProviderSpec(id="p", name="p", kind=kind, base_url=f"http://127.0.0.1:{server.port}", keys=(KeySpec("k", "", Secret("s")),))
    return ProviderRuntime(spec, server.transport, FrozenClock(), 1)


@pytest.mark.parametrize("name", UNREADABLE)
async def test_a_limit_stays_a_limit(name: str) -> None:
    async with RawServer(b"HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\n" + UNREADABLE[name], close=name == "cut short") as server:
        upstream = await runtime_for(server, "openai_compatible").acquire(MODEL, lambda: 60.0)
        with pytest.raises(ProviderLimited) as caught:
            await upstream.send(openai_chat.parse(BODY), MODEL)
        upstream.close(caught.value)
        assert (caught.value.vendor_status, caught.value.retry_after_s) == (429, 7.0)


@pytest.mark.parametrize("name", UNREADABLE)
async def test_counting_tokens_with_a_key_that_is_rejected(name: str) -> None:
    async with RawServer(b"HTTP/1.1 401 No\r\n" + UNREADABLE[name], close=name == "cut short") as server:
        upstream = await runtime_for(server, "anthropic").acquire(MODEL, lambda: 60.0)
        with pytest.raises(ProviderRejectedOurKey) as caught:
            await upstream.count(anthropic_messages.parse(BODY), MODEL)
        upstream.close(caught.value)
