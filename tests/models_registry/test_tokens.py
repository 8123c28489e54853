"""Token counts: exact where a tokenizer is public, and never a crash."""

from __future__ import annotations

import random
import string
import warnings

import pytest

from core.conversation import Conversation, Image, Message, Text, Tool
from models_registry import tokens
from models_registry.tokens import Count, count_conversation, count_text, encoding_of, estimate


@pytest.mark.parametrize(
    ("model_id", "encoding"),
    [
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("gpt-5.5-pro", "o200k_base"),
        ("gpt-6-sol", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("openai/gpt-oss-20b", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("Qwen/Qwen3-32B", "qwen"),
        ("qwen-max", "qwen"),
        ("claude-opus-5", None),
        ("o365-model", None),
        ("gemini-3-pro", None),
    ],
)
def test_a_models_name_says_its_tokenizer(model_id: str, encoding: str | None) -> None:
    assert encoding_of(model_id) == encoding


# Counts from OpenAI's own tokenizer page.
@pytest.mark.parametrize(
    ("text", "model_id", "count"),
    [
        ("", "gpt-4o", 0),
        ("hello world", "gpt-4o", 2),
        ("hello world", "gpt-4", 2),
        ("tiktoken is great!", "gpt-4", 6),
        ("antidisestablishmentarianism", "gpt-4", 6),
        ("お誕生日おめでとう", "gpt-4", 9),
        ("<|endoftext|>", "gpt-4", 7),
    ],
)
def test_text_is_counted_exactly(text: str, model_id: str, count: int) -> None:
    assert count_text(text, model_id) == Count(count, True)


def test_qwen_counts_are_those_of_alibabas_own_tokenizer() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK's import warns of its own
        from dashscope.tokenizers import get_tokenizer
    theirs, rng = get_tokenizer("qwen-turbo"), random.Random(3)
    alphabet = string.printable + "你好世界éßЖ🙂\n\n   "
    for _ in range(200):
        text = "".join(rng.choices(alphabet, k=rng.randint(0, 200)))
        assert count_text(text, "qwen-turbo") == Count(len(theirs.encode(text)), True)


def test_a_long_text_is_counted_in_pieces_that_add_up() -> None:
    paragraph = "The quick brown fox – 快速的棕色狐狸 – jumps.\n"
    once = count_text(paragraph, "gpt-4o").tokens
    assert count_text(paragraph * 20_000, "gpt-4o") == Count(once * 20_000, True)
    assert "".join(tokens._chunks(paragraph * 20_000)) == paragraph * 20_000


def test_what_no_tokenizer_takes_is_still_counted() -> None:
    assert count_text("a\ud800b", "gpt-4o").tokens > 0
    assert count_text("x" * (tokens.MAX_COUNTED_CHARS + 1), "gpt-4o") == Count(tokens.MAX_COUNTED_CHARS // 4 + 1, False)
    assert count_text("hello there", "claude-x") == Count(3, False)


def test_without_the_tokenizers_data_a_count_is_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_encoder", lambda _: None)
    assert count_text("hello world!", "gpt-4o") == Count(3, False)


def test_scripts_that_are_not_ascii_weigh_more() -> None:
    assert (estimate(""), estimate("abcdefgh"), estimate("你好世界你好世界你好")) == (0, 2, 8)


def test_a_conversation_is_text_and_its_frame() -> None:
    """The example of OpenAI's cookbook counts 129 tokens for gpt-4; this one was counted by its rule by hand."""
    conversation = Conversation([Message("system", [Text("hello world")]), Message("user", [Text("hello world")], name="bob")])
    assert count_conversation(conversation, "gpt-4") == Count((3 + 1 + 2) + (3 + 1 + 2) + (1 + 1) + 3, True)


@pytest.mark.parametrize("model_id", ["gpt-4o", "qwen-plus", "claude"])
def test_tools_and_pictures_make_a_count_an_estimate(model_id: str) -> None:
    plain = Conversation([Message("user", [Text("hello")])])
    seen = Conversation([Message("user", [Text("hello"), Image(url="https://x.test/a.png")])])
    tooled = Conversation(plain.messages, tools=[Tool("look", "Looks things up.")])
    for richer in (seen, tooled):
        count = count_conversation(richer, model_id)
        assert not count.exact
        assert count.tokens > count_conversation(plain, model_id).tokens
