"""Real vendors' answers, read through the adapter from the recording itself: no server, no loop, no network."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core import errors
from core.chat import Usage
from core.outbound import Guard, GuardedTransport
from providers.adapters.registry import adapter_for
from tests import replay
from tests.adapters.cast import SECRET, Heard, model, provider, request

EXCHANGES = replay.chat_exchanges("openai", "vllm", "llamacpp", "ollama")
MORE = replay.chat_exchanges(
    "deepseek", "groq", "mistral", "moonshot", "xai", "perplexity", "openrouter", "azure", "zhipu", "openai-compatible"
)
ERRORS = {
    "openai-error-400-reasoning-param-9c61d1": errors.ProviderRefused,
    "openai-error-403-region-r649e0": errors.ProviderRejectedOurKey,
    "openai-error-404-1f8d68": errors.ProviderLacksModel,
    "openai-error-429-too-large-r91e0f": errors.ProviderRefused,
    "openai-error-429-tpm-r4e285": errors.ProviderLimited,
    "openai-error-500-r3d72d": errors.ProviderFault,
    "openai-error-502-html-rc4328": errors.ProviderFault,
    "vllm-error-400-context-legacy-r74edb": errors.ContextTooLong,
    "vllm-error-404-r633ec": errors.ProviderLacksModel,
    "llamacpp-error-400-context-rdd274": errors.ContextTooLong,
    "llamacpp-error-503-loading-r0c33e": errors.ProviderFault,
    "ollama-error-404-r3d4a0": errors.ProviderLacksModel,
    "azure-error-400-unsupported-param-r89e74": errors.ProviderRefused,
    "azure-error-429-r3239a": errors.ProviderLimited,
    "groq-error-400-008260": errors.ProviderRefused,
    "mistral-error-401-4c7fe3": errors.ProviderRejectedOurKey,
    "deepseek-error-401-32ce27": errors.ProviderRejectedOurKey,
    "deepseek-error-402-rde35d": errors.ProviderRejectedOurKey,
    "deepseek-error-503-r04937": errors.ProviderFault,
    "moonshot-error-400-context-rbd4e8": errors.ContextTooLong,
    "moonshot-error-401-rd0725": errors.ProviderRejectedOurKey,
    "moonshot-error-429-overloaded-r19149": errors.ProviderLimited,
    "moonshot-error-429-rpm-r50ace": errors.ProviderLimited,
}
BREAKS = {
    "deepseek-insufficient-system-resource-r571e9": errors.ProviderFault,
    "groq-mid-stream-error-009fa8": errors.ProviderRefused,
    "groq-mid-stream-error-eba423": errors.ProviderRefused,
}


def adapter_of(exchange: dict[str, Any]) -> Any:
    kind = exchange["provider"] if exchange["provider"] in ("openai", "vllm", "llamacpp", "ollama") else "openai_compatible"
    return adapter_for(provider(kind))


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)] if size else [body]


def bucket(usage: dict[str, Any]) -> Usage:
    """The simple reading: prompt less what the cache gave, the completion, and reasoning for show."""
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or usage.get("cached_tokens") or 0
    cached = 0 if cached > usage["prompt_tokens"] else cached  # grok on Azure: more cached than there was
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    output = usage["total_tokens"] - usage["prompt_tokens"]
    return Usage(input=usage["prompt_tokens"] - cached, cached_input=cached, output=output, reasoning=reasoning)


def test_the_recordings_are_here() -> None:
    replay.require()
    assert len(EXCHANGES) > 25


@pytest.mark.parametrize("exchange", EXCHANGES + MORE)
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_an_exchange_reads_as_it_was(exchange: dict[str, Any], cut: int) -> None:
    response, adapter = exchange["response"], adapter_of(exchange)
    body = replay.body_of(response)
    if response["status"] != 200:
        error = adapter.read_error(response["status"], {name.lower(): value for name, value in response["headers"].items()}, body)
        assert type(error) is ERRORS[exchange["id"]]
        assert "<" not in error.message
        return
    if exchange["id"] in BREAKS:
        with pytest.raises(BREAKS[exchange["id"]]):
            read_stream(adapter, body, cut) if "lines" in response else adapter.read_answer(body)
        return
    if "lines" in response:
        check_stream(adapter, body, cut)
    else:
        check_answer(adapter, body)


def read_stream(adapter: Any, body: bytes, cut: int, wants_usage: bool = True) -> tuple[Any, bytes]:
    reader = adapter.stream_reader(request({"model": "alias", "stream": True}, wants_usage=wants_usage))
    forwarded = b"".join([reader.feed(piece) for piece in pieces(body, cut)])
    reader.finish()
    return reader, forwarded


def check_stream(adapter: Any, body: bytes, cut: int) -> None:
    if b'"content":[' in body.replace(b" ", b""):  # Mistral's lists of parts: the simple client cannot read them
        reader, _ = read_stream(adapter, body, cut)
        assert reader.content_started
        return
    said = Heard(body)
    reader, forwarded = read_stream(adapter, body, cut)
    heard = Heard(forwarded)
    assert heard.facts() == said.facts()
    assert not heard.done
    assert reader.done == (said.done and body.endswith(b"\n\n"))  # an event without its blank line never happened
    assert reader.finish_reason == said.finish[0]
    assert all("finish_reason" in choice and "delta" in choice for chunk in heard.chunks for choice in chunk["choices"])
    assert reader.content_started == bool(said.text or said.reasoning or said.tools)
    assert reader.output_bytes >= len(said.text.encode())
    if said.usage:
        assert reader.usage == bucket(said.usage)
        assert heard.usage == said.usage
    else:
        assert reader.usage is None or "usage" in said.chunks[-1]["choices"][0] or any("x_groq" in chunk for chunk in said.chunks)


@pytest.mark.parametrize("exchange", [param for param in EXCHANGES if param.values[0] and "lines" in param.values[0]["response"]])
def test_a_usage_chunk_is_withheld_from_a_client_that_did_not_ask(exchange: dict[str, Any]) -> None:
    body = replay.body_of(exchange["response"])
    _, forwarded = read_stream(adapter_of(exchange), body, 0, wants_usage=False)
    heard = Heard(forwarded)
    assert heard.facts() == Heard(body).facts()
    assert [chunk for chunk in heard.chunks if not chunk["choices"] and chunk.get("usage")] == []


def check_answer(adapter: Any, body: bytes) -> None:
    recorded = json.loads(body)
    answer = adapter.read_answer(body)
    given = json.loads(answer.body)
    assert answer.usage == (bucket(recorded["usage"]) if recorded.get("usage") else None)
    assert answer.finish_reason == recorded["choices"][0]["finish_reason"]
    assert given.get("usage") == recorded.get("usage")
    for was, now in zip(recorded["choices"], given["choices"], strict=True):
        message = was.get("message") or {}
        assert {name: now["message"].get(name) for name in message} == message
        assert now["finish_reason"] == was["finish_reason"]
        assert {"refusal", "content", "role"} <= set(now["message"])
        assert {"index", "logprobs"} <= set(now)
    assert {"id", "object", "created", "model"} <= set(given)
    text = recorded["choices"][0].get("message", {}).get("content") or ""
    assert answer.output_bytes >= (len(text.encode()) if isinstance(text, str) else 1)


@pytest.mark.parametrize("exchange", [param for param in EXCHANGES if param.values[0] and param.values[0]["request"]["body"]])
def test_what_we_send_is_what_was_recorded(exchange: dict[str, Any]) -> None:
    recorded = exchange["request"]["body"]
    asked = request({**recorded, "model": "alias"})
    call = adapter_of(exchange).chat_call(asked, model(recorded["model"]), SECRET)
    assert call.body is not None
    differences = replay.differences(recorded, json.loads(call.body))
    if recorded.get("stream") and not (recorded.get("stream_options") or {}).get("include_usage"):
        differences = [line for line in differences if not line.startswith("$.stream_options")]
    assert differences == []
    assert call.url.endswith("/v1/chat/completions")


def test_a_pass_through_answer_keeps_every_byte() -> None:
    replay.require()
    kept = [
        exchange["id"]
        for exchange in replay.exchanges("openai")
        if exchange["response"]["status"] == 200
        and exchange["request"]["path"].endswith("/chat/completions")
        and "body" in exchange["response"]
        if adapter_of(exchange).read_answer(body := replay.body_of(exchange["response"])).body is body
    ]
    assert "openai-cached-de2ea8" in kept
    assert "openai-length-f206a5" not in kept


@pytest.mark.parametrize("exchange", [param for param in EXCHANGES if param.values[0] and param.values[0]["response"]["status"] == 200])
def test_what_we_answer_is_valid_by_openais_published_schema(exchange: dict[str, Any]) -> None:
    body, adapter = replay.body_of(exchange["response"]), adapter_of(exchange)
    if "lines" in exchange["response"]:
        _, forwarded = read_stream(adapter, body, 0)
        validator, values = replay.schema_validator("CreateChatCompletionStreamResponse"), Heard(forwarded).chunks
    else:
        validator, values = replay.schema_validator("CreateChatCompletionResponse"), [json.loads(adapter.read_answer(body).body)]
    assert values
    assert [error.message for value in values for error in validator.iter_errors(value)] == []


async def test_an_exchange_replays_over_a_socket() -> None:
    with replay.replay_server() as address:
        transport = GuardedTransport(Guard([("127.0.0.0/8", None)]))
        for exchange in (param.values[0] for param in EXCHANGES):
            adapter = adapter_for(provider("openai", f"{address}/{exchange['id']};chunk=5/v1"))
            recorded = exchange["request"]["body"] or {"model": "alias", "messages": []}
            response = await adapter.send(transport, adapter.chat_call(request(recorded), model(recorded["model"]), SECRET))
            assert response.status == exchange["response"]["status"]
            expected = replay.body_of(exchange["response"])
            got = await response.read(2**20)
            assert got == expected
        await transport.close()
