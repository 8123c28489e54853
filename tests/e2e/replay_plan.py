"""How each recorded exchange is replayed: behind which type of provider, through which door, with which request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from providers.adapters import registry
from tests import replay
from tests.adapters import test_recorded_dashscope as of_dashscope
from tests.adapters.cast import provider
from tests.e2e import replay_gemini

CHAT, ANTHROPIC, RESPONSES = "openai", "anthropic", "responses"
EMBEDDINGS, COMPLETIONS, COUNT, MODELS = "embeddings", "completions", "count_tokens", "models"
DOORS = {
    CHAT: "/v1/chat/completions",
    ANTHROPIC: "/v1/messages",
    RESPONSES: "/v1/responses",
    EMBEDDINGS: "/v1/embeddings",
    COMPLETIONS: "/v1/completions",
    COUNT: "/v1/messages/count_tokens",
}
HELLO = [{"role": "user", "content": "Say hello."}]
SIMPLE: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HELLO},
    ANTHROPIC: {"messages": HELLO, "max_tokens": 4096},
    RESPONSES: {"input": "Say hello."},
}
# Who is behind which of our provider types, where the names differ.
_KINDS = {"vertex": "gemini", "openai-compatible": "openai_compatible"}
# How a vendor's path ends, and the dialect of the clients that ask there.
_ENDS = {
    "/chat/completions": CHAT,
    "/messages": ANTHROPIC,
    "/messages/count_tokens": COUNT,
    "/responses": RESPONSES,
    "/embeddings": EMBEDDINGS,
    "/completions": COMPLETIONS,
    "/models": MODELS,
    ":generateContent": CHAT,
    ":streamGenerateContent": CHAT,
    ":batchEmbedContents": EMBEDDINGS,
    "/generation": CHAT,
}
_OLLAMA = "Ollama's own wire ({}): the provider type asks at Ollama's OpenAI-compatible address"
# Exchanges that no request to this product can lead to, and why.
NOT_OFFERED = {
    "ark-embeddings-multimodal-rfe5fb": "multimodal embeddings: no client dialect has images as their input",
    "cohere-error-context-740a2d": "Cohere's own wire (/v2/chat): there is no provider type for it",
    "dashscope-native-rerank-b28322": "reranking: no client dialect asks for it",
    "gemini-count-tokens-3209eb": "countTokens: POST /api/count-tokens and /v1/messages/count_tokens count here, without asking Google",
    "gemini-generate-ac26a0": "batchGenerateContent: batches are not offered for any vendor",
    "ollama-native-chat-1ef167": _OLLAMA.format("/api/chat"),
    "ollama-native-chat-e4ff2f": _OLLAMA.format("/api/chat"),
    "ollama-native-generate-0df762": _OLLAMA.format("/api/generate"),
    "ollama-native-stream-4f96b7": _OLLAMA.format("/api/chat"),
    "ollama-native-stream-d691fa": _OLLAMA.format("/api/chat"),
}
# Errors of endpoints that are not offered: their answers are those of the vendor everywhere, so a simple chat meets them.
ERRORS_OF_OTHER_ENDPOINTS = {
    "dashscope-error-400-12604f": "recorded at the reranking endpoint",
    "deepseek-error-400-1d05c7": "recorded at /responses, which DeepSeek has not; such clients are translated to its chat endpoint",
    "gemini-error-404-63f34d": "recorded at countTokens",
    "ollama-error-404-native-b94387": "recorded at Ollama's own /api/chat",
    "openai-error-400-b8d577": "recorded at the images endpoint",
}
REFUSED_HERE = {"vertex-error-400-007507": "its temperature of 1000 is refused at our own door, so a simple request meets the error"}
_NOT_EXPRESSIBLE = "OpenAI's dialect has no words for what was asked (safety settings, Model Armor, a file as a tool's result)"


@dataclass(frozen=True)
class Plan:
    """`path` follows the exchange's id in the base URL. `body` is the client's request without its model.

    `expected` is the body that the vendor is to get, None where the request cannot be compared, for the reason in `why_not`.
    """

    exchange: dict[str, Any]
    kind: str
    path: str
    dialect: str
    model_id: str
    body: dict[str, Any]
    expected: Any
    why_not: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.exchange["id"])

    @property
    def vendor(self) -> str:
        return str(self.exchange["provider"])

    @property
    def cases(self) -> set[str]:
        return set(self.exchange["cases"])

    @property
    def streams(self) -> bool:
        return "lines" in self.exchange["response"]

    @property
    def status(self) -> int:
        return int(self.exchange["response"]["status"])

    @cached_property
    def native(self) -> str:
        """Whose words the recorded answer is in."""
        return self.kind if self.kind in ("anthropic", "gemini", "dashscope") and self.dialect in (CHAT, ANTHROPIC) else self.dialect

    @property
    def passes(self) -> bool:
        """The answer reaches a client of this dialect as the vendor gave it."""
        return self.native == self.dialect

    @property
    def asks_usage(self) -> bool:
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    @property
    def turned(self) -> dict[str, Any] | None:
        """The body of a client that is the other way about: it asks for a stream's usage where the recorded one did not, or the
        reverse; it asks for a stream where what came was an error, or the reverse."""
        if self.dialect not in (CHAT, ANTHROPIC):
            return None
        if self.status != 200:
            return {**self.body, "stream": not self.body.get("stream")}
        told = {**self.body, "stream_options": {"include_usage": not self.asks_usage}}
        return told if self.streams and self.dialect == CHAT else None

    @property
    def other_dialects(self) -> list[str]:
        """The dialects of conversation that reach this provider by translation."""
        if self.dialect not in (CHAT, ANTHROPIC):
            return []
        return [name for name in (CHAT, ANTHROPIC, RESPONSES) if name != self.dialect and name not in passing(self.kind)]


def passing(kind: str) -> frozenset[str]:
    """The client dialects that a provider of this type speaks itself."""
    adapter: Any = registry.adapter_for(provider(kind))
    quirks = getattr(adapter, "quirks", None)
    return frozenset(adapter.dialects if quirks is None else quirks.endpoints)


def exchanges() -> Iterator[dict[str, Any]]:
    """Every one that the index lists, in its order."""
    for line in (replay.RECORDED / "index.jsonl").read_text().splitlines():
        yield json.loads((replay.RECORDED / json.loads(line)["file"]).read_text())


def plans() -> dict[str, Plan]:
    """By id: what is replayed, which is everything but NOT_OFFERED. Empty where there are no recordings."""
    if not replay.RECORDED.is_dir():
        return {}
    return {exchange["id"]: _plan(exchange) for exchange in exchanges() if exchange["id"] not in NOT_OFFERED}


def _plan(exchange: dict[str, Any]) -> Plan:
    path = exchange["request"]["path"].partition("?")[0]
    dialect = next((name for end, name in _ENDS.items() if path.endswith(end)), "")
    kind = kind_of(exchange)
    if exchange["id"] in ERRORS_OF_OTHER_ENDPOINTS:
        body = {**SIMPLE[CHAT], "stream": "lines" in exchange["response"]}
        return Plan(exchange, kind, _base_path(kind, path), CHAT, "any", body, None, ERRORS_OF_OTHER_ENDPOINTS[exchange["id"]])
    assert dialect, f"{exchange['id']}: nothing is known of {path}; add it to _ENDS or NOT_OFFERED"
    body, expected, why_not = _request(exchange, kind, dialect)
    options = _azure_options(exchange["request"]["path"]) if kind == "azure" else {}
    return Plan(exchange, kind, _base_path(kind, path), dialect, _model_id(exchange, path), body, expected, why_not, options)


def kind_of(exchange: dict[str, Any]) -> str:
    """Our provider type for the vendor of a recording; of no use where we have none."""
    vendor, path = exchange["provider"], exchange["request"]["path"]
    if vendor == "gemini" and "/openai/" in path:
        return "openai_compatible"
    if vendor == "dashscope" and path.startswith("/compatible-mode/"):
        return "dashscope_compatible"
    return _KINDS.get(vendor, vendor)


def _base_path(kind: str, path: str) -> str:
    """The path of the address that an admin would enter."""
    if kind == "openai_compatible":
        return path.removesuffix("/chat/completions")
    return urlsplit(registry.default_base_url(kind)).path


def _azure_options(path: str) -> dict[str, Any]:
    """The inference path (/models/…) is older than v1, which serves the same models."""
    address, _, query = path.partition("?")
    if address.startswith(("/models/", "/openai/v1/")):
        return {}
    return {"style": "classic", "api_version": query.removeprefix("api-version=")}


def _model_id(exchange: dict[str, Any], path: str) -> str:
    deployment = path.partition("/deployments/")[2].partition("/")[0]
    native = path.partition("/models/")[2].partition(":")[0] if ":" in path else ""
    named = (exchange["request"]["body"] or {}).get("model") if isinstance(exchange["request"]["body"], dict) else ""
    return deployment or native or named or "any"


def _request(exchange: dict[str, Any], kind: str, dialect: str) -> tuple[dict[str, Any], Any, str]:
    """The client's body, what the vendor is to get, and why that cannot be told where it cannot."""
    recorded, streams = exchange["request"]["body"], "lines" in exchange["response"]
    if dialect == MODELS:
        return {}, None, "a list has no body"
    simple = {**SIMPLE[dialect], "stream": streams} if dialect in SIMPLE else {}
    if recorded is None:
        return simple, None, "the recording kept no request"
    if exchange["id"] in REFUSED_HERE:
        return simple, None, REFUSED_HERE[exchange["id"]]
    if kind == "gemini" and dialect == EMBEDDINGS:
        asked = replay_gemini.embeddings(recorded)
        return (*asked, "") if asked else ({"input": "hello"}, None, "OpenAI's dialect has no input of several parts")
    if kind == "gemini":
        asked = replay_gemini.chat(exchange)
        return (*asked, "") if asked else (simple, None, _NOT_EXPRESSIBLE)
    if kind == "dashscope":
        return {name: value for name, value in of_dashscope.asked(exchange).items() if name != "model"}, recorded, ""
    body = {name: value for name, value in recorded.items() if name != "model"}
    return ({"max_tokens": 4096, **body} if dialect == ANTHROPIC else body), recorded, ""
