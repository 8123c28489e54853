"""There and back: an answer of OpenAI's wire, told to a client in Anthropic's dialect, read again from that wire, told in OpenAI's.

Whatever crosses twice is cut into pieces at any byte: inside UTF-8 characters, inside SSE lines.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat import ChatRequest, Dialect
from core.config import ModelSpec
from core.conversation import Conversation
from core.events import gathered
from gateway.doors import anthropic_messages, openai_chat
from gateway.doors.anthropic_marks import vendors_id
from providers.adapters import openai_wire
from providers.adapters.anthropic_answer import result_from_wire
from providers.adapters.anthropic_stream import AnthropicWireStream
from providers.adapters.anthropic_wire import to_wire
from providers.adapters.openai_wire import OpenAIWireStream
from providers.adapters.translated import Leftovers, TranslatedReader
from tests.adapters.cast import Heard

SAMPLES = Path(__file__).parent / "anthropic" / "streams.json"
FINISHES = ("stop", "length", "content_filter")

texts = st.text(st.characters(codec="utf-8"), max_size=12)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
# Most vendors' ids, and Moonshot's, which Anthropic's clients could not read.
ids = st.one_of(st.from_regex(r"call_[a-zA-Z0-9]{1,8}", fullmatch=True), st.from_regex(r"functions\.[a-z]{1,5}:[0-9]", fullmatch=True))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts, lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
arguments = st.dictionaries(texts, values, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False)) | st.just("")
calls = st.lists(st.tuples(ids, names, arguments), max_size=3, unique_by=lambda call: call[0])
sizes = st.lists(st.integers(1, 60), min_size=1, max_size=8)


@st.composite
def told(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[int, dict[str, str]], str, str]:
    """Deltas of an answer, its text and calls in pieces that alternate; and the calls, the text and the reason to end."""
    spoken = draw(st.lists(texts, max_size=4))
    wanted = draw(calls)
    queues: list[list[dict[str, Any]]] = [[{"content": piece} for piece in spoken]]
    for index, (call_id, name, said) in enumerate(wanted):
        cuts = sorted(draw(st.lists(st.integers(0, len(said)), max_size=3)))
        pieces = [said[start:end] for start, end in itertools.pairwise([0, *cuts, len(said)])]
        begun = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        more = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
        queues.append([{"tool_calls": [piece]} for piece in (begun, *more)])
    deltas: list[dict[str, Any]] = []
    begun_calls = 0
    while any(queues):
        # A call begins once those before it have begun.
        open_queues = [at for at, queue in enumerate(queues) if queue and at <= begun_calls + 1]
        at = draw(st.sampled_from(open_queues))
        begun_calls = max(begun_calls, at)
        deltas.append(queues[at].pop(0))
    finish = draw(st.sampled_from(FINISHES))
    finish = "tool_calls" if wanted and finish == "stop" else finish
    calls_told = {at: {"id": call_id, "name": name, "arguments": said or "{}"} for at, (call_id, name, said) in enumerate(wanted)}
    return deltas, calls_told, "".join(spoken), finish


def chunks_of(deltas: list[dict[str, Any]], finish: str, line_end: str, escaped: bool) -> bytes:
    lines = []
    for delta, reason in [*((delta, None) for delta in deltas), ({}, finish)]:
        chunk = {"id": "chatcmpl-1", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        lines += ["data: " + json.dumps(chunk, ensure_ascii=escaped), ""]
    return line_end.join([*lines, "data: [DONE]", "", ""]).encode()


def cut(body: bytes, lengths: list[int]) -> Iterator[bytes]:
    at, sizes_again = 0, itertools.cycle(lengths)
    while at < len(body):
        size = next(sizes_again)
        yield body[at : at + size]
        at += size


def request_of(dialect: Any, stream: bool = True) -> ChatRequest:
    return ChatRequest(cast(Dialect, dialect), "alias", stream, True, None, 10, {})


def relayed(wire: Any, dialect: Any, body: bytes, lengths: list[int]) -> bytes:
    """`body` of `wire` as a client of `dialect` gets it."""
    reader = TranslatedReader(wire, request_of(dialect))
    given = b"".join([reader.feed(piece) for piece in cut(body, lengths)])
    assert reader.done
    return given + reader.tail


@settings(deadline=None, max_examples=200)
@given(told(), sizes, sizes, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_stream_keeps_what_it_tells(
    answer: tuple[list[dict[str, Any]], dict[int, dict[str, str]], str, str],
    first: list[int],
    second: list[int],
    line_end: str,
    escaped: bool,
) -> None:
    deltas, wanted, text, finish = answer
    as_anthropics = relayed(OpenAIWireStream(), anthropic_messages, chunks_of(deltas, finish, line_end, escaped), first)
    heard = Heard(relayed(AnthropicWireStream(), openai_chat, as_anthropics, second))
    assert heard.text == text
    got = [{**call, "id": vendors_id(call["id"])} for _, call in sorted(heard.tools.items())]
    assert got == [wanted[at] for at in sorted(wanted)]
    assert heard.finish == {0: finish}
    assert heard.done


@settings(deadline=None, max_examples=100)
@given(st.lists(texts, max_size=2).map("".join), calls, st.sampled_from(FINISHES))
def test_a_whole_answer_keeps_what_it_tells(text: str, wanted: list[tuple[str, str, str]], finish: str) -> None:
    finish = "tool_calls" if wanted and finish == "stop" else finish
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if wanted:
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": said}} for call_id, name, said in wanted
        ]
    body = {"id": "chatcmpl-1", "created": 1, "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    result = openai_wire.result_from_wire(json.dumps(body).encode())
    as_anthropics = anthropic_messages.whole(request_of(anthropic_messages, stream=False), result)
    choice = json.loads(openai_chat.whole(request_of(openai_chat, stream=False), result_from_wire(as_anthropics)))["choices"][0]
    assert (choice["message"]["content"] or "") == text
    got = [
        (vendors_id(call["id"]), call["function"]["name"], call["function"]["arguments"])
        for call in choice["message"].get("tool_calls", [])
    ]
    assert got == [(call_id, name, said or "{}") for call_id, name, said in wanted]
    assert choice["finish_reason"] == finish


@given(sizes)
@settings(deadline=None, max_examples=20)
def test_thought_survives_a_second_turn_of_a_client_of_openais(lengths: list[int]) -> None:
    """Its seal comes back before the call that it led to: without it the vendor would refuse the turn."""
    sample = next(sample for sample in json.loads(SAMPLES.read_text()) if "thoughts" in sample["name"])
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in sample["events"]).encode()
    heard = Heard(relayed(AnthropicWireStream(), openai_chat, body, lengths))
    assistant = {
        "role": "assistant",
        "content": heard.text or None,
        "reasoning_content": heard.reasoning,
        "thinking_blocks": [
            block for chunk in heard.chunks for choice in chunk["choices"] for block in choice["delta"].get("thinking_blocks", [])
        ],
        "tool_calls": [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for _, call in sorted(heard.tools.items())
        ],
    }
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "1"} for _, call in sorted(heard.tools.items())]
    turn = {"model": "alias", "reasoning_effort": "low", "messages": [{"role": "user", "content": "x"}, assistant, *results]}
    conversation = openai_chat.parse(json.dumps(turn).encode()).conversation()
    wire, dropped = wire_of(conversation)
    said = wire["messages"][1]["content"]
    assert said[:2] == [
        {"type": "thinking", "thinking": "Two tools.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
    ]
    assert [(block["name"], block["input"]) for block in said[2:]] == [("f", {"a": 1}), ("g", {}), ("h", {"b": 2})]
    assert [block["tool_use_id"] for block in wire["messages"][2]["content"]] == [block["id"] for block in said[2:]]
    assert wire["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert dropped == ()


def wire_of(conversation: Conversation) -> tuple[dict[str, Any], tuple[str, ...]]:
    model = ModelSpec("model-1", "alias", "claude-x", "provider-1")
    leftovers = Leftovers(conversation, model, "Anthropic")
    return json.loads(msgspec.json.encode(to_wire(conversation, model, leftovers))), leftovers.names


def test_a_wire_and_its_own_dialect_tell_the_same() -> None:
    """Anthropic's events through ours and back into Anthropic's say what they said, thought and seals included."""
    for sample in json.loads(SAMPLES.read_text()):
        body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in sample["events"]).encode()
        again = relayed(AnthropicWireStream(), anthropic_messages, body, [7])
        assert told_by(again).parts == told_by(body).parts or sample["result"].get("refusal")
        assert told_by(again).ended == told_by(body).ended


def told_by(body: bytes) -> Any:
    wire = AnthropicWireStream()
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    return gathered(said for event in events for said in wire.read(event))
