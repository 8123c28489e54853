"""What a client is given of a vendor's answer, and the next request that it makes of it, as its SDK does."""

from __future__ import annotations

import json
from typing import Any

from providers.adapters.registry import adapter_for
from tests.adapters.cast import provider
from tests.wire.clients_cast import asked, told_in_stream, told_whole
from tests.wire.test_faults import Stream, framed, written


def adapter(kind: str, **options: Any) -> Any:
    return adapter_for(provider(kind, "https://vendor.test", options=options))


def given_to(way: tuple[str, str], body: Any, events: list[Any], stream: bool) -> bytes:
    """What a client of the dialect gets of an answer of that kind of provider, by kind and dialect."""
    kind, dialect = way
    if not stream:
        answer: bytes = adapter(kind).read_answer(written(body), asked(dialect)).body
        return answer
    told = Stream((kind, "", dialect))
    told.feed(b"".join(framed(events)))
    told.end()
    return told.given + bytes(told.reader.tail)


def next_turn(dialect: str, given: bytes, stream: bool) -> dict[str, Any]:
    """The next request of a client that keeps what it was given as its SDK does, and answers each call."""
    said = {"openai": openai_turn, "anthropic": anthropic_turn, "responses": responses_turn}[dialect](given, stream)
    calls = (told_in_stream if stream else told_whole)(dialect, given).calls
    if dialect == "responses":
        results = [{"type": "function_call_output", "call_id": call_id, "output": "1"} for call_id, _, _ in calls]
        return {"input": [{"role": "user", "content": "hi"}, *said, *results]}
    if dialect == "anthropic":
        blocks = [{"type": "tool_result", "tool_use_id": call_id, "content": "1"} for call_id, _, _ in calls]
        return {
            "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": said}, {"role": "user", "content": blocks}]
        }
    results = [{"role": "tool", "tool_call_id": call_id, "content": "1"} for call_id, _, _ in calls]
    return {"messages": [{"role": "user", "content": "hi"}, said, *results]}


def events_in(given: bytes) -> list[Any]:
    lines = [line.removeprefix(b"data: ") for line in given.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def openai_turn(given: bytes, stream: bool) -> Any:
    if not stream:
        return json.loads(given)["choices"][0]["message"]
    message: dict[str, Any] = {"role": "assistant", "content": None}
    calls: dict[int, Any] = {}
    for event in events_in(given):
        for delta in (choice["delta"] for choice in event["choices"]):
            for name in ("content", "reasoning_content"):
                if delta.get(name):
                    message[name] = (message.get(name) or "") + delta[name]
            if delta.get("thinking_blocks"):
                message.setdefault("thinking_blocks", []).extend(delta["thinking_blocks"])
            for call in delta.get("tool_calls") or ():
                kept = calls.setdefault(call.pop("index"), call)
                if kept is not call:
                    kept["function"]["arguments"] += call["function"]["arguments"]
    return {**message, "tool_calls": list(calls.values())}


def anthropic_turn(given: bytes, stream: bool) -> Any:
    if not stream:
        return json.loads(given)["content"]
    blocks: list[Any] = []
    for event in events_in(given):
        if event["type"] == "content_block_start":
            blocks.append({**event["content_block"], **({"input": ""} if event["content_block"]["type"] == "tool_use" else {})})
        elif event["type"] == "content_block_delta":
            key = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature", "input_json_delta": "partial_json"}[
                event["delta"]["type"]
            ]
            blocks[event["index"]]["input" if key == "partial_json" else key] += event["delta"][key]
    return [{**block, "input": json.loads(block["input"] or "{}")} if block["type"] == "tool_use" else block for block in blocks]


def responses_turn(given: bytes, stream: bool) -> Any:
    return (events_in(given)[-1]["response"] if stream else json.loads(given))["output"]
