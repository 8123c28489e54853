"""Token counts in OpenAI's shape, and in the shapes of those who imitate it."""

from __future__ import annotations

from typing import Any, TypeGuard

from core.usage import Usage, tier_of

MAX_TOKENS_COUNTED = 10**9


def is_count(value: Any) -> TypeGuard[int]:
    """Whether a vendor can have counted so many tokens."""
    return type(value) is int and 0 <= value <= MAX_TOKENS_COUNTED


def read_usage(content: Any, service_tier: Any = None) -> Usage | None:
    """OpenAI-shaped token counts as disjoint buckets; None where they make no sense.

    Cached and cache-writing tokens are part of `prompt_tokens`. They are found in `prompt_tokens_details`, or at the top
    as `prompt_cache_hit_tokens` (DeepSeek) or `cached_tokens` (Moonshot). Reasoning is part of `completion_tokens`, save
    at xAI and in Gemini's imitation of OpenAI, where the total tells, and Gemini tells it nowhere else.
    `service_tier` stands beside the counts, at the top of the answer.
    """
    if not isinstance(content, dict):
        return None
    counts = _counts(content)
    if not all(map(is_count, counts)):
        return None
    prompt, completion, cached, written, heard, seen, reasoning, spoken, drawn = counts
    if cached + written > prompt:  # seen from grok on Azure, 2026: the details cannot be right, the total is kept
        cached = written = 0
    # What was heard or seen may be cached too (grok again); cached it counts as cached.
    heard = min(heard, prompt - cached - written)
    seen = min(seen, prompt - cached - written - heard)
    total = content.get("total_tokens")
    hidden = total - prompt - completion if is_count(total) else 0
    if hidden > 0 and reasoning in (0, hidden):
        completion += hidden
        reasoning = hidden
    if reasoning + spoken + drawn > completion:
        reasoning, spoken, drawn = min(reasoning, completion), 0, 0
    return Usage(
        input=prompt - cached - written - heard - seen,
        cached_input=cached,
        cache_write=written,
        input_audio=heard,
        input_image=seen,
        output=completion - reasoning - spoken - drawn,
        reasoning=reasoning,
        output_audio=spoken,
        output_image=drawn,
        service_tier=tier_of(service_tier),
    )


def _counts(content: dict[str, Any]) -> tuple[Any, ...]:
    """Prompt and completion; of the one cached, written, heard and seen; of the other thought, spoken and drawn."""
    sent, made = _object(content, "prompt_tokens_details"), _object(content, "completion_tokens_details")
    hits = sent.get("cached_tokens")
    if hits is None:
        hits = content.get("prompt_cache_hit_tokens", content.get("cached_tokens"))
    return (
        content.get("prompt_tokens"),
        content.get("completion_tokens"),
        hits or 0,
        sent.get("cache_write_tokens") or 0,
        sent.get("audio_tokens") or 0,
        sent.get("image_tokens") or 0,
        made.get("reasoning_tokens") or 0,
        made.get("audio_tokens") or 0,
        made.get("image_tokens") or 0,
    )


def _object(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}
