"""Error answers of every wire: our key's troubles are never the client's, and no body comes through unread."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.errors import ProviderTimeout
from gateway.doors import anthropic_messages, completions, embeddings, generate, openai_chat, responses
from providers.adapters.registry import adapter_for
from tests.adapters.cast import KEY, provider

BASE_URLS = {"azure": "https://r.openai.azure.com", "openai_compatible": "https://v.test/v1"}
KINDS = ("openai", "openai_compatible", "groq", "mistral", "azure", "anthropic", "gemini", "dashscope")
BODIES: tuple[Any, ...] = (
    {"error": {"type": "authentication_error", "message": f"bad {KEY}", "code": "invalid_api_key", "param": KEY}},
    {"error": {"status": "UNAUTHENTICATED", "message": f"bad {KEY}", "code": 401}},
    {"code": "InvalidApiKey", "message": f"bad {KEY}"},
    {"detail": [{"loc": [KEY], "msg": KEY}]},
    {"error": {"message": {"a": KEY}, "param": {"x": 1}, "code": [KEY]}},
    f"plain words with {KEY}",
    f"<html>{KEY}</html>",
    None,
    [],
)


@pytest.mark.parametrize("kind", KINDS)
def test_no_status_of_a_vendors_makes_the_client_doubt_its_own_key(kind: str) -> None:
    adapter = adapter_for(provider(kind, BASE_URLS.get(kind, "")))
    for status in range(300, 600):
        for body in BODIES:
            raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            error = adapter.read_error(status, {}, raw)
            assert error.http_status not in (401, 403), (status, body)
            assert KEY not in f"{error.message} {error.param} {error.detail}", (status, body)
            assert "<html" not in error.message
            for dialect in (anthropic_messages, completions, embeddings, generate, openai_chat, responses):
                assert KEY.encode() not in dialect.error_body(error) + dialect.stream_error(error)
                told = json.loads(dialect.error_body(error))["error"]
                assert told["message"] == error.message
                assert told["type"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_vendor_that_gave_up_waiting_blames_nobody_and_may_be_asked_again(kind: str) -> None:
    error = adapter_for(provider(kind, BASE_URLS.get(kind, ""))).read_error(408, {}, b'{"error":{"message":"Timed out."}}')
    assert isinstance(error, ProviderTimeout)
    assert error.retryable
