"""G28: whatever a vendor streams, in whatever pieces: events, or a typed error; no other exception, and no end that was not there.

FUZZ_EXAMPLES=100000 is the long run.
"""

from __future__ import annotations

import itertools
import json
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import GatewayError
from providers.adapters import registry
from providers.adapters.base import Adapter
from providers.adapters.sse import MAX_EVENT_BYTES, SseDecoder
from tests.adapters.cast import provider, request

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or 300)
KINDS = ("openai", "openai_compatible", "mistral", "anthropic", "gemini", "dashscope")
ADAPTERS: list[Adapter] = [registry.adapter_for(provider(kind)) for kind in KINDS]
WORDS = [
    "choices", "delta", "content", "index", "finish_reason", "stop", "usage", "total_tokens", "message", "tool_calls", "type", "text",
    "content_block_delta", "message_start", "message_stop", "message_delta", "candidates", "parts", "output", "error", "code", "id",
    "function", "arguments", "name", "prompt_tokens", "completion_tokens", "finishReason", "usageMetadata", "STOP", "stop_reason",
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from(WORDS) | st.text(max_size=5)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5), max_leaves=15
)
LINES = (
    st.builds(lambda value: b"data: " + json.dumps(value).encode(), JSON)
    | st.sampled_from([b"data: [DONE]", b"data:", b": hi", b"event: error", b"event: message_stop", b"id: 1", b"", b"", b"\xff"])
    | st.builds(lambda noise: b"data: " + noise, st.binary(max_size=20))
    | st.binary(max_size=12)
)
STREAMS = st.builds(
    lambda lines, ends: b"".join(line + end for line, end in zip(lines, ends, strict=False)),
    st.lists(LINES, max_size=12),
    st.lists(st.sampled_from([b"\n\n", b"\n", b"\r\n\r\n", b"\r", b"\r\n", b""]), min_size=12, max_size=12),
)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[start:end] for start, end in itertools.pairwise(at)]


@settings(deadline=None, max_examples=EXAMPLES)
@given(stream=STREAMS, cuts=st.lists(st.integers(0, 500), max_size=6), number=st.integers(0, len(ADAPTERS) - 1))
def test_a_stream_is_events_or_a_typed_error(stream: bytes, cuts: list[int], number: int) -> None:
    reader = ADAPTERS[number].stream_reader(request({"model": "m", "messages": [], "stream": True}))
    said = b""
    try:
        for piece in pieces(stream, cuts):
            said += reader.feed(piece)
        said += reader.finish()
    except GatewayError:
        said += reader.salvaged
        assert b"data: [DONE]" not in said
        return
    assert reader.finish_reason, "what is whole says how it ended"
    assert b"[DONE]" not in said, "the door writes it, when the books are settled"


@settings(deadline=None, max_examples=EXAMPLES)
@given(stream=STREAMS | st.binary(max_size=200), cuts=st.lists(st.integers(0, 500), max_size=8))
def test_the_cuts_make_no_difference(stream: bytes, cuts: list[int]) -> None:
    whole, cut = SseDecoder(), SseDecoder()
    assert [event for piece in pieces(stream, cuts) for event in cut.feed(piece)] == whole.feed(stream)
    assert cut.pending == whole.pending


@settings(deadline=None, max_examples=20)
@given(line=st.sampled_from([b"data: ", b": ", b"", b"id: "]), size=st.integers(1, 4), cut=st.integers(2**12, 2**17))
def test_what_is_kept_of_an_event_without_end_is_bounded(line: bytes, size: int, cut: int) -> None:
    decoder, fed = SseDecoder(), 0
    try:
        decoder.feed(line)
        while fed <= size * MAX_EVENT_BYTES:
            decoder.feed(b"x" * cut)
            fed += cut
    except GatewayError:
        assert fed <= MAX_EVENT_BYTES
        return
    raise AssertionError("an endless event was taken in")
