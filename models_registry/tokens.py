"""Counting tokens without asking a vendor: exactly where the tokenizer is public, by a rule of thumb elsewhere.

A tokenizer is loaded when it is first needed and then kept: 0.6 s and about 70 MB for the library of OpenAI's encodings plus
as much for each of them, 0.3 s and about 50 MB for Qwen's. Call from a thread. Pure but for that: no Django, no network.
"""

from __future__ import annotations

import base64
import importlib.util
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from core.conversation import Conversation, Part, Reasoning, Text, ToolResult, ToolUse

# A longer text is estimated: counting it would keep a thread busy for seconds.
MAX_COUNTED_CHARS = 4_000_000
_CHUNK_CHARS = 200_000
# Our own map: the libraries' maps end with the models of their day. The first match counts.
_ENCODINGS = (
    (re.compile(r"gpt-4o|gpt-4\.1|gpt-[5-9]|gpt-oss|chatgpt-4o|o[1-9](?![0-9])"), "o200k_base"),
    (re.compile(r"gpt-4|gpt-3\.5|text-embedding-(?:3|ada-002)"), "cl100k_base"),
    (re.compile(r"qwen|qwq|qvq"), "qwen"),
)
# https://github.com/QwenLM/Qwen/blob/main/tokenization_note.md: how text is cut before merging.
_QWEN_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# OpenAI's cookbook, "How to count tokens with tiktoken": what frames each message, a name, and the answer to come.
_PER_MESSAGE, _PER_NAME, _PER_ANSWER = 3, 1, 3
# What a picture costs depends on its size, which is not looked at; this is one of 512 × 512 at OpenAI in high detail.
_PER_IMAGE = 255


class Count(NamedTuple):
    """`exact`: a real tokenizer has counted every token the vendor will charge; otherwise an estimate."""

    tokens: int
    exact: bool


def encoding_of(model_id: str) -> str | None:
    """The name of the public tokenizer of a vendor's model, None where there is none. `owner/model` counts as `model`."""
    name = model_id.lower().rpartition("/")[2]
    return next((encoding for pattern, encoding in _ENCODINGS if pattern.match(name)), None)


def count_text(text: str, model_id: str) -> Count:
    """`text` by itself, without the frame of a message."""
    encoding = encoding_of(model_id)
    if encoding is None or len(text) > MAX_COUNTED_CHARS:
        return Count(estimate(text), False)
    encode = _encoder(encoding)
    if encode is None:
        return Count(estimate(text), False)
    if not text.isprintable():
        text = text.encode("utf-8", "replace").decode()  # JSON can spell lone surrogates, tokenizers cannot
    return Count(sum(map(encode, _chunks(text))), True)


def count_conversation(conversation: Conversation, model_id: str) -> Count:
    """A whole prompt. Exact only for plain text to OpenAI's models: how others frame turns and tools is not published."""
    tokens, exact = _PER_ANSWER, (encoding_of(model_id) or "qwen") != "qwen"
    for message in conversation.messages:
        tokens += _PER_MESSAGE + count_text(message.role, model_id).tokens
        if message.name:
            tokens += _PER_NAME + count_text(message.name, model_id).tokens
        for part in message.parts:
            count = _count_part(part, model_id)
            tokens, exact = tokens + count.tokens, exact and count.exact
    for tool in conversation.tools:
        tokens += count_text(f"{tool.name}\n{tool.description}\n{bytes(tool.parameters).decode()}", model_id).tokens
    return Count(tokens, exact and not conversation.tools)


def estimate(text: str) -> int:
    """Four letters a token in scripts that use ASCII, four tokens for five characters of others: right to about a third."""
    ascii_chars = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return (ascii_chars + 3) // 4 + (len(text) - ascii_chars) * 4 // 5


def _count_part(part: Part, model_id: str) -> Count:
    match part:
        case Text() | Reasoning():
            return count_text(part.text, model_id)
        case ToolUse():
            return Count(count_text(f"{part.name}{part.arguments}", model_id).tokens, False)
        case ToolResult():
            return Count(sum(_count_part(inner, model_id).tokens for inner in part.parts), False)
        case _:
            return Count(_PER_IMAGE, False)


def _chunks(text: str) -> Iterator[str]:
    """Pieces that tokenizers can take, cut after line ends: no public pattern joins a line end with a letter that follows."""
    start = 0
    while len(text) - start > _CHUNK_CHARS:
        cut = start + _CHUNK_CHARS
        line_end = text.rfind("\n", start, cut)
        while line_end > start and not text[line_end + 1].isalnum():
            line_end = text.rfind("\n", start, line_end)
        cut = line_end + 1 if line_end > start else cut
        yield text[start:cut]
        start = cut
    yield text[start:]


@cache
def _encoder(encoding: str) -> Callable[[str], int] | None:
    """Counts the tokens of a piece of text. None where the tokenizer's data is not installed."""
    if encoding == "qwen":
        return _qwen_encoder()
    try:
        import bpe_openai
    except ImportError:
        return None
    encode = bpe_openai.get_encoding(encoding).encode_ordinary
    return lambda text: len(encode(text))


def _qwen_encoder() -> Callable[[str], int] | None:
    """Alibaba's ranks from its SDK's folder: the SDK itself would cost 70 MB and two seconds, and is not imported."""
    found = importlib.util.find_spec("dashscope")
    if found is None or found.origin is None:
        return None
    ranks_file = Path(found.origin).parent / "resources" / "qwen.tiktoken"
    try:
        import tiktoken

        lines = ranks_file.read_bytes().splitlines()
    except (ImportError, OSError):
        return None
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    encode = tiktoken.Encoding("qwen", pat_str=_QWEN_PATTERN, mergeable_ranks=ranks, special_tokens={}).encode_ordinary
    return lambda text: len(encode(text))
