"""Real answers of the vendors that have OpenAI's wire and are not OpenAI, each through the row of the registry that is theirs."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from core import errors
from providers.adapters.registry import adapter_for
from tests import replay
from tests.adapters.cast import SECRET, Heard, model, provider, request
from tests.adapters.test_recorded import check_reading, read_stream, sent_differences

KINDS = {"dashscope": "dashscope_compatible", "openai-compatible": "openai_compatible", "gemini": "openai_compatible"}
VENDORS = (
    *("azure", "deepseek", "moonshot", "ark", "qianfan", "dashscope", "groq", "mistral", "openrouter", "xai", "perplexity", "zhipu"),
    *("openai-compatible", "gemini"),
)
EXCHANGES = replay.chat_exchanges(*VENDORS)
ERRORS: dict[str, type[errors.GatewayError]] = {
    "ark-error-400-invalidparameter-rfee29": errors.ContextTooLong,
    "ark-error-401-authenticationerror-r9576d": errors.ProviderRejectedOurKey,
    "ark-error-403-accountoverdueerror-r50d43": errors.ProviderRejectedOurKey,
    "ark-error-404-modelnotopen-rfb9c5": errors.ProviderLacksModel,
    "ark-error-429-ratelimitexceeded-rc3265": errors.ProviderLimited,
    "ark-error-429-serveroverloaded-r4e26f": errors.ProviderLimited,
    "ark-error-500-internalserviceerror-r96c36": errors.ProviderFault,
    "azure-error-400-unsupported-param-r89e74": errors.ProviderRefused,
    "azure-error-429-r3239a": errors.ProviderLimited,
    "dashscope-error-400-context-r8664f": errors.ContextTooLong,
    "dashscope-error-401-36aa0a": errors.ProviderRejectedOurKey,
    "dashscope-error-404-model-r14755": errors.ProviderLacksModel,
    "dashscope-error-429-quota-r4f0b3": errors.ProviderRejectedOurKey,
    "dashscope-error-429-rpm-ra26fe": errors.ProviderLimited,
    "deepseek-error-401-32ce27": errors.ProviderRejectedOurKey,
    "deepseek-error-402-rde35d": errors.ProviderRejectedOurKey,
    "deepseek-error-503-r04937": errors.ProviderFault,
    "deepseek-insufficient-system-resource-r571e9": errors.ProviderFault,
    "groq-error-400-008260": errors.ProviderRefused,
    "groq-mid-stream-error-009fa8": errors.ProviderRefused,
    "groq-mid-stream-error-eba423": errors.ProviderRefused,
    "mistral-error-401-4c7fe3": errors.ProviderRejectedOurKey,
    "moonshot-error-400-context-rbd4e8": errors.ContextTooLong,
    "moonshot-error-401-rd0725": errors.ProviderRejectedOurKey,
    "moonshot-error-429-overloaded-r19149": errors.ProviderLimited,
    "moonshot-error-429-rpm-r50ace": errors.ProviderLimited,
    "qianfan-error-400-tokens-too-long-r87f4d": errors.ContextTooLong,
    "qianfan-error-401-invalid-iam-token-r1ef7d": errors.ProviderRejectedOurKey,
    "qianfan-error-401-invalid-model-re2435": errors.ProviderLacksModel,
    "qianfan-error-429-tpm-rate-limit-exceeded-rb3878": errors.ProviderLimited,
    "qianfan-error-500-internal-error-rbbdb7": errors.ProviderFault,
}
ADDRESSES = {"gemini": "https://generativelanguage.googleapis.com/v1beta/openai", "openai-compatible": "https://vendor.test/v1"}
# Where what we send may differ from what was recorded, and why: (vendor or "" for any, how the difference begins).
INTENDED = {
    ("", "$.stream_options: extra"): "usage is asked of every stream: what was spent must be known",
    ("azure", "$.model"): "the deployment is named in the body too, as Azure's own SDK does",
    (
        "azure",
        "address: RESOURCE.services.ai.azure.com/openai/v1/",
    ): "the inference path is older than v1, which serves the same models",
    ("zhipu", "address: open.bigmodel.cn"): "recorded at the address for the rest of the world, which an admin enters",
}
# What a client gets otherwise than the vendor said it, and why: how the difference begins, whatever the position.
REPAIRED = {
    '$.choices[].delta.tool_calls[].id: missing (recorded "")': "OpenAI's client adds ids up, others keep the last",
    '$.choices[].delta.tool_calls[].type: missing (recorded "")': "OpenAI's own client keeps the last: a blank undoes the first",
    '$.choices[].delta.tool_calls[].function.name: missing (recorded "")': "as for ids",
    "$.choices[].message: extra": "Azure leaves a filtered message out, and clients reach into it",
    "$.choices[].message.content:": "Mistral's list of parts is no text to a client of OpenAI's",
    "$.choices[].message.reasoning_content: extra": "the thought of that list",
    "$.choices[].delta.content:": "as for messages",
    "$.choices[].delta.reasoning_content: extra": "as for messages",
}


def adapter_of(exchange: dict[str, Any]) -> Any:
    """The adapter as an admin would set it up for this exchange."""
    vendor, asked = exchange["provider"], exchange["request"]
    if vendor != "azure":
        return adapter_for(provider(KINDS.get(vendor, vendor), ADDRESSES.get(vendor, "")))
    path, _, query = asked["path"].partition("?")
    options = {"style": "classic", "api_version": query.removeprefix("api-version=")} if "/deployments/" in path else {}
    return adapter_for(provider("azure", f"https://{asked.get('host') or 'resource.openai.azure.com'}", options=options))


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_an_exchange_reads_as_it_was(exchange: dict[str, Any], cut: int) -> None:
    check_reading(adapter_of(exchange), exchange, cut, ERRORS)


def test_what_we_send_is_what_was_recorded() -> None:
    replay.require()
    met: set[tuple[str, str]] = set()
    unexplained: dict[str, list[str]] = {}
    for exchange in (param.values[0] for param in EXCHANGES):
        if exchange["request"]["body"] is None:
            continue
        for difference in sent_differences(adapter_of(exchange), exchange):
            reasons = {key for key in INTENDED if key[0] in ("", exchange["provider"]) and difference.startswith(key[1])}
            met |= reasons
            if not reasons:
                unexplained.setdefault(exchange["id"], []).append(difference)
    assert unexplained == {}
    assert met == set(INTENDED)


def test_a_list_of_models_is_read() -> None:
    replay.require()
    (listing,) = [found for found in replay.exchanges("deepseek") if found["request"]["path"] == "/models"]
    adapter = adapter_of(listing)
    call = adapter.models_call(SECRET)
    assert (call.method, call.url) == ("GET", f"https://{listing['request']['host']}{listing['request']['path']}")
    assert adapter.read_models(replay.body_of(listing["response"])) == ["deepseek-v4-flash", "deepseek-v4-pro"]


@pytest.mark.parametrize("id_", ["dashscope-tool-call-stream-b9bae9", "ark-tool-call-stream-rd9bc6"])
def test_a_blank_id_does_not_undo_the_first(id_: str) -> None:
    """The recording has blanks, which a client that keeps the last would take; nothing of them is passed on."""
    replay.require()
    (exchange,) = [param.values[0] for param in EXCHANGES if param.values[0]["id"] == id_]
    body = replay.body_of(exchange["response"])
    _, forwarded = read_stream(adapter_of(exchange), body, 0)
    assert b'"id":""' in body.replace(b" ", b"")
    assert b'"id":""' not in forwarded.replace(b" ", b"")
    assert Heard(forwarded).tools == Heard(body).tools


def test_mistrals_list_of_parts_is_text_and_thought() -> None:
    replay.require()
    (exchange,) = [param.values[0] for param in EXCHANGES if param.values[0]["id"] == "mistral-reasoning-stream-vercel-e2490c"]
    _, forwarded = read_stream(adapter_of(exchange), replay.body_of(exchange["response"]), 0)
    heard = Heard(forwarded)
    assert (heard.text, heard.reasoning) == ("2 + 2 = 4", "The user is asking for 2+2. This is basic arithmetic. 2+2=4.")


def answer_differences(exchange: dict[str, Any]) -> list[str]:
    """How what a client gets differs from what the vendor said, event by event; absent, null and false are the same."""
    adapter, body = adapter_of(exchange), replay.body_of(exchange["response"])
    if "lines" not in exchange["response"]:
        return replay.differences(json.loads(body), json.loads(adapter.read_answer(body, request()).body))
    _, forwarded = read_stream(adapter, body, 0)
    pairs = zip(Heard(body).chunks, Heard(forwarded).chunks, strict=True)
    return [difference for said, given in pairs for difference in replay.differences(said, given)]


def test_what_a_client_gets_is_what_the_vendor_said() -> None:
    replay.require()
    met: set[str] = set()
    unexplained: dict[str, list[str]] = {}
    for exchange in (param.values[0] for param in EXCHANGES):
        if exchange["response"]["status"] != 200 or exchange["id"] in ERRORS:
            continue
        for difference in answer_differences(exchange):
            reasons = {start for start in REPAIRED if re.sub(r"\[\d+\]", "[]", difference).startswith(start)}
            met |= reasons
            if not reasons:
                unexplained.setdefault(exchange["id"], []).append(difference)
    assert unexplained == {}
    assert met == set(REPAIRED)


ELSEWHERE: dict[str, type[errors.GatewayError]] = {
    "azure-error-401-6bf19b": errors.ProviderRejectedOurKey,
    "deepseek-error-400-1d05c7": errors.ProviderRefused,
    "ollama-error-404-native-b94387": errors.ProviderLacksModel,
    "openai-error-400-b8d577": errors.ProviderRefused,
    "openai-error-401-ca454d": errors.ProviderRejectedOurKey,
    "openai-error-401-ce10a6": errors.ProviderRejectedOurKey,
    "openai-error-404-8c6458": errors.ProviderLacksModel,
    "openai-error-context-988815": errors.ContextTooLong,
}


def test_an_error_of_another_endpoint_is_the_same_error() -> None:
    replay.require()
    chat = {param.values[0]["id"] for param in EXCHANGES}
    failed = [
        exchange
        for vendor in (*VENDORS, "openai", "vllm", "llamacpp", "ollama")
        if vendor not in ("dashscope", "gemini")  # with wires of their own
        for exchange in replay.exchanges(vendor)
        if exchange["response"]["status"] != 200 and exchange["id"] not in chat and "/chat/completions" not in exchange["request"]["path"]
    ]
    assert {exchange["id"] for exchange in failed} == set(ELSEWHERE)
    for exchange in failed:
        check_reading(adapter_of(exchange), exchange, 0, ELSEWHERE)


@pytest.mark.parametrize(("id_", "dialect"), [("azure-embeddings-7af96f", "embeddings"), ("azure-responses-bfd142", "responses")])
def test_azures_other_endpoints_are_where_they_were_recorded(id_: str, dialect: str) -> None:
    replay.require()
    (exchange,) = [found for found in replay.exchanges("azure") if found["id"] == id_]
    recorded = exchange["request"]
    path, _, query = recorded["path"].partition("?")
    deployment = path.partition("/deployments/")[2].partition("/")[0] or recorded["body"]["model"]
    options = {
        "style": "classic",
        "api_version": query.removeprefix("api-version="),
        "deployments": {recorded["body"]["model"]: deployment},
    }
    adapter = adapter_for(provider("azure", f"https://{recorded['host']}", options=options))
    asked = request({**recorded["body"], "model": "alias"})
    asked.dialect = SimpleNamespace(NAME=dialect)  # type: ignore[assignment]
    call = adapter.chat_call(asked, model(recorded["body"]["model"]), SECRET)
    assert call.url == f"https://{recorded['host']}{recorded['path']}"
    assert replay.differences({**recorded["body"], "model": deployment}, json.loads(call.body or b"")) == []
