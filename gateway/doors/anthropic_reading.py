"""Anthropic's messages request in our own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from core.conversation import (
    Conversation,
    Effort,
    JsonOutput,
    Message,
    Part,
    ReasoningWish,
    Tool,
    ToolChoice,
    ToolResult,
)
from core.errors import InvalidRequest
from gateway.doors.anthropic_blocks import Block, Unread, said_by_assistant, said_by_user, texts
from gateway.doors.fields import invalid, unread_below

# What has a word of ours, or is the gateway's own business.
_READ = frozenset(
    (
        *("model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences"),
        *("tools", "tool_choice", "thinking", "output_config", "output_format", "metadata"),
    )
)
# They change cost, speed, caching or book-keeping, never what is asked of the model.
_HINTS = frozenset(
    (
        *("cache_control", "context_management", "compaction", "service_tier", "container", "diagnostics", "speed"),
        *("user_profile_id", "workspace_id", "billing_policy", "fallback_credit_token"),
    )
)
_TOOL_READ = frozenset(("type", "name", "description", "input_schema", "strict"))
_TOOL_HINTS = frozenset(("cache_control", "eager_input_streaming", "defer_loading"))
_EFFORTS: Mapping[str, Effort] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"}
_THINKING = {"enabled": True, "adaptive": True, "between_tools": True, "disabled": False}
_NULL = b"null"


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class _Tool(msgspec.Struct):
    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = msgspec.Raw(b"")
    strict: bool | None = None


class _ToolChoice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool | None = None


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class _Format(msgspec.Struct):
    type: Literal["json_schema"]
    schema: msgspec.Raw


class _OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None
    task_budget: msgspec.Raw = msgspec.Raw(_NULL)


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Body(msgspec.Struct):
    messages: list[_Message]
    system: str | list[Block] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[dict[str, msgspec.Raw]] | None = None
    tool_choice: _ToolChoice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None
    metadata: _Metadata | None = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_tools = msgspec.json.Decoder(list[_Tool]).decode


def conversation(fields: Mapping[str, msgspec.Raw]) -> Conversation:
    """See `core.chat.Dialect.conversation`."""
    try:
        body = _decode(msgspec.json.encode(fields))
        unread = _unread(fields)
        return _read(body, unread)
    except msgspec.ValidationError as exc:
        raise invalid(str(exc)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("The body cannot be read: its JSON is broken, or nested too deeply.") from None


def _read(body: _Body, unread: Unread) -> Conversation:
    choice = body.tool_choice
    if body.max_tokens == 0:
        unread.foreign["max_tokens"] = None  # "fill the cache and say nothing" exists at Anthropic only
    return Conversation(
        messages=[*_system(body, unread), *_messages(body.messages, unread)],
        max_output_tokens=body.max_tokens or None,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        stop=body.stop_sequences or [],
        tools=_tools(body.tools or [], unread),
        tool_choice=_choice(choice) if choice is not None else None,
        parallel_tool_calls=None if choice is None or choice.disable_parallel_tool_use is None else not choice.disable_parallel_tool_use,
        json_output=_json_output(body),
        reasoning=_wish(body, unread),
        user=(body.metadata and body.metadata.user_id) or "",
        foreign=list(unread.foreign),
        hints=list(unread.hints),
    )


def _unread(fields: Mapping[str, msgspec.Raw]) -> Unread:
    unread = Unread()
    for name, value in fields.items():
        if name not in _READ and bytes(value).strip() != _NULL:
            (unread.hints if name in _HINTS else unread.foreign)[name] = None
    unread.hints.update(dict.fromkeys(unread_below(fields, _Body)))
    return unread


def _system(body: _Body, unread: Unread) -> list[Message]:
    parts = texts(body.system or "", "system", unread)
    return [Message("system", parts)] if parts else []


def _messages(said: list[_Message], unread: Unread) -> list[Message]:
    """Tool results come in the user's name: they become a turn of their own, before what the user says.

    Turns of the user that follow each other are one to Anthropic, so results in a later one stand first, too.
    """
    read: list[Message] = []
    for position, message in enumerate(said):
        path = f"messages[{position}].content"
        parts: list[Part]
        if message.role == "system":
            parts = texts(message.content, path, unread)
        elif message.role == "assistant":
            parts = said_by_assistant(message.content, path, unread)
        else:
            parts = said_by_user(message.content, path, unread)
            if results := [part for part in parts if isinstance(part, ToolResult)]:
                _answer(read, results)
            parts = [part for part in parts if not isinstance(part, ToolResult)]
        if parts:
            read.append(Message(message.role, parts))
    return read


def _answer(read: list[Message], results: Sequence[Part]) -> None:
    """Puts the results behind the calls that they answer, before all that the user has said since."""
    place = len(read)
    while place and read[place - 1].role == "user":
        place -= 1
    if place and read[place - 1].role == "tool":
        read[place - 1].parts += results
    else:
        read.insert(place, Message("tool", list(results)))


def _tools(raw: list[dict[str, msgspec.Raw]], unread: Unread) -> list[Tool]:
    """Tools that run at Anthropic itself, such as its web search, are foreign everywhere else."""
    tools = []
    for position, (tool, names) in enumerate(zip(_decode_tools(msgspec.json.encode(raw)), raw, strict=True)):
        if tool.type not in (None, "custom"):
            unread.foreign["tools"] = None
            continue
        if not tool.name:
            raise InvalidRequest(f"tools[{position}].name: a tool needs a name.", param=f"tools[{position}].name")
        for name in names.keys() - _TOOL_READ:
            if name in _TOOL_HINTS:
                unread.hints[name] = None
            elif bytes(names[name]).strip() != _NULL:
                unread.foreign[f"tools[{position}].{name}"] = None
        tools.append(Tool(tool.name, tool.description or "", tool.input_schema, tool.strict))
    return tools


def _choice(choice: _ToolChoice) -> ToolChoice:
    match choice.type:
        case "any":
            return ToolChoice("required")
        case "tool":
            if not choice.name:
                raise InvalidRequest("tool_choice.name: say which tool must be called.", param="tool_choice.name")
            return ToolChoice("tool", choice.name)
        case _:
            return ToolChoice(choice.type)


def _json_output(body: _Body) -> JsonOutput | None:
    wanted = (body.output_config.format if body.output_config is not None else None) or body.output_format
    return JsonOutput(wanted.schema) if wanted is not None else None


def _wish(body: _Body, unread: Unread) -> ReasoningWish | None:
    config, thinking = body.output_config, body.thinking
    if config is not None and bytes(config.task_budget).strip() != _NULL:
        unread.foreign["output_config.task_budget"] = None
    effort = _effort(config.effort) if config is not None and config.effort is not None else ""
    if thinking is None:
        return ReasoningWish(effort=effort) if effort else None
    if thinking.display is not None:
        unread.hints["thinking.display"] = None
    if thinking.type not in _THINKING:
        raise InvalidRequest(f"thinking.type: write one of {', '.join(_THINKING)}.", param="thinking.type")
    return ReasoningWish(_THINKING[thinking.type], effort, thinking.budget_tokens)


def _effort(said: str) -> Effort:
    if said not in _EFFORTS:
        raise InvalidRequest(f"output_config.effort: write one of {', '.join(_EFFORTS)}.", param="output_config.effort")
    return _EFFORTS[said]
