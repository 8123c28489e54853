"""Recorded requests to Google, put the way a client of OpenAI's dialect would."""

from __future__ import annotations

import copy
from typing import Any

from tests.adapters import test_recorded_gemini as of_gemini

Body = dict[str, Any]
_TRANSLATABLE = {"contents", "systemInstruction", "tools", "generationConfig"}


def chat(exchange: dict[str, Any]) -> tuple[Body, Body] | None:
    """(the client's body without its model, what Google is to get), None where it says what OpenAI's dialect has no words for."""
    recorded = of_gemini.camel(exchange["request"]["body"])
    if exchange["id"] in of_gemini.ASKED:
        return _sealed(copy.deepcopy(of_gemini.ASKED[exchange["id"]]), recorded), recorded
    parts = [part for turn in recorded["contents"] for part in turn["parts"]]
    if set(recorded) - _TRANSLATABLE or any(set(part) != {"text"} for part in parts):
        return None
    return {**_messages(recorded), **_tools(recorded), **_settings(recorded), "stream": "lines" in exchange["response"]}, recorded


def embeddings(recorded: Body) -> tuple[Body, Body] | None:
    """As `chat`. A lone text for each vector is all that OpenAI's dialect knows."""
    inputs = [request["content"]["parts"] for request in recorded["requests"]]
    if any(len(parts) > 1 for parts in inputs):
        return None
    lengths = [request["outputDimensionality"] for request in recorded["requests"] if "outputDimensionality" in request]
    more = {"dimensions": lengths[0]} if lengths else {}
    return {"input": [part["text"] for (part,) in inputs], **more}, recorded


def _sealed(asked: Body, recorded: Body) -> Body:
    """The recorded seals, as a client that got them would give them back."""
    seals = [part["thoughtSignature"] for turn in recorded["contents"] for part in turn["parts"] if "thoughtSignature" in part]
    calls = [call for message in asked["messages"] for call in message.get("tool_calls", [])]
    for call, seal in zip(calls, seals, strict=True):
        call["extra_content"]["google"]["thought_signature"] = seal
    return asked


def _messages(recorded: Body) -> Body:
    roles = {"model": "assistant", "user": "user"}
    turns = [{"role": roles[turn["role"]], "content": "".join(part["text"] for part in turn["parts"])} for turn in recorded["contents"]]
    system = "".join(part["text"] for part in recorded.get("systemInstruction", {}).get("parts", []))
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *turns]}


def _tools(recorded: Body) -> Body:
    declared = [function for tool in recorded.get("tools", []) for function in tool["functionDeclarations"]]
    return {"tools": [{"type": "function", "function": _lowered(function)} for function in declared]} if declared else {}


def _lowered(schema: Any) -> Any:
    """Google's names of types are in capitals, a JSON schema's are not."""
    if not isinstance(schema, dict):
        return schema
    return {name: value.lower() if name == "type" else _lowered(value) for name, value in schema.items()}


def _settings(recorded: Body) -> Body:
    wanted = recorded.get("generationConfig", {})
    told = {"temperature": wanted["temperature"]} if "temperature" in wanted else {}
    return {**told, "reasoning_effort": "medium"} if wanted.get("thinkingConfig", {}).get("includeThoughts") else told
