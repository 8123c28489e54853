"""One answer, once whole and once streamed, of every wire to every client dialect: both tell the same.

The answers are spelled and the streams are read here by other code than the product's, as simply as can be.
"""

from __future__ import annotations

import itertools
import json
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat import ChatRequest, Dialect
from gateway.doors import anthropic_messages, completions, generate, openai_chat, responses
from providers.adapters.registry import adapter_for
from tests.adapters.cast import Heard, provider

Json = dict[str, Any]


class Answered(NamedTuple):
    thought: str
    text: str
    refusal: str
    calls: list[tuple[str, str, str]]
    finish: str
    usage: tuple[int, int, int] | None
    """Tokens in, of them cached; tokens out."""


class Facts(NamedTuple):
    thought: str
    text: str
    calls: list[tuple[str, str, Any]]
    finish: str
    usage: tuple[int, ...] | None


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=10)
words = st.one_of(st.just(""), texts, st.sampled_from(["ha", "hello there, all of you", "    ", "\n"]))
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
objects = st.dictionaries(texts, st.none() | st.integers(-9, 9) | texts, max_size=3).map(lambda it: json.dumps(it, ensure_ascii=False))
calls = st.lists(st.tuples(st.from_regex(r"call_[a-z0-9]{1,6}", fullmatch=True), names, objects), max_size=3, unique_by=lambda it: it[0])
usages = st.none() | st.tuples(st.integers(10, 99), st.integers(0, 10), st.integers(0, 99))
sizes = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@st.composite
def answers(draw: st.DrawFn) -> Answered:
    made = draw(calls)
    finish = draw(st.sampled_from(["tool_calls" if made else "stop", "length", "content_filter"]))
    refusal = "" if made else draw(st.one_of(st.just(""), texts))
    return Answered(draw(words), draw(words), refusal, made, finish, draw(usages))


def cut(text: str) -> list[str]:
    middle = len(text) // 2
    return [piece for piece in (text[:middle], text[middle:]) if piece]


# OpenAI's chat wire: pieces of parallel calls alternate.


def openai_usage(answer: Answered) -> Json:
    if answer.usage is None:
        return {}
    sent, cached, made = answer.usage
    return {
        "usage": {
            "prompt_tokens": sent,
            "completion_tokens": made,
            "total_tokens": sent + made,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
    }


def openai_whole(answer: Answered) -> Json:
    made = [{"id": id_, "type": "function", "function": {"name": name, "arguments": said}} for id_, name, said in answer.calls]
    message = {"role": "assistant", "content": answer.text or None, "reasoning_content": answer.thought, "refusal": answer.refusal or None}
    choice = {"index": 0, "message": {**message, **({"tool_calls": made} if made else {})}, "finish_reason": answer.finish}
    return {"id": "x", "created": 1, "model": "m", "object": "chat.completion", "choices": [choice], **openai_usage(answer)}


def openai_stream(answer: Answered) -> list[Json | str]:
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in cut(answer.thought)]
    deltas += [{"content": piece} for piece in cut(answer.text)]
    deltas += [{"refusal": piece} for piece in cut(answer.refusal)]
    for index, (id_, name, _) in enumerate(answer.calls):
        deltas.append({"tool_calls": [{"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": ""}}]})
    pieces = [[(index, piece) for piece in cut(said)] for index, (_, _, said) in enumerate(answer.calls)]
    for index, piece in [it for row in itertools.zip_longest(*pieces) for it in row if it]:
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    head = {"id": "x", "created": 1, "model": "m", "object": "chat.completion.chunk"}
    events: list[Json | str] = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": answer.finish}]})
    if answer.usage is not None:
        events.append({**head, "choices": [], **openai_usage(answer)})
    return [*events, "[DONE]"]


# Anthropic's wire

STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def anthropic_blocks(answer: Answered) -> list[Json]:
    blocks: list[Json] = [{"type": "thinking", "thinking": answer.thought, "signature": "c2ln"}] if answer.thought else []
    blocks += [{"type": "text", "text": answer.text}] if answer.text else []
    return blocks + [{"type": "tool_use", "id": id_, "name": name, "input": json.loads(said)} for id_, name, said in answer.calls]


def anthropic_usage(answer: Answered) -> Json:
    if answer.usage is None:
        return {}
    sent, cached, made = answer.usage
    return {"usage": {"input_tokens": sent - cached, "cache_read_input_tokens": cached, "output_tokens": made}}


def anthropic_stop(answer: Answered) -> Json:
    details = {"stop_details": {"explanation": answer.refusal}} if answer.refusal and answer.finish == "content_filter" else {}
    return {"stop_reason": STOPS[answer.finish], "stop_sequence": None, **details}


def anthropic_whole(answer: Answered) -> Json:
    message = {"id": "msg_x", "type": "message", "role": "assistant", "model": "m", "content": anthropic_blocks(answer)}
    return {**message, **anthropic_stop(answer), **anthropic_usage(answer)}


def anthropic_stream(answer: Answered) -> list[Json | str]:
    start = {"id": "msg_x", "type": "message", "role": "assistant", "model": "m", "content": []}
    events: list[Json | str] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(anthropic_blocks(answer)):
        match block["type"]:
            case "thinking":
                empty = {**block, "thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"])]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            case "text":
                empty = {**block, "text": ""}
                deltas = [{"type": "text_delta", "text": piece} for piece in cut(block["text"])]
            case _:
                empty = {**block, "input": {}}
                said = json.dumps(block["input"], ensure_ascii=False)
                deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in cut(said)]
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": anthropic_stop(answer), **anthropic_usage(answer)})
    return [*events, {"type": "message_stop"}]


# Gemini's wire

GEMINI_STOPS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


def gemini_usage(answer: Answered) -> Json:
    if answer.usage is None:
        return {}
    sent, cached, made = answer.usage
    return {"usageMetadata": {"promptTokenCount": sent, "cachedContentTokenCount": cached, "candidatesTokenCount": made}}


def gemini_parts(answer: Answered) -> list[Json]:
    parts: list[Json] = [{"text": answer.thought, "thought": True}] if answer.thought else []
    parts += [{"text": answer.text}] if answer.text else []
    return parts + [{"functionCall": {"id": id_, "name": name, "args": json.loads(said)}} for id_, name, said in answer.calls]


def gemini_whole(answer: Answered) -> Json:
    candidate = {"content": {"role": "model", "parts": gemini_parts(answer)}, "finishReason": GEMINI_STOPS[answer.finish]}
    return {"candidates": [candidate], "modelVersion": "m", "responseId": "x", **gemini_usage(answer)}


def gemini_stream(answer: Answered) -> list[Json | str]:
    head = {"modelVersion": "m", "responseId": "x"}
    parts = [{**part, "text": piece} for part in gemini_parts(answer) for piece in (cut(part["text"]) if "text" in part else [""])]
    parts = [{name: value for name, value in part.items() if name != "text" or "functionCall" not in part} for part in parts]
    events: list[Json | str] = [{"candidates": [{"content": {"parts": [part]}}], **head} for part in parts]
    return [*events, {"candidates": [{"content": {}, "finishReason": GEMINI_STOPS[answer.finish]}], **head, **gemini_usage(answer)}]


# DashScope's wire


def dashscope_usage(answer: Answered) -> Json:
    if answer.usage is None:
        return {}
    sent, cached, made = answer.usage
    return {"usage": {"input_tokens": sent, "output_tokens": made, "prompt_tokens_details": {"cached_tokens": cached}}}


def dashscope_whole(answer: Answered) -> Json:
    made = [
        {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": said}}
        for index, (id_, name, said) in enumerate(answer.calls)
    ]
    message = {"role": "assistant", "content": answer.text, "reasoning_content": answer.thought, "tool_calls": made}
    return {"output": {"choices": [{"finish_reason": answer.finish, "message": message}]}, "request_id": "x", **dashscope_usage(answer)}


def dashscope_stream(answer: Answered) -> list[Json | str]:
    messages: list[Json] = [{"content": "", "reasoning_content": piece} for piece in cut(answer.thought)]
    messages += [{"content": piece} for piece in cut(answer.text)]
    for index, (id_, name, said) in enumerate(answer.calls):
        for position, piece in enumerate(cut(said)):
            function = {"name": "" if position else name, "arguments": piece}
            messages.append({"content": "", "tool_calls": [{"index": index, "id": "" if position else id_, "function": function}]})
    events: list[Json | str] = [
        {"output": {"choices": [{"finish_reason": "null", "message": message}]}, "request_id": "x"} for message in messages
    ]
    last = {"output": {"choices": [{"finish_reason": answer.finish, "message": {"content": ""}}]}, "request_id": "x"}
    return [*events, {**last, **dashscope_usage(answer)}]


WIRES: dict[str, Any] = {
    "openai_compatible": (openai_whole, openai_stream),
    "anthropic": (anthropic_whole, anthropic_stream),
    "gemini": (gemini_whole, gemini_stream),
    "dashscope": (dashscope_whole, dashscope_stream),
}


# What a client reads


def data_of(stream: bytes) -> list[Any]:
    lines = [line[6:] for line in stream.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def counted(usage: Json | None, sent: str, made: str, details: str) -> tuple[int, ...] | None:
    return (usage[sent], (usage.get(details) or {}).get("cached_tokens", 0), usage[made]) if usage else None


def openai_facts(whole: Json) -> Facts:
    choice = whole["choices"][0]
    message = choice["message"]
    made = [(it["id"], it["function"]["name"], json.loads(it["function"]["arguments"])) for it in message.get("tool_calls") or []]
    usage = counted(whole.get("usage"), "prompt_tokens", "completion_tokens", "prompt_tokens_details")
    said = (message.get("content") or "") + (message.get("refusal") or "")
    return Facts(message.get("reasoning_content") or "", said, made, choice["finish_reason"], usage)


def openai_heard(stream: bytes) -> Facts:
    heard = Heard(stream)
    assert heard.done
    refusal = "".join((choice.get("delta") or {}).get("refusal") or "" for chunk in heard.chunks for choice in chunk["choices"])
    made = [(it["id"], it["name"], json.loads(it["arguments"])) for _, it in sorted(heard.tools.items())]
    usage = counted(heard.usage, "prompt_tokens", "completion_tokens", "prompt_tokens_details")
    return Facts(heard.reasoning, heard.text + refusal, made, heard.finish[0], usage)


def anthropic_facts(whole: Json) -> Facts:
    blocks = whole["content"]
    made = [(it["id"], it["name"], it["input"]) for it in blocks if it["type"] == "tool_use"]
    usage = whole.get("usage") or {}
    said = "".join(it["text"] for it in blocks if it["type"] == "text")
    told = (usage["input_tokens"], usage.get("cache_read_input_tokens", 0), usage["output_tokens"]) if usage else None
    return Facts("".join(it["thinking"] for it in blocks if it["type"] == "thinking"), said, made, whole["stop_reason"], told)


def anthropic_heard(stream: bytes) -> Facts:
    message: Json = {}
    pieces: dict[int, list[str]] = {}
    ended = False
    for event in data_of(stream):
        match event["type"]:
            case "message_start":
                message = {"content": [], **event["message"]}
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
                pieces[event["index"]] = []
            case "content_block_delta":
                delta = event["delta"]
                block = message["content"][event["index"]]
                if delta["type"] == "input_json_delta":
                    pieces[event["index"]].append(delta["partial_json"])
                else:
                    name = delta["type"].removesuffix("_delta")
                    block[name] = block.get(name, "") + delta[name]
            case "message_delta":
                message.update(event["delta"])
                message["usage"] = event.get("usage") or message.get("usage")
            case "message_stop":
                ended = True
    assert ended
    for index, said in pieces.items():
        if said:
            message["content"][index]["input"] = json.loads("".join(said))
    return anthropic_facts(message)


def responses_facts(whole: Json) -> Facts:
    items = whole["output"]
    made = [(it["call_id"], it["name"], json.loads(it["arguments"])) for it in items if it["type"] == "function_call"]
    said = [part for it in items if it["type"] == "message" for part in it["content"]]
    thought = "".join(part["text"] for it in items if it["type"] == "reasoning" for part in it["summary"])
    usage = counted(whole["usage"], "input_tokens", "output_tokens", "input_tokens_details")
    finish = whole["status"] + str(whole["incomplete_details"])
    return Facts(thought, "".join(part.get("text") or part.get("refusal") or "" for part in said), made, finish, usage)


def responses_heard(stream: bytes) -> Facts:
    """By its deltas; the items and the end by their own events."""
    events = data_of(stream)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last = responses_facts(events[-1]["response"])
    kinds = ("response.output_text.delta", "response.refusal.delta")
    text = "".join(event["delta"] for event in events if event["type"] in kinds)
    thought = "".join(event["delta"] for event in events if event["type"] == "response.reasoning_summary_text.delta")
    done = [event["item"] for event in events if event["type"] == "response.output_item.done" and event["item"]["type"] == "function_call"]
    made = [(it["call_id"], it["name"], json.loads(it["arguments"])) for it in done]
    return Facts(thought, text, made, last.finish, last.usage)


def completions_facts(whole: Json) -> Facts:
    choice = whole["choices"][0]
    usage = counted(whole.get("usage"), "prompt_tokens", "completion_tokens", "prompt_tokens_details")
    return Facts("", choice["text"], [], choice["finish_reason"], usage)


def completions_heard(stream: bytes) -> Facts:
    chunks = data_of(stream)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    usage = next((chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage")), None)
    told = counted(usage, "prompt_tokens", "completion_tokens", "prompt_tokens_details")
    return Facts("", "".join(choice["text"] for choice in choices), [], choices[-1]["finish_reason"], told)


def generate_facts(whole: Json) -> Facts:
    return Facts("", whole["text"], [], whole["finish_reason"], None)


def generate_heard(stream: bytes) -> Facts:
    events = data_of(stream)
    return Facts("", "".join(event["delta"] for event in events), [], events[-1]["finish_reason"], None)


CLIENTS: dict[str, Any] = {
    "openai": (openai_chat, openai_facts, openai_heard),
    "anthropic": (anthropic_messages, anthropic_facts, anthropic_heard),
    "responses": (responses, responses_facts, responses_heard),
    "completions": (completions, completions_facts, completions_heard),
    "generate": (generate, generate_facts, generate_heard),
}
# Vendors with OpenAI's wire that have completions of their own answer in another shape; this one has chat alone.
KINDS = {"openai_compatible": "deepseek"}


def request_of(dialect: Any, *, stream: bool) -> ChatRequest:
    return ChatRequest(cast(Dialect, dialect), "alias", stream, True, None, 10, {})


@pytest.mark.parametrize("kind", WIRES)
@pytest.mark.parametrize("client", CLIENTS)
@settings(deadline=None, max_examples=25)
@given(answers(), sizes)
def test_whole_and_streamed_tell_the_same(client: str, kind: str, answer: Answered, lengths: list[int]) -> None:
    dialect, of_whole, of_stream = CLIENTS[client]
    spell_whole, spell_stream = WIRES[kind]
    adapter = adapter_for(provider(KINDS.get(kind, kind)))
    whole = adapter.read_answer(json.dumps(spell_whole(answer), ensure_ascii=False).encode(), request_of(dialect, stream=False))
    reader = adapter.stream_reader(request_of(dialect, stream=True))
    body = b"".join(
        b"data: " + (event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)).encode() + b"\n\n"
        for event in spell_stream(answer)
    )
    given_bytes, at = b"", 0
    for size in itertools.cycle(lengths):
        if at >= len(body):
            break
        given_bytes += reader.feed(body[at : at + size])
        at += size
    given_bytes += b"" if reader.done else reader.finish()
    heard, told = of_stream(given_bytes + reader.tail), of_whole(json.loads(whole.body))
    assert heard == told
    assert reader.usage == whole.usage
    assert reader.finish_reason == whole.finish_reason
    assert reader.output_bytes == whole.output_bytes
    assert told.text.startswith(answer.text)
    if client not in ("completions", "generate"):
        assert told.thought == answer.thought
        assert told.calls == [(id_, name, json.loads(said)) for id_, name, said in answer.calls]
