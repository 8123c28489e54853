"""A gateway that is told everything by environment variables: a provider, a token, and pages of other origins."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from tests.fault_vendor import FaultVendor
from tests.live import LiveServer

TOKEN = "our-own-token-of-thirty-characters"
ORIGIN = "https://app.example"
_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(url: str, method: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), named, method=method)
    try:
        with _LOCAL.open(request, timeout=30) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except HTTPError as refused:
        with refused:
            return refused.code, {name.lower(): value for name, value in refused.headers.items()}, refused.read()


def _from_a_page(base_url: str) -> None:
    asked = {"Origin": ORIGIN, "Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization, x-stainless-lang"}
    status, headers, _ = call(f"{base_url}/v1/chat/completions", "OPTIONS", **asked)
    assert (status, headers["access-control-allow-origin"]) == (204, ORIGIN)
    assert headers["access-control-allow-headers"] == "authorization, x-stainless-lang"
    body = {"prompt": "hello", "model": "ok"}
    status, headers, answer = call(f"{base_url}/api/generate", "POST", body, Authorization=f"Bearer {TOKEN}", Origin=ORIGIN)
    assert (status, json.loads(answer)["provider"]) == (200, "openai")
    assert headers["access-control-allow-origin"] == ORIGIN
    assert "x-request-id" in headers["access-control-expose-headers"]
    status, headers, _ = call(f"{base_url}/v1/models", "GET", Authorization="Bearer nobody", Origin=ORIGIN)
    assert (status, headers["access-control-allow-origin"]) == (401, ORIGIN)
    status, headers, _ = call(f"{base_url}/v1/models", "GET", Authorization=f"Bearer {TOKEN}", Origin="https://evil.example")
    assert (status, "access-control-allow-origin" in headers) == (200, False)
    for path in ("/admin/login/", "/api/v1/llm/providers", "/metrics"):
        _, headers, _ = call(base_url + path, "GET", Origin=ORIGIN)
        assert "access-control-allow-origin" not in headers


async def test_a_provider_a_token_and_other_origins(tmp_path: Path) -> None:
    async with FaultVendor() as vendor:
        env = {
            "OPENAI_API_KEY": "sk-planted-vendor-key-0001",
            "OPENAI_BASE_URL": vendor.base_url,
            "OUTBOUND_ALLOW": f"127.0.0.0/8:{vendor.port}",
            "LLM_PROVIDER": "openai",
            "MAX_RESPONSE_TOKENS": "7",
            "OPENAI_TEMPERATURE": "0.25",
            "LLM_AUTH_TOKEN": TOKEN,
            "LLM_ENABLE_CORS": "true",
            "LLM_CORS_ORIGINS": ORIGIN,
        }
        server = LiveServer(tmp_path, model="none", env=env)
        try:
            await asyncio.to_thread(server.start)
            await asyncio.to_thread(_from_a_page, server.base_url)
        finally:
            await asyncio.to_thread(server.stop)
        assert vendor.ledger
        assert vendor.unexpected == []
        assert TOKEN not in server.log.read_text()
