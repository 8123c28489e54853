"""The words of one generation, in no vendor's dialect."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Tokens in disjoint buckets: a token is counted in exactly one, so that buckets can be added and priced.

    `reasoning` is the exception that vendors force: it is a part of `output`, shown but never added to it.
    `estimated` says that we counted, because the vendor gave no usable numbers.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: bool = False

    @property
    def prompt_tokens(self) -> int:
        """OpenAI's `prompt_tokens`: everything that went in."""
        return self.input + self.cached_input + self.cache_write

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.output


class ChatRequest(msgspec.Struct):
    """What a client asked for. `fields` is the top level of its body, each value as sent: unknown fields travel on."""

    dialect: str
    model: str
    stream: bool
    wants_usage: bool
    max_output_tokens: int | None
    body_bytes: int
    fields: dict[str, msgspec.Raw]

    @property
    def estimated_input_tokens(self) -> int:
        """Four bytes a token: a guess, used where no vendor count exists and for token rates before the call."""
        return self.body_bytes // 4 + 1


class Answer(msgspec.Struct):
    """A whole, valid answer: `body` is ready for a client of the request's dialect. `usage` is None where none came."""

    body: bytes
    usage: Usage | None
    finish_reason: str
    output_bytes: int


class WireCall(msgspec.Struct):
    """One HTTP call to a vendor, fully spelled out. `headers` hold the credential: never log this."""

    url: str
    headers: dict[str, str]
    body: bytes | None = None
    method: str = "POST"

    def __repr__(self) -> str:
        return f"WireCall({self.method} {self.url}, {len(self.body or b'')} bytes)"
