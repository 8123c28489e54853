"""The service tier that a vendor says it served, wherever it says so."""

from __future__ import annotations

import pytest

from providers.adapters import anthropic_answer, openai_answers, openai_stream
from providers.adapters.openai_responses import read_responses_usage

COUNTS = b'{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}'
TIERS = [(b"", None), (b',"service_tier":null', None), (b',"service_tier":"default"', ""), (b',"service_tier":"flex"', "flex")]


@pytest.mark.parametrize(("said", "tier"), TIERS)
def test_a_whole_answer(said: bytes, tier: str | None) -> None:
    choice = b'{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"x"}}'
    answer = openai_answers.read_chat_answer(b'{"choices":[%s],"usage":%s%s}' % (choice, COUNTS, said), ())
    assert answer.usage is not None
    assert answer.usage.service_tier == tier


@pytest.mark.parametrize("choices", [b"", b'{"index":0,"delta":{},"finish_reason":"stop"}'])
@pytest.mark.parametrize(("said", "tier"), TIERS)
def test_a_stream(said: bytes, tier: str | None, choices: bytes) -> None:
    reader = openai_stream.OpenAIStreamReader(True)
    reader.feed(b'data: {"choices":[%s],"usage":%s%s}\n\n' % (choices, COUNTS, said))
    assert reader.usage is not None
    assert reader.usage.service_tier == tier


def test_responses_and_messages() -> None:
    counts = {"input_tokens": 1, "output_tokens": 1}
    responses, messages = read_responses_usage(counts, "priority"), anthropic_answer.read_usage({**counts, "service_tier": "batch"})
    assert responses is not None
    assert messages is not None
    assert (responses.service_tier, messages.service_tier) == ("priority", "batch")
