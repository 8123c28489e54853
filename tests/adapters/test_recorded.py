"""Real vendors' answers, read through the adapter from the recording itself: no server, no loop, no network."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from core import errors
from core.chat import Usage
from core.outbound import Guard, GuardedTransport
from providers.adapters.registry import adapter_for
from tests import replay
from tests.adapters.cast import SECRET, Heard, model, provider, request, spoken

EXCHANGES = replay.chat_exchanges("openai", "vllm", "llamacpp", "ollama")
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
}


def adapter_of(exchange: dict[str, Any], kind: str = "") -> Any:
    return adapter_for(provider(kind or exchange["provider"]))


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)] if size else [body]


def bucket(usage: dict[str, Any]) -> Usage:
    """The simple reading: prompt less what the cache gave and images cost, and all that the total has beyond the prompt."""
    details = usage.get("prompt_tokens_details") or {}
    prompt = usage["prompt_tokens"]
    cached = details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or usage.get("cached_tokens") or 0
    cached = 0 if cached > prompt else cached  # grok on Azure: more cached than there was
    image = min(details.get("image_tokens") or 0, prompt - cached)  # and images that were cached
    out = usage["total_tokens"] - prompt
    reasoning = max((usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0, out - usage["completion_tokens"])
    return Usage(input=prompt - cached - image, cached_input=cached, input_image=image, output=out - reasoning, reasoning=reasoning)


def test_the_recordings_are_here() -> None:
    replay.require()
    assert len(EXCHANGES) > 25


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_an_exchange_reads_as_it_was(exchange: dict[str, Any], cut: int) -> None:
    check_reading(adapter_of(exchange), exchange, cut, ERRORS)


def check_reading(adapter: Any, exchange: dict[str, Any], cut: int, expected: dict[str, type]) -> None:
    """The answer of the recording through `adapter`, streams cut into pieces of `cut` bytes, 0 = whole; `expected` errors by id."""
    response = exchange["response"]
    body = replay.body_of(response)
    if response["status"] != 200:
        error = adapter.read_error(response["status"], {name.lower(): value for name, value in response["headers"].items()}, body)
        assert type(error) is expected[exchange["id"]]
        assert "<html" not in error.message.lower()
    elif exchange["id"] in expected:
        with pytest.raises(expected[exchange["id"]]):
            read_stream(adapter, body, cut) if "lines" in response else adapter.read_answer(body, request())
    elif "lines" in response:
        check_stream(adapter, body, cut)
    else:
        check_answer(adapter, body)


def read_stream(adapter: Any, body: bytes, cut: int, wants_usage: bool = True) -> tuple[Any, bytes]:
    reader = adapter.stream_reader(request({"model": "alias", "stream": True}, wants_usage=wants_usage))
    forwarded = b"".join([reader.feed(piece) for piece in pieces(body, cut)])
    reader.finish()
    return reader, forwarded


def check_stream(adapter: Any, body: bytes, cut: int) -> None:
    said = Heard(body)
    reader, forwarded = read_stream(adapter, body, cut)
    heard = Heard(forwarded)
    assert heard.facts() == said.facts()
    assert not heard.done
    assert reader.done == (said.done and body.endswith(b"\n\n"))  # an event without its blank line never happened
    assert reader.finish_reason == said.finish[0]
    choices = [choice for chunk in heard.chunks for choice in chunk["choices"]]
    assert all("finish_reason" in choice and "delta" in choice for choice in choices)
    assert all(isinstance(choice["delta"].get("content"), str | None) for choice in choices)
    check_calls([choice["delta"] for choice in choices])
    assert reader.content_started == bool(said.text or said.reasoning or said.tools)
    assert reader.output_bytes >= len(said.text.encode())
    check_usage(reader.usage, said.usage)
    assert heard.usage == said.usage


def check_calls(deltas: list[dict[str, Any]]) -> None:
    """A client that keeps the last of what it is told has the same calls as one that keeps the first."""
    calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    for call in calls:
        assert call.get("id", "x") != ""
        assert call.get("type", "function") in ("function", None)
        assert call["function"].get("name", "x") != ""


def check_usage(usage: Usage | None, recorded: Any) -> None:
    """All of them were served at the usual tier, whether the vendor says so or not."""
    assert usage is None or usage.service_tier in (None, "")
    counted = msgspec.structs.replace(usage, service_tier=None) if usage else None
    assert counted == (bucket(recorded) if recorded else None)


@pytest.mark.parametrize("exchange", [param for param in EXCHANGES if param.values[0] and "lines" in param.values[0]["response"]])
def test_a_usage_chunk_is_withheld_from_a_client_that_did_not_ask(exchange: dict[str, Any]) -> None:
    body = replay.body_of(exchange["response"])
    _, forwarded = read_stream(adapter_of(exchange), body, 0, wants_usage=False)
    heard = Heard(forwarded)
    assert heard.facts() == Heard(body).facts()
    assert [chunk for chunk in heard.chunks if not chunk["choices"] and chunk.get("usage")] == []


def check_answer(adapter: Any, body: bytes) -> None:
    recorded = json.loads(body)
    answer = adapter.read_answer(body, request())
    given = json.loads(answer.body)
    check_usage(answer.usage, recorded.get("usage"))
    assert answer.finish_reason == recorded["choices"][0]["finish_reason"]
    assert given.get("usage") == recorded.get("usage")
    for was, now in zip(recorded["choices"], given["choices"], strict=True):
        message = was.get("message") or {}
        kept = [name for name in message if name != "content"]
        assert {name: now["message"].get(name) for name in kept} == {name: message[name] for name in kept}
        assert spoken(now["message"]) == spoken(message)
        assert isinstance(now["message"]["content"], str | None)
        assert now["finish_reason"] == was["finish_reason"]
        assert {"refusal", "content", "role"} <= set(now["message"])
        assert {"index", "logprobs"} <= set(now)
        check_calls([now["message"]])
    assert {"id", "object", "created", "model"} <= set(given)
    assert answer.output_bytes >= len("".join(spoken(recorded["choices"][0].get("message") or {})).encode())


def sent_differences(adapter: Any, exchange: dict[str, Any]) -> list[str]:
    """How the call for the recorded request differs from it: host and path where they were kept, and the body."""
    recorded = exchange["request"]
    deployment = recorded["path"].partition("/deployments/")[2].partition("/")[0]
    model_id = recorded["body"].get("model") or deployment or "vendor-model"
    call = adapter.chat_call(request({**recorded["body"], "model": "alias"}), model(model_id), SECRET)
    address = urlsplit(call.url)
    expected = f"{recorded.get('host') or address.netloc}{recorded['path']}"
    given = f"{address.netloc}{address.path}{'?' if address.query else ''}{address.query}"
    moved = [] if given == expected else [f"address: {given} for {expected}"]
    return moved + replay.differences(recorded["body"], json.loads(call.body))


@pytest.mark.parametrize("exchange", [param for param in EXCHANGES if param.values[0] and param.values[0]["request"]["body"]])
def test_what_we_send_is_what_was_recorded(exchange: dict[str, Any]) -> None:
    recorded = exchange["request"]["body"]
    adapter = adapter_for(provider(exchange["provider"], f"https://{exchange['request'].get('host') or 'vendor.test'}/v1"))
    differences = sent_differences(adapter, exchange)
    if recorded.get("stream") and not (recorded.get("stream_options") or {}).get("include_usage"):
        differences = [line for line in differences if not line.startswith("$.stream_options")]
    assert differences == []


def test_a_pass_through_answer_keeps_every_byte() -> None:
    replay.require()
    kept = [
        exchange["id"]
        for exchange in replay.exchanges("openai")
        if exchange["response"]["status"] == 200
        and exchange["request"]["path"].endswith("/chat/completions")
        and "body" in exchange["response"]
        if adapter_of(exchange).read_answer(body := replay.body_of(exchange["response"]), request()).body is body
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
        validator, values = replay.schema_validator("CreateChatCompletionResponse"), [json.loads(adapter.read_answer(body, request()).body)]
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
