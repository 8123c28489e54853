"""`python -m bench.translation`: CPU per streamed chunk, wire to client bytes, in this process: no sockets, no server.

A loop keeps caches warm, so a figure here is the least that a chunk costs; `bench.run` has the whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from core.chat import ChatRequest, Dialect
from gateway.doors import anthropic_messages, openai_chat, responses
from providers.adapters.anthropic_stream import AnthropicStreamReader, AnthropicWireStream
from providers.adapters.base import StreamReader
from providers.adapters.dashscope_stream import DashScopeWireStream
from providers.adapters.gemini_stream import GeminiWireStream
from providers.adapters.openai_stream import OpenAIStreamReader
from providers.adapters.openai_wire import OpenAIWireStream
from providers.adapters.translated import TranslatedReader, WireStream

BUDGET_US = 40.0
_CHUNKS = 5_000
_ROUNDS = 5
_TEXT = " a piece of text"


class Wire(NamedTuple):
    """A stream as its vendor sends it: `opening`, then `chunk` again and again."""

    opening: tuple[bytes, ...]
    chunk: bytes
    stream: Callable[[], WireStream]


def _data(value: object, prefix: str = "data: ", end: str = "\n\n") -> bytes:
    return f"{prefix}{json.dumps(value, separators=(',', ':'))}{end}".encode()


def _openai(delta: dict[str, str]) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    return _data({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def _anthropic(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **fields})


_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "usage": {"input_tokens": 9, "output_tokens": 1},
}
_GEMINI = {
    "candidates": [{"content": {"parts": [{"text": _TEXT}], "role": "model"}, "index": 0}],
    "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14},
    "modelVersion": "m",
}


def _dashscope(text: str) -> bytes:
    choice = {"message": {"content": text, "role": "assistant"}, "finish_reason": "null"}
    usage = {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14}
    data = _data({"output": {"choices": [choice]}, "usage": usage, "request_id": "r"}, prefix="data:")
    return b"id:1\nevent:result\n:HTTP_STATUS/200\n" + data


WIRES = {
    "openai": Wire((_openai({"role": "assistant", "content": ""}),), _openai({"content": _TEXT}), OpenAIWireStream),
    "anthropic": Wire(
        (
            _anthropic("message_start", message=_MESSAGE),
            _anthropic("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        ),
        _anthropic("content_block_delta", index=0, delta={"type": "text_delta", "text": _TEXT}),
        AnthropicWireStream,
    ),
    "gemini": Wire((), _data(_GEMINI, end="\r\n\r\n"), GeminiWireStream),
    # The first piece begins unlike the others, which shows that they are increments.
    "dashscope": Wire((_dashscope("Well,"),), _dashscope(_TEXT), DashScopeWireStream),
}
CLIENTS: dict[str, Dialect] = {"openai": openai_chat, "anthropic": anthropic_messages, "responses": responses}  # type: ignore[dict-item]


def chunk_cost_us(reader: Callable[[], StreamReader], wire: Wire, chunks: int = _CHUNKS, rounds: int = _ROUNDS) -> float:
    """The least CPU per chunk of several rounds, in µs."""
    best = float("inf")
    for _ in range(rounds):
        reading = reader()
        for piece in wire.opening:
            reading.feed(piece)
        reading.feed(wire.chunk)
        said = reading.output_bytes
        began = time.process_time()
        for _ in range(chunks):
            reading.feed(wire.chunk)
        best = min(best, time.process_time() - began)
        assert reading.output_bytes - said == chunks * len(_TEXT), "a chunk was lost"
    return best / chunks * 1e6


def cases() -> Iterable[tuple[str, Callable[[], StreamReader], Wire]]:
    """(what, a reader for it, its wire): the two that pass through, then each wire to each client of another dialect."""
    yield "openai → openai, passed through", lambda: OpenAIStreamReader(True), WIRES["openai"]
    yield "anthropic → anthropic, passed through", AnthropicStreamReader, WIRES["anthropic"]
    for name, wire in WIRES.items():
        for client, dialect in CLIENTS.items():
            if name != client:
                yield f"{name} → {client}", lambda wire=wire, dialect=dialect: _translated(wire, dialect), wire


def _translated(wire: Wire, dialect: Dialect) -> TranslatedReader:
    request = ChatRequest(dialect, "m", stream=True, wants_usage=True, max_output_tokens=None, body_bytes=10, fields={})
    return TranslatedReader(wire.stream(), request)


def main() -> int:
    dearest = 0.0
    print(f"CPU µs per streamed chunk, the least of {_ROUNDS} rounds of {_CHUNKS} (budget {BUDGET_US:g})")
    for what, reader, wire in cases():
        cost = chunk_cost_us(reader, wire)
        dearest = max(dearest, cost)
        print(f"  {what:<38} {cost:6.2f}", flush=True)
    return int(dearest > BUDGET_US)


if __name__ == "__main__":
    raise SystemExit(main())
