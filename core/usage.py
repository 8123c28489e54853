"""Token counts of one vendor call."""

from __future__ import annotations

from typing import Any

import msgspec

# Beside "", the usual one: the tiers that vendors sell at prices of their own.
SERVICE_TIERS = ("priority", "flex", "batch")


def tier_of(said: Any) -> str | None:
    """A vendor's or a client's word for a service tier as one of SERVICE_TIERS; "" for its other words; None = nothing was said."""
    if not isinstance(said, str):
        return None
    return said if said in SERVICE_TIERS else ""


_MOST_SHOWN = 20  # of one value: less than any credential has that a vendor might put there


def refused_counts(said: Any) -> str:
    """What a vendor said that cannot be counts, in short, for the record; "" = it said nothing."""
    if isinstance(said, msgspec.Raw):
        try:
            said = msgspec.json.decode(said)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = bytes(said)[:_MOST_SHOWN].decode(errors="replace")
    if not said or (isinstance(said, dict) and not any("token" in str(name).lower() for name in said)):
        return ""
    return f"no whole numbers that can be: {_shown(said)}"[:200]


def _shown(said: Any, depth: int = 2) -> str:
    if isinstance(said, dict) and depth:
        return ", ".join(f"{str(name)[:_MOST_SHOWN]} {_shown(value, depth - 1)}" for name, value in list(said.items())[:10])
    return repr(said)[:_MOST_SHOWN] if said is None or isinstance(said, int | float | str) else type(said).__name__


class Usage(msgspec.Struct, frozen=True):
    """Tokens in disjoint buckets: a token is counted in exactly one, so that buckets can be added and priced.

    `input` and `output` are what is left of text when the other buckets are taken out: `reasoning` is not part of `output`.
    `cache_write` are tokens written to a cache that lives five minutes, or whose life the vendor does not say;
    `cache_write_1h` one hour. `estimated` says that we counted, because the vendor gave no usable numbers; `refused`
    then says which it did give.
    `service_tier` is the one that the vendor says it served, see `tier_of`.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    input_audio: int = 0
    input_image: int = 0
    output: int = 0
    reasoning: int = 0
    output_audio: int = 0
    output_image: int = 0
    estimated: bool = False
    service_tier: str | None = None
    refused: str = ""

    @property
    def prompt_tokens(self) -> int:
        """OpenAI's `prompt_tokens`: everything that went in."""
        return self.input + self.cached_input + self.cache_write + self.cache_write_1h + self.input_audio + self.input_image

    @property
    def completion_tokens(self) -> int:
        """OpenAI's `completion_tokens`: everything that came out."""
        return self.output + self.reasoning + self.output_audio + self.output_image

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens
