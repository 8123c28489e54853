"""A conversation as the body of OpenAI's chat wire, for clients of another dialect. The answer half is `openai_wire`."""

from __future__ import annotations

from typing import Any

import msgspec

from core.config import ModelSpec
from core.conversation import (
    Audio,
    Conversation,
    Effort,
    File,
    Image,
    Message,
    Reasoning,
    ReasoningWish,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)
from providers.adapters.quirks import Quirks
from providers.adapters.translated import Leftovers

_NO_QUIRKS = Quirks()
_LOW_BELOW, _MEDIUM_BELOW = 4096, 16384  # thinking tokens that an effort stands for
_ELSEWHERE = "The tool's result is shown in the next message."
"""The text of a tool message whose result is an image: OpenAI's tool messages hold text alone."""


def to_wire(
    conversation: Conversation,
    model: ModelSpec,
    leftovers: Leftovers,
    quirks: Quirks = _NO_QUIRKS,
) -> dict[str, Any]:
    """The body of a chat completion, without `stream` and `stream_options`, which are the adapter's. It may hold `msgspec.Raw`.

    Of the `extensions` thinking (DeepSeek, Moonshot, Ark, Zhipu) and enable_thinking (Qwen; thinking_budget with it) take the
    place of reasoning_effort. For `strict_messages` earlier reasoning and Gemini's seals stay behind.
    Raises InvalidRequest through `leftovers`.
    """
    body: dict[str, Any] = {"model": model.model_id, "messages": _messages(conversation.messages, leftovers, quirks.strict_messages)}
    if conversation.max_output_tokens is not None:
        body[quirks.max_tokens_field] = conversation.max_output_tokens
    body.update(_sampling(conversation, leftovers, quirks.extensions))
    if conversation.n > 1:
        leftovers.refuse("n")  # the event model tells one answer
    if conversation.stop:
        body["stop"] = conversation.stop
    if conversation.tools:
        body["tools"] = [{"type": "function", "function": _function(tool)} for tool in conversation.tools]
    body.update(_calling(conversation))
    if conversation.json_output is not None:
        body["response_format"] = _response_format(conversation)
    if conversation.reasoning is not None:
        body.update(_thinking(conversation.reasoning, quirks.extensions, leftovers))
    if conversation.user:
        body["user"] = conversation.user
    return body


def _sampling(conversation: Conversation, leftovers: Leftovers, extensions: frozenset[str]) -> dict[str, Any]:
    wishes = {name: getattr(conversation, name) for name in ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty")}
    if "top_k" in extensions:
        wishes["top_k"] = conversation.top_k
    elif conversation.top_k is not None:
        leftovers.refuse("top_k")
    return {name: wish for name, wish in wishes.items() if wish is not None}


def _messages(messages: list[Message], leftovers: Leftovers, strict: bool) -> list[dict[str, Any]]:
    """Images of tool results follow in a user message, once all results of the turn are given: nothing may stand between them."""
    wire: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            wire += [_tool_message(part, shown, leftovers) for part in message.parts if isinstance(part, ToolResult)]
            continue
        if shown:
            wire.append({"role": "user", "content": shown})
            shown = []
        wire.append(_assistant(message, leftovers, strict) if message.role == "assistant" else _spoken(message, leftovers))
    return [*wire, {"role": "user", "content": shown}] if shown else wire


def _named(message: Message, content: Any) -> dict[str, Any]:
    named = {"role": message.role, "content": content}
    return {**named, "name": message.name} if message.name else named


def _spoken(message: Message, leftovers: Leftovers) -> dict[str, Any]:
    """A system or user message. Text alone goes as one string: not every vendor takes a list."""
    if all(isinstance(part, Text) for part in message.parts):
        return _named(message, "\n".join(part.text for part in message.parts if isinstance(part, Text)))
    return _named(message, [piece for part in message.parts if (piece := _piece(part, leftovers)) is not None])


def _piece(part: Any, leftovers: Leftovers) -> dict[str, Any] | None:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            return {"type": "image_url", "image_url": {"url": url, "detail": part.detail} if part.detail else {"url": url}}
        case Audio():
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        case File() if part.file_id:
            return {"type": "file", "file": {"file_id": part.file_id}}
        case File() if part.data:
            data = f"data:{part.media_type};base64,{part.data}"
            return {"type": "file", "file": {"file_data": data, "filename": part.name or "document"}}
    leftovers.refuse("file")  # a document by its web address has no place in OpenAI's chat
    return None


def _assistant(message: Message, leftovers: Leftovers, strict: bool) -> dict[str, Any]:
    thought = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
    calls = [_tool_call(part, strict) for part in message.parts if isinstance(part, ToolUse)]
    text = "".join(part.text for part in message.parts if isinstance(part, Text))
    wire = _named(message, text if text or not calls else None)
    for part in message.parts:
        if isinstance(part, Reasoning) and (strict or part.redacted):
            leftovers.drop("reasoning_content")
        elif isinstance(part, Reasoning) and part.signature:
            leftovers.drop("thinking_blocks")
        elif isinstance(part, ToolUse) and part.signature and strict:
            leftovers.drop("thought_signature")
    if thought and not strict:
        wire["reasoning_content"] = thought
    if calls:
        wire["tool_calls"] = calls
    return wire


def _tool_call(part: ToolUse, strict: bool) -> dict[str, Any]:
    call: dict[str, Any] = {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments or "{}"}}
    if part.signature and not strict:
        call["extra_content"] = {"google": {"thought_signature": part.signature}}
    return call


def _tool_message(result: ToolResult, shown: list[dict[str, Any]], leftovers: Leftovers) -> dict[str, Any]:
    text = "\n".join(part.text for part in result.parts if isinstance(part, Text))
    pieces = [piece for part in result.parts if not isinstance(part, Text) and (piece := _piece(part, leftovers)) is not None]
    shown += pieces
    if result.is_error:  # the wire knows no failed tool; the text tells the model
        leftovers.drop("is_error")
    message = {"role": "tool", "tool_call_id": result.call_id, "content": text or (_ELSEWHERE if pieces else "")}
    return {**message, "name": result.name} if result.name else message


def _function(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, **_said(description=tool.description, parameters=tool.parameters, strict=tool.strict)}


def _said(**values: Any) -> dict[str, Any]:
    """Those that are not None and not empty."""
    return {name: value for name, value in values.items() if value is not None and value not in ("", msgspec.Raw(b""))}


def _calling(conversation: Conversation) -> dict[str, Any]:
    """Without tools OpenAI refuses these fields, even where they ask for what happens anyway."""
    choice, parallel = conversation.tool_choice, conversation.parallel_tool_calls
    if not conversation.tools:
        return {"tool_choice": _tool_choice(choice)} if choice is not None and choice.mode in ("required", "tool") else {}
    chosen = {"tool_choice": _tool_choice(choice)} if choice is not None else {}
    return chosen if parallel is None else {**chosen, "parallel_tool_calls": parallel}


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "tool" else choice.mode


def _response_format(conversation: Conversation) -> dict[str, Any]:
    wanted = conversation.json_output
    assert wanted is not None
    if not bytes(wanted.schema):
        return {"type": "json_object"}
    said = _said(description=wanted.description, schema=wanted.schema, strict=wanted.strict)
    return {"type": "json_schema", "json_schema": {"name": wanted.name, **said}}


def _thinking(wish: ReasoningWish, extensions: frozenset[str], leftovers: Leftovers) -> dict[str, Any]:
    """What the vendor cannot be told is how much to think; whether to, it can, so the rest is left out with a report."""
    effort = _effort(wish)
    if effort != "none":
        _note_measure(wish, extensions, leftovers)
    if "enable_thinking" in extensions:
        budget = {"thinking_budget": wish.budget_tokens} if wish.budget_tokens and effort != "none" else {}
        return {"enable_thinking": effort != "none", **budget}
    if "thinking" in extensions:
        return {"thinking": {"type": "disabled" if effort == "none" else "enabled"}}
    return {"reasoning_effort": effort}


def _note_measure(wish: ReasoningWish, extensions: frozenset[str], leftovers: Leftovers) -> None:
    if wish.effort and not extensions.isdisjoint(("enable_thinking", "thinking")):
        leftovers.drop("reasoning_effort")
    if wish.budget_tokens and "thinking" in extensions:
        leftovers.drop("thinking_budget")


def _effort(wish: ReasoningWish) -> Effort:
    """A wish to think that names no measure is a medium one."""
    budget = wish.budget_tokens
    if wish.enabled is False or (not wish.effort and budget is not None and budget <= 0):
        return "none"
    if wish.effort or budget is None:
        return wish.effort or "medium"
    return "low" if budget < _LOW_BELOW else "medium" if budget < _MEDIUM_BELOW else "high"
