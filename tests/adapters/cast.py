"""What adapter tests start from: one provider, one model, requests made from a plain body, and a client's view of a stream."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec

from core.chat import ChatRequest, Dialect
from core.config import KeySpec, ModelSpec, ProviderSpec, TimeoutSpec
from core.secrets import Secret
from gateway.doors import openai_chat

KEY = "sk-live-4242abcd9999wxyz"
SECRET = Secret(KEY)
OPENAI = cast(Dialect, openai_chat)


def provider(kind: str = "openai", base_url: str = "https://vendor.test/v1", **more: Any) -> ProviderSpec:
    keys = (KeySpec("key-1", KEY[-4:], SECRET),)
    return ProviderSpec("provider-1", "main", kind, base_url, keys=keys, **more)


def model(model_id: str = "vendor-model") -> ModelSpec:
    return ModelSpec("model-1", "alias", model_id, "provider-1")


def request(body: dict[str, Any] | None = None, *, wants_usage: bool | None = None) -> ChatRequest:
    body = {"model": "alias", "messages": [{"role": "user", "content": "hi"}]} if body is None else body
    raw = json.dumps(body).encode()
    options = body.get("stream_options")
    asked = isinstance(options, dict) and bool(options.get("include_usage"))
    return ChatRequest(
        dialect=OPENAI,
        model=str(body.get("model")),
        stream=bool(body.get("stream")),
        wants_usage=asked if wants_usage is None else wants_usage,
        max_output_tokens=None,
        body_bytes=len(raw),
        fields=msgspec.json.decode(raw, type=dict[str, msgspec.Raw]),
    )


def quick(**seconds: float) -> TimeoutSpec:
    return TimeoutSpec(**{"connect_s": 2.0, "first_byte_s": 2.0, "idle_s": 2.0, "total_s": 10.0, **seconds})


def spoken(part: dict[str, Any]) -> tuple[str, str]:
    """What a message, or a piece of one, says and thinks; Mistral's list of parts too."""
    content, thought = part.get("content") or "", part.get("reasoning_content") or part.get("reasoning") or ""
    if not isinstance(content, list):
        return content, thought
    thoughts = [piece["text"] for item in content if item["type"] == "thinking" for piece in item["thinking"]]
    return "".join(item["text"] for item in content if item["type"] == "text"), "".join(thoughts)


class Heard:
    """A stream as a simple client reads it, by other code than the product's: lines, `json`, plain adding up."""

    def __init__(self, body: bytes) -> None:
        self.text = ""
        self.reasoning = ""
        self.tools: dict[tuple[int, int], dict[str, str]] = {}
        self.finish: dict[int, str] = {}
        self.usage: Any = None
        self.done = False
        self.chunks: list[Any] = []
        for line in body.decode().replace("\r\n", "\n").split("\n"):
            if line.startswith("data:"):
                self._event(line[5:].strip())

    def _event(self, data: str) -> None:
        if data == "[DONE]":
            self.done = True
            return
        chunk = json.loads(data)
        self.chunks.append(chunk)
        self.usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage") or self.usage
        for choice in chunk.get("choices") or []:
            self.usage = choice.get("usage") or self.usage
            self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        text, thought = spoken(delta)
        self.text += text
        self.reasoning += thought
        for call in delta.get("tool_calls") or []:
            kept = self.tools.setdefault((choice["index"], call.get("index", 0)), {"id": "", "name": "", "arguments": ""})
            kept["id"] = kept["id"] or call.get("id") or ""
            kept["name"] += (call.get("function") or {}).get("name") or ""
            kept["arguments"] += (call.get("function") or {}).get("arguments") or ""
        if choice.get("finish_reason"):
            self.finish[choice["index"]] = choice["finish_reason"]

    def facts(self) -> tuple[Any, ...]:
        return self.text, self.reasoning, self.tools, self.finish
