"""What a client asked a chat model for, in no vendor's dialect: the request half of the one event model.

A door makes a `Conversation` of its dialect's body, an adapter makes its wire's body of it. It is made only where the two
speak different dialects; otherwise the client's own fields travel as they are. `core.events` is the answer half.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]
Effort = Literal["", "none", "minimal", "low", "medium", "high", "xhigh"]


class Text(msgspec.Struct, tag="text"):
    text: str


class Image(msgspec.Struct, tag="image"):
    """Either `url` (http/https), or base64 `data` with its `media_type`. `detail` is OpenAI's low | high | auto, "" = not said."""

    url: str = ""
    data: str = ""
    media_type: str = ""
    detail: str = ""


class Audio(msgspec.Struct, tag="audio"):
    """Base64 `data`; `format` is wav | mp3 | …"""

    data: str
    format: str


class File(msgspec.Struct, tag="file"):
    """A document: an http(s) `url`, base64 `data` with its `media_type`, or the `file_id` of one kept at the vendor."""

    url: str = ""
    data: str = ""
    media_type: str = ""
    file_id: str = ""
    name: str = ""


class Reasoning(msgspec.Struct, tag="reasoning"):
    """What a model thought before it spoke. `signature` is the vendor's seal on `text`, `redacted` what it hides from us.

    Both are opaque, and are given back unchanged on the next turn.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""


class ToolUse(msgspec.Struct, tag="tool_use"):
    """A model's call of a tool. `arguments` is JSON text, "" = none; `signature` is Gemini's seal on the thought behind the call."""

    id: str
    name: str
    arguments: str = ""
    signature: str = ""


class ToolResult(msgspec.Struct, tag="tool_result"):
    """What the tool gave back: `parts` of text and images. `name` is "" where the client's dialect does not repeat it."""

    call_id: str
    parts: list[Text | Image | File]
    name: str = ""
    is_error: bool = False


Part = Text | Image | Audio | File | Reasoning | ToolUse | ToolResult


class Message(msgspec.Struct):
    """One turn. System messages hold Text alone, tool messages ToolResult alone, ToolUse and Reasoning are an assistant's."""

    role: Role
    parts: list[Part]
    name: str = ""


class Tool(msgspec.Struct):
    """A function the model may call. `parameters` is a JSON schema as sent, b"" = it takes none. `strict` None = not said."""

    name: str
    description: str = ""
    parameters: msgspec.Raw = msgspec.Raw(b"")
    strict: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """`name` only for mode "tool": that one must be called."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str = ""


class JsonOutput(msgspec.Struct):
    """The answer must be JSON; `schema` b"" = any JSON object."""

    schema: msgspec.Raw = msgspec.Raw(b"")
    name: str = "answer"
    description: str = ""
    strict: bool | None = None


class ReasoningWish(msgspec.Struct, frozen=True):
    """How much to think. `enabled` False = not at all, None = not said; `effort` "" and `budget_tokens` None = not said."""

    enabled: bool | None = None
    effort: Effort = ""
    budget_tokens: int | None = None


class Conversation(msgspec.Struct):
    """One chat request. None, 0 or empty = the client did not say.

    `foreign` are top-level fields of the client's body, by their name there, that have no word here: a wire refuses them or
    drops them with a report. `hints` are likewise fields without a word here, but of a kind that changes only cost, caching
    or book-keeping, never the answer (cache marks, metadata, service tier): they are left out with a report, never refused.
    """

    messages: list[Message]
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = msgspec.field(default_factory=list)
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int = 1
    tools: list[Tool] = msgspec.field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    json_output: JsonOutput | None = None
    reasoning: ReasoningWish | None = None
    user: str = ""
    foreign: list[str] = msgspec.field(default_factory=list)
    hints: list[str] = msgspec.field(default_factory=list)
