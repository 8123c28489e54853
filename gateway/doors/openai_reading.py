"""OpenAI's chat request in our own words.

Beyond OpenAI's own fields these are read: `top_k`; `reasoning_content`, `reasoning` and `thinking_blocks` of assistant
messages; a tool call's `extra_content.google.thought_signature`; and four ways to say how much to think (`thinking`,
`enable_thinking` with `thinking_budget`, OpenRouter's `reasoning`, `reasoning_effort`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from core.conversation import Conversation, Effort, JsonOutput, ReasoningWish, Tool, ToolChoice
from core.errors import InvalidRequest
from gateway.doors import fields as bodies
from gateway.doors import openai_fields, openai_messages

_NONE = msgspec.Raw(b"")


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = _NONE
    strict: bool | None = None


class _Tool(msgspec.Struct):
    type: str = "function"
    function: _Function | None = None
    cache_control: Any = None


class _Name(msgspec.Struct):
    name: str


class _ToolChoice(msgspec.Struct):
    type: str = "function"
    function: _Name | None = None


class _Schema(msgspec.Struct):
    schema: msgspec.Raw = _NONE
    name: str = "answer"
    description: str | None = None
    strict: bool | None = None


class _Format(msgspec.Struct):
    type: str
    json_schema: _Schema | None = None


class _Thinking(msgspec.Struct):
    type: str = ""
    budget_tokens: int | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None
    max_tokens: int | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class _Body(msgspec.Struct):
    """What has a word of ours. The types alone are checked here: the door has checked the ranges."""

    messages: list[openai_messages.Message]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int | None = None
    tools: list[_Tool] | None = None
    functions: list[_Function] | None = None
    tool_choice: str | _ToolChoice | None = None
    function_call: str | _Name | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    reasoning_effort: str | None = None
    thinking: _Thinking | None = None
    enable_thinking: bool | None = None
    thinking_budget: int | None = None
    reasoning: _Reasoning | None = None
    user: str | None = None
    stream_options: openai_fields.StreamOptions | None = None


# What has a word of ours, or says how the answer travels.
_NOT_ASKED = frozenset({*_Body.__struct_fields__, "model", "stream"})
_HINTS = openai_fields.HINTS | {"cache_control", "usage"}
_EMPTY = frozenset({b"null", b"{}", b"[]", b'""'})
# Values that ask for nothing but what happens anyway.
_DEFAULTS: Mapping[str, Any] = {
    "include_reasoning": True,
    "logprobs": False,
    "modalities": ["text"],
    "store": False,
    "top_logprobs": 0,
    "verbosity": "medium",
}
_CHOICES: Mapping[str, ToolChoice] = {
    "auto": ToolChoice("auto"),
    "none": ToolChoice("none"),
    "required": ToolChoice("required"),
    "any": ToolChoice("required"),
}
_EFFORTS: Mapping[str, Effort] = {
    "none": "none",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "xhigh",
    "default": "",
}
_MODES = {"enabled": True, "adaptive": True, "disabled": False, "auto": None}
_decode = msgspec.json.Decoder(_Body).decode
_INDEX = re.compile(r"\[(\d+)\]")


def conversation(fields: Mapping[str, msgspec.Raw]) -> Conversation:
    """See `core.chat.Dialect.conversation`."""
    foreign, hints = _unsaid(fields)
    try:
        body = _decode(msgspec.json.encode(fields))
    except msgspec.ValidationError as exc:
        raise bodies.invalid(_INDEX.sub(r".\1", str(exc))) from None
    except RecursionError:
        raise InvalidRequest("The JSON of the body is nested too deeply.") from None
    if any(tool.cache_control for tool in body.tools or ()):
        hints.append("cache_control")
    read = Conversation(
        messages=openai_messages.read(body.messages),
        max_output_tokens=body.max_completion_tokens or body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k if body.top_k is not None and body.top_k > 0 else None,  # 0 and -1 mean no limit
        stop=[body.stop] if body.stop and isinstance(body.stop, str) else list(body.stop or ()),
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        n=body.n or 1,
        tools=_tools(body, foreign),
        tool_choice=_tool_choice(body, foreign),
        parallel_tool_calls=body.parallel_tool_calls,
        json_output=_json_output(body.response_format, foreign),
        reasoning=_wish(body, foreign),
        user=body.user or "",
    )
    for key in bodies.unread_below(fields, _Body, skip=foreign):
        (foreign if key in openai_messages.FOREIGN else hints).append(key)
    read.foreign, read.hints = list(dict.fromkeys(foreign)), list(dict.fromkeys(hints))
    return read


def _unsaid(fields: Mapping[str, msgspec.Raw]) -> tuple[list[str], list[str]]:
    """The fields without a word of ours that ask for something: those that change the answer, and the hints."""
    asked = [name for name, value in fields.items() if name not in _NOT_ASKED and not _asks_nothing(name, value)]
    return [name for name in asked if name not in _HINTS], [name for name in asked if name in _HINTS]


def _asks_nothing(name: str, value: msgspec.Raw) -> bool:
    if bytes(value).strip() in _EMPTY:
        return True
    return name in _DEFAULTS and msgspec.json.decode(value) == _DEFAULTS[name]


def _tools(body: _Body, foreign: list[str]) -> list[Tool]:
    """Tools that are no functions run at OpenAI itself, or speak in free text: no other wire has them."""
    functions = list(body.functions or ())
    for position, tool in enumerate(body.tools or ()):
        if tool.type != "function":
            foreign.append("tools")
        elif tool.function is None:
            raise openai_messages.invalid(f"tools.{position}.function", "is missing")
        else:
            functions.append(tool.function)
    return [Tool(it.name, it.description or "", _given(it.parameters), it.strict) for it in functions]


def _given(value: msgspec.Raw) -> msgspec.Raw:
    return _NONE if bytes(value) in (b"null", b"{}") else value.copy()


def _tool_choice(body: _Body, foreign: list[str]) -> ToolChoice | None:
    choice = body.tool_choice
    if choice is None:
        if isinstance(body.function_call, _Name):
            return ToolChoice("tool", body.function_call.name)
        choice = body.function_call
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise openai_messages.invalid("tool_choice", f"must be one of {', '.join(_CHOICES)}, or name a function")
        return _CHOICES[choice]
    if isinstance(choice, _ToolChoice):
        if choice.type == "function" and choice.function is not None:
            return ToolChoice("tool", choice.function.name)
        foreign.append("tool_choice")
    return None


def _json_output(asked: _Format | None, foreign: list[str]) -> JsonOutput | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return JsonOutput()
    if asked.type != "json_schema":
        foreign.append("response_format")
        return None
    schema = asked.json_schema
    if schema is None:
        raise openai_messages.invalid("response_format.json_schema", "is missing")
    return JsonOutput(_given(schema.schema), schema.name, schema.description or "", schema.strict)


def _wish(body: _Body, foreign: list[str]) -> ReasoningWish | None:
    """The first of the ways to say it that says something."""
    thinking, routed = body.thinking or _Thinking(), body.reasoning or _Reasoning()
    if thinking.type not in ("", *_MODES):
        raise openai_messages.invalid("thinking.type", f"must be one of {', '.join(_MODES)}")
    if routed.exclude:
        foreign.append("reasoning.exclude")
    effort = _effort(body.reasoning_effort, "reasoning_effort") or _effort(routed.effort, "reasoning.effort")
    wish = ReasoningWish(
        enabled=False if effort == "none" else _first(routed.enabled, _MODES.get(thinking.type), body.enable_thinking),
        effort=effort,
        budget_tokens=_first(routed.max_tokens, thinking.budget_tokens, body.thinking_budget),
    )
    return None if wish == ReasoningWish() else wish


def _effort(value: str | None, param: str) -> Effort:
    if value is None:
        return ""
    if value not in _EFFORTS:
        raise openai_messages.invalid(param, f"must be one of {', '.join(_EFFORTS)}")
    return _EFFORTS[value]


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
