"""What a client of each dialect makes of what it is given: plain readers, by other code than the product's, that trust nothing.

Each raises AssertionError for what such a client could not use: a field of the wrong type, a call without a name, a block or an
item that is no part of its dialect.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import msgspec

from core.chat import ChatRequest
from gateway.doors import anthropic_messages, openai_chat, responses

DOORS: dict[str, Any] = {"openai": openai_chat, "anthropic": anthropic_messages, "responses": responses}
BODIES: dict[str, dict[str, Any]] = {
    "openai": {"messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": True}},
    "anthropic": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
    "responses": {"input": "hi"},
}
FINISHES = {
    "openai": {"stop", "length", "tool_calls", "content_filter"},
    "anthropic": {"end_turn", "max_tokens", "tool_use", "refusal", "stop_sequence"},
    "responses": {"completed", "incomplete"},
}


def asked(dialect: str, stream: bool = False, **more: Any) -> ChatRequest:
    """What a client of the dialect asks, read by its door."""
    body = {"model": "alias", **BODIES[dialect], "stream": stream, **more}
    if not stream:
        body.pop("stream_options", None)
    request: ChatRequest = DOORS[dialect].parse(msgspec.json.encode(body))
    return request


@dataclass
class Told:
    """What was told: `calls` are [id, name, arguments], `end` says that the end mark came."""

    text: str = ""
    thought: str = ""
    calls: list[list[str]] = field(default_factory=list)
    finish: str = ""
    usage: Any = None
    end: bool = False
    open_calls: dict[Any, list[str]] = field(default_factory=dict)

    @property
    def says_nothing(self) -> bool:
        return not (self.text or self.thought or self.calls)

    @property
    def facts(self) -> tuple[Any, ...]:
        return self.text, self.thought, self.calls, self.finish


def text_of(value: Any) -> str:
    assert value is None or isinstance(value, str), value
    return value or ""


def named(value: Any) -> str:
    assert isinstance(value, str)
    assert value
    return value


def told_whole(dialect: str, body: bytes) -> Told:
    told = {"openai": _openai, "anthropic": _anthropic, "responses": _responses}[dialect](json.loads(body))
    named(told.finish)
    for _, name, arguments in told.calls:
        named(name), text_of(arguments)
    return told


def _openai(answer: Any) -> Told:
    named(answer["id"]), named(answer["model"])
    assert type(answer["created"]) is int
    choice = answer["choices"][0]
    message = choice["message"]
    assert message["role"] == "assistant"
    calls = [[named(call["id"]), call["function"]["name"], call["function"]["arguments"]] for call in message.get("tool_calls") or ()]
    return Told(text_of(message["content"]), text_of(message.get("reasoning_content")), calls, choice["finish_reason"], answer.get("usage"))


def _anthropic(message: Any) -> Told:
    told = Told(finish=message["stop_reason"], usage=message.get("usage"))
    for block in message["content"]:
        match block["type"]:
            case "text":
                told.text += text_of(block["text"])
            case "thinking":
                told.thought += text_of(block.get("thinking"))
            case "tool_use":
                arguments = block.get("input") or {}
                assert isinstance(arguments, dict)
                told.calls.append([text_of(block.get("id")), block["name"], json.dumps(arguments)])
    return told


def _responses(response: Any) -> Told:
    told = Told(finish=response["status"], usage=response.get("usage"))
    for item in response["output"]:
        match item["type"]:
            case "message":
                told.text += "".join(text_of(part.get("text")) for part in item.get("content") or ())
            case "reasoning":
                told.thought += "".join(text_of(part.get("text")) for part in item.get("summary") or ())
            case "function_call":
                told.calls.append([named(item["call_id"]), item["name"], item["arguments"]])
    return told


def told_in_stream(dialect: str, body: bytes) -> Told:
    """As far as the stream goes."""
    told = Told()
    reader = {"openai": _chunk, "anthropic": _event, "responses": _response_event}[dialect]
    for event in body.split(b"\n\n"):
        data = b"\n".join(line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
        if data == b"[DONE]":
            told.end = True
        elif data:
            assert not told.end, "told after the end mark"
            reader(json.loads(data), told)
    return told


def _chunk(chunk: Any, told: Told) -> None:
    told.usage = chunk.get("usage") or told.usage
    for choice in chunk["choices"]:
        delta = choice["delta"]
        told.text += text_of(delta.get("content"))
        told.thought += text_of(delta.get("reasoning_content"))
        for piece in delta.get("tool_calls") or ():
            function = piece.get("function") or {}
            assert isinstance(piece["index"], int)
            call = told.open_calls.get(piece["index"])
            if call is None:
                call = told.open_calls[piece["index"]] = [named(piece["id"]), "", ""]
                told.calls.append(call)
            call[1] += text_of(function.get("name"))
            call[2] += text_of(function.get("arguments"))
        told.finish = text_of(choice["finish_reason"]) or told.finish


def _event(event: Any, told: Told) -> None:
    match event["type"]:
        case "content_block_start" if event["content_block"]["type"] == "tool_use":
            call = told.open_calls[event.get("index")] = [
                text_of(event["content_block"].get("id")),
                named(event["content_block"]["name"]),
                "",
            ]
            told.calls.append(call)
        case "content_block_delta":
            delta = event["delta"]
            match delta["type"]:
                case "text_delta":
                    told.text += delta["text"]
                case "thinking_delta":
                    told.thought += delta["thinking"]
                case "input_json_delta":
                    told.open_calls.setdefault(event.get("index"), ["", "", ""])[2] += delta["partial_json"]
        case "message_delta":
            told.finish = text_of(event["delta"].get("stop_reason")) or told.finish
            told.usage = event.get("usage")
        case "message_stop":
            told.end = True


def _response_event(event: Any, told: Told) -> None:
    match named(event["type"]):
        case "response.output_text.delta":
            told.text += text_of(event["delta"])
        case "response.reasoning_summary_text.delta":
            told.thought += text_of(event["delta"])
        case "response.function_call_arguments.delta":
            told.open_calls.setdefault(str(event.get("output_index")), ["", "", ""])[2] += text_of(event["delta"])
        case "response.output_item.added" if event["item"]["type"] == "function_call":
            call = told.open_calls[str(event.get("output_index"))] = [named(event["item"]["call_id"]), named(event["item"]["name"]), ""]
            told.calls.append(call)
        case "response.completed" | "response.incomplete":
            whole = _responses(event["response"])
            told.finish, told.usage, told.end = whole.finish, whole.usage, True
