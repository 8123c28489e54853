"""DashScope's token counts. Facts: https://help.aliyun.com/en/model-studio/qwen-api-via-dashscope (usage)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from core.usage import Usage
from providers.adapters.openai_usage import MAX_TOKENS_COUNTED
from providers.adapters.reading import UNREADABLE

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS_COUNTED)]


class _Sent(msgspec.Struct):
    image_tokens: Count | None = None
    video_tokens: Count | None = None
    audio_tokens: Count | None = None


class _Cached(msgspec.Struct):
    cached_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None


class _Made(msgspec.Struct):
    reasoning_tokens: Count | None = None
    audio_tokens: Count | None = None


class _Usage(msgspec.Struct):
    input_tokens: Count
    output_tokens: Count | None = None
    image_tokens: Count | None = None
    video_tokens: Count | None = None
    audio_tokens: Count | None = None
    input_tokens_details: _Sent | None = None
    prompt_tokens_details: _Cached | None = None
    output_tokens_details: _Made | None = None


_decode = msgspec.json.Decoder(_Usage).decode
_NO_SENT, _NO_CACHED, _NO_MADE = _Sent(), _Cached(), _Made()


def read_usage(usage: msgspec.Raw) -> Usage | None:
    """`usage` as disjoint buckets; None where there is none or its numbers make no sense.

    Cached, heard and seen tokens are part of `input_tokens`, reasoning of `output_tokens`. What was heard or seen stands in
    `input_tokens_details`, or beside the totals with older models; it is cut where it does not fit in. Video has the price
    of pictures and counts as such.
    """
    try:
        found = _decode(usage)
    except UNREADABLE:
        return None
    cache = found.prompt_tokens_details or _NO_CACHED
    sent, made = found.input_tokens_details or _NO_SENT, found.output_tokens_details or _NO_MADE
    cached, written = cache.cached_tokens or 0, cache.cache_creation_input_tokens or 0
    if cached + written > found.input_tokens:
        cached = written = 0
    rest = found.input_tokens - cached - written
    heard = min(sent.audio_tokens or found.audio_tokens or 0, rest)
    seen = (sent.image_tokens or found.image_tokens or 0) + (sent.video_tokens or found.video_tokens or 0)
    seen = min(seen, rest - heard)
    total = found.output_tokens or 0
    thought = min(made.reasoning_tokens or 0, total)
    spoken = min(made.audio_tokens or 0, total - thought)
    return Usage(
        input=rest - heard - seen,
        cached_input=cached,
        cache_write=written,
        input_audio=heard,
        input_image=seen,
        output=total - thought - spoken,
        reasoning=thought,
        output_audio=spoken,
    )
