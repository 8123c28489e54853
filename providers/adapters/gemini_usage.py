"""Gemini's token counts. Facts: https://ai.google.dev/api/generate-content (UsageMetadata)."""

from __future__ import annotations

from typing import Any

from core.usage import Usage
from providers.adapters.openai_usage import is_count


def read_usage(content: Any) -> Usage | None:
    """`usageMetadata` as disjoint buckets; None where there are no numbers or they make no sense.

    What came from the cache is in `promptTokenCount`; what tools of Google's added to the prompt and what was thought are
    beside `promptTokenCount` and `candidatesTokenCount`. Details by modality that do not fit into their total are cut.
    """
    if not isinstance(content, dict):
        return None
    names = ("promptTokenCount", "cachedContentTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    counts: list[Any] = [content.get(names[0]), *(content.get(name) or 0 for name in names[1:])]
    if not all(is_count(count) for count in counts):
        return None
    prompt, cached, tools, made, thought = counts
    cached = cached if cached <= prompt else 0
    heard = _of_modality(content, "promptTokensDetails", "AUDIO") - _of_modality(content, "cacheTokensDetails", "AUDIO")
    heard = min(max(heard, 0), prompt - cached)
    seen = _of_modality(content, "promptTokensDetails", "IMAGE") - _of_modality(content, "cacheTokensDetails", "IMAGE")
    seen = min(max(seen, 0), prompt - cached - heard)
    spoken = min(_of_modality(content, "candidatesTokensDetails", "AUDIO"), made)
    drawn = min(_of_modality(content, "candidatesTokensDetails", "IMAGE"), made - spoken)
    return Usage(
        input=prompt + tools - cached - heard - seen,
        cached_input=cached,
        input_audio=heard,
        input_image=seen,
        output=made - spoken - drawn,
        reasoning=thought,
        output_audio=spoken,
        output_image=drawn,
    )


def _of_modality(content: dict[str, Any], key: str, modality: str) -> int:
    """Tokens of one kind in a list of {modality, tokenCount}; 0 where it cannot be read."""
    details = content.get(key)
    rows = [row for row in details if isinstance(row, dict)] if isinstance(details, list) else []
    counts = [row.get("tokenCount") for row in rows if row.get("modality") == modality]
    return sum(count for count in counts if is_count(count))
