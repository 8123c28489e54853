"""In what a server with OpenAI's wire differs from OpenAI: data, one value for each row of the registry."""

from __future__ import annotations

import msgspec

CHAT, EMBEDDINGS, COMPLETIONS, RESPONSES = "openai", "embeddings", "completions", "responses"


class Quirks(msgspec.Struct, frozen=True):
    """The defaults are those of a server about which nothing is known.

    `key_header`: which header carries the key. Authorization takes it as a bearer token, any other takes it bare, "" = the
    server knows no keys, and none is sent.
    `option_headers`: (option of the form, header that carries it).
    `endpoints`: the client dialects that the server itself speaks. They pass through; others are translated where they can be.
    `renames`: (top-level request field, what the server calls it). The server must mean the same by both.
    `max_tokens_field`: the field that limits the answer in a translated request.
    `developer_role`: the server knows OpenAI's role `developer`. Otherwise such messages go out as `system`.
    `strict_messages`: messages may hold OpenAI's keys alone. Earlier reasoning is left out of them, with a report.
    `stream_usage`: the server knows `stream_options`. Otherwise it is not sent; its usage comes unasked.
    `extensions`: what a translated request may use beyond OpenAI's fields, see `openai_wire.to_wire`: top_k, thinking,
    enable_thinking.
    """

    key_header: str = "Authorization"
    option_headers: tuple[tuple[str, str], ...] = ()
    endpoints: frozenset[str] = frozenset({CHAT, EMBEDDINGS, COMPLETIONS})
    renames: tuple[tuple[str, str], ...] = ()
    max_tokens_field: str = "max_tokens"
    developer_role: bool = False
    strict_messages: bool = False
    stream_usage: bool = True
    extensions: frozenset[str] = frozenset()
