"""Token counts of one vendor call."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Tokens in disjoint buckets: a token is counted in exactly one, so that buckets can be added and priced.

    `input` and `output` are what is left of text when the other buckets are taken out: `reasoning` is not part of `output`.
    `cache_write` are tokens written to a cache that lives five minutes, or whose life the vendor does not say;
    `cache_write_1h` one hour. `estimated` says that we counted, because the vendor gave no usable numbers.
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
