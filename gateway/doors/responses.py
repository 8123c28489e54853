"""OpenAI's Responses dialect. Nothing is kept here: a translated request brings its whole history along.

Tools that are no functions (`web_search`, `custom`, …) run at OpenAI or take free text, and other vendors have none of them.
Where a request offers functions, too, they are left out with a report, because the model may do without what it is merely
offered: so Codex, which always offers some, works with any model. Where they are all it has, or one must be used, the
request is refused, unless the model's row says to drop.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, cast

import msgspec

from core.chat import CacheWish, ChatRequest, Dialect
from core.conversation import Conversation, Effort, JsonOutput, Message, ReasoningWish, Text, Tool, ToolChoice
from core.errors import GatewayError
from gateway.doors import fields as bodies
from gateway.doors import responses_reading
from gateway.doors.openai_chat import error_body, error_value
from gateway.doors.openai_fields import StreamOptions, foreign, hints, reread
from gateway.doors.openai_messages import invalid
from gateway.doors.responses_writing import stream_writer, whole

__all__ = ["FIELD_NAMES", "NAME", "SCOPE", "conversation", "error_body", "parse", "stream_error", "stream_writer", "whole"]

NAME = "responses"
SCOPE = "chat"
# See `anthropic_messages.FIELD_NAMES`.
FIELD_NAMES = {
    "reasoning_content": "reasoning",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "response_format.json_schema.description": "text.format.description",
    "thinking_blocks": "encrypted_content",
    "thought_signature": "encrypted_content",
}
_NONE = msgspec.Raw(b"")
_EFFORTS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh"})
_SEALS = "reasoning.encrypted_content"


class _Body(msgspec.Struct):
    """What we read or check. Everything else travels on untouched, for the vendor to judge."""

    model: bodies.ModelName
    input: str | list[msgspec.Raw] | None = None
    instructions: str | None = None
    stream: bool | None = None
    background: bool | None = None
    max_output_tokens: bodies.OutputTokens | None = None
    temperature: bodies.Temperature | None = None
    top_p: bodies.TopP | None = None
    tools: Annotated[list[dict[str, msgspec.Raw]], msgspec.Meta(max_length=1024)] | None = None
    cache: CacheWish | None = None


class _Tool(msgspec.Struct):
    type: str
    name: str = ""
    description: str | None = None
    parameters: msgspec.Raw = _NONE
    strict: bool | None = None


class _ToolChoice(msgspec.Struct):
    type: str = ""
    name: str = ""
    mode: str = ""
    tools: list[_Tool] | None = None


class _Format(msgspec.Struct):
    type: str = "text"
    name: str = "answer"
    schema: msgspec.Raw = _NONE
    description: str | None = None
    strict: bool | None = None


class _TextWish(msgspec.Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None
    mode: str | None = None
    summary: str | None = None
    context: str | None = None


class _Asked(msgspec.Struct):
    """What has a word of ours. Ranges were checked by `parse`."""

    input: str | list[responses_reading.Item] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: _TextWish | None = None
    reasoning: _Reasoning | None = None
    include: list[str] | None = None
    max_tool_calls: int | None = None
    top_logprobs: int | None = None
    truncation: str | None = None
    user: str | None = None
    stream_options: StreamOptions | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None


_this = cast(Dialect, sys.modules[__name__])
_checked, _asked = msgspec.json.Decoder(_Body), msgspec.json.Decoder(_Asked)
_KNOWN = frozenset((*_Asked.__struct_fields__, "model", "stream", "background"))


def parse(body: bytes) -> ChatRequest:
    """Raises InvalidRequest with the offending field in `param`."""
    checked, fields = bodies.read(body, _checked)
    bodies.drop_ours(fields)
    if checked.background:
        raise invalid("background", "is not offered here: nobody could fetch the response; leave it out")
    return ChatRequest(
        dialect=_this,
        model=checked.model,
        stream=bool(checked.stream),
        wants_usage=True,
        max_output_tokens=checked.max_output_tokens,
        body_bytes=len(body),
        fields=fields,
        cache=checked.cache,
    )


def conversation(fields: Mapping[str, msgspec.Raw]) -> Conversation:
    """See `core.chat.Dialect.conversation`."""
    asked = reread(fields, _asked)
    for name in ("previous_response_id", "conversation", "prompt"):
        if getattr(asked, name) is not None:
            raise invalid(name, "refers to what only OpenAI keeps; the model that serves this request needs the whole input")
    strange, unheard = foreign(fields, _KNOWN), [*hints(fields), *_unread(fields)]
    return Conversation(
        messages=_messages(asked),
        max_output_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        tools=_tools(asked, strange, unheard),
        tool_choice=_tool_choice(asked.tool_choice, strange),
        parallel_tool_calls=asked.parallel_tool_calls,
        json_output=_json_output(asked.text, strange),
        reasoning=_wish(asked.reasoning, strange),
        user=asked.user or "",
        foreign=strange + _only_openais(asked),
        hints=unheard + _idle(asked),
    )


def _messages(asked: _Asked) -> list[Message]:
    messages = [Message("system", [Text(asked.instructions)])] if asked.instructions else []
    if isinstance(asked.input, str):
        messages.append(Message("user", [Text(asked.input)]))
    else:
        messages += responses_reading.read(asked.input or [])
    if not any(message.role != "system" for message in messages):
        raise invalid("input", "must hold something besides instructions")
    return messages


def _tools(asked: _Asked, strange: list[str], unheard: list[str]) -> list[Tool]:
    offered = asked.tools or []
    functions = [tool for tool in offered if tool.type == "function"]
    others = [f"tools.{tool.type[:40]}" for tool in offered if tool.type != "function"]
    if functions:
        unheard += others
    elif others:
        strange.append("tools")
    for position, tool in enumerate(functions):
        if not tool.name:
            raise invalid(f"tools.{position}.name", "is missing")
    return [Tool(tool.name, tool.description or "", _said(tool.parameters), tool.strict) for tool in functions]


def _unread(fields: Mapping[str, msgspec.Raw]) -> list[str]:
    """Keys below the top level that are not read, save those of tools that are left out themselves."""
    offered = bodies.decoded(fields["tools"]) or [] if "tools" in fields else []
    of_functions = bodies.unread([tool for tool in offered if tool.get("type") == "function"], _Tool)
    return [*bodies.unread_below(fields, _Asked, skip=("tools",)), *of_functions]


def _said(value: msgspec.Raw) -> msgspec.Raw:
    return _NONE if bytes(value) == b"null" else value


def _tool_choice(choice: str | _ToolChoice | None, strange: list[str]) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case "auto" | "none" | "required":
            return ToolChoice(choice)
        case _ToolChoice(type="function", name=name) if name:
            return ToolChoice("tool", name)
    strange.append("tool_choice")
    return None


def _json_output(text: _TextWish | None, strange: list[str]) -> JsonOutput | None:
    if text is None:
        return None
    if text.verbosity not in (None, "medium"):
        strange.append("text.verbosity")
    asked = text.format or _Format()
    match asked.type:
        case "text":
            return None
        case "json_object":
            return JsonOutput()
        case "json_schema":
            return JsonOutput(_said(asked.schema), asked.name, asked.description or "", asked.strict)
    strange.append("text.format")
    return None


def _wish(asked: _Reasoning | None, strange: list[str]) -> ReasoningWish | None:
    """`summary` needs no word: what a vendor shows of its thoughts is given in any case."""
    if asked is None:
        return None
    if asked.mode not in (None, "standard"):
        strange.append("reasoning.mode")
    if asked.effort is None:
        return None
    if asked.effort not in _EFFORTS:
        strange.append("reasoning.effort")
        return None
    return ReasoningWish(enabled=asked.effort != "none", effort=cast(Effort, asked.effort))


def _only_openais(asked: _Asked) -> list[str]:
    return ["top_logprobs"] if asked.top_logprobs else []


def _idle(asked: _Asked) -> list[str]:
    """What has no effect elsewhere: seals come without being asked for, and only OpenAI's own tools are counted."""
    told = asked.input if isinstance(asked.input, list) else []
    given = {
        "include": any(name != _SEALS for name in asked.include or ()),
        "max_tool_calls": asked.max_tool_calls is not None,
        "truncation": asked.truncation == "auto",
        "phase": any(item.phase for item in told),
        "encrypted_content": any(responses_reading.is_sealed_by_openai(item) for item in told),
        "reasoning.context": asked.reasoning is not None and asked.reasoning.context not in (None, "auto"),
    }
    return [name for name, value in given.items() if value]


def stream_error(error: GatewayError) -> bytes:
    """The last events of a stream that failed: `response.failed`, for which agents wait, and `error`, which makes SDKs raise.

    The numbers and the id of the stream are not known here; what they were belongs to an answer that does not exist.
    """
    value = error_value(error)
    failed = {
        "id": "resp_failed",
        "object": "response",
        "created_at": 0,
        "status": "failed",
        "error": {"code": "server_error" if error.http_status >= 500 else value["code"], "message": value["message"]},
        "incomplete_details": None,
        "model": "",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
    }
    return _event({"type": "response.failed", "sequence_number": 0, "response": failed}) + _event(
        {"type": "error", **{name: value[name] for name in ("code", "message", "param")}, "sequence_number": 0, "error": value}
    )


def _event(value: dict[str, Any]) -> bytes:
    return b"event: " + value["type"].encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"
