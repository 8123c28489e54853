"""A conversation as DashScope's own generation services want it: `{model, input, parameters}`.

There are two services, of one shape: one for text alone, whose messages are plain texts, and one for pictures and sound,
whose messages are lists of parts. Facts: https://help.aliyun.com/en/model-studio/qwen-api-via-dashscope; the spelling is
that of the official SDK, dashscope 2.0.
"""

from __future__ import annotations

import mimetypes
import re
from typing import Any
from urllib.parse import urlsplit

from core.config import ModelSpec
from core.conversation import Audio, Conversation, File, Image, JsonOutput, Message, Part, Reasoning, Text, Tool, ToolResult, ToolUse
from providers.adapters.translated import Leftovers

# A capability of a model's row: it is served where pictures are, which its id may not tell.
IMAGES = "images"
# Tokens of thought for an effort. The highest sets no bound of ours: the vendor's own differs by model.
BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384}
# Families that see or hear. From Qwen 3.5 on plus, flash and the open models do, too; max does not.
_SEES_OR_HEARS = re.compile(r"(?:^|[/._-])(?:vl|qvq|omni|audio|asr|ocr)(?:[._-]|\d|$)|(?:^|/)qwen3\.[5-9]-(?!max)", re.I)


def is_multimodal(conversation: Conversation, model: ModelSpec) -> bool:
    """Whether the multimodal service answers: for what the messages hold, else for what the model is."""
    if any(_is_media(part) for message in conversation.messages for part in message.parts):
        return True
    return IMAGES in model.capabilities or _SEES_OR_HEARS.search(model.model_id) is not None


def _is_media(part: Part) -> bool:
    return isinstance(part, (Image, Audio, File)) or (isinstance(part, ToolResult) and any(map(_is_media, part.parts)))


def to_wire(conversation: Conversation, model: ModelSpec, leftovers: Leftovers, *, stream: bool = False) -> dict[str, Any]:
    """The body of one call. Raises InvalidRequest for what has no place there, unless the model's row drops it."""
    _leave_out(conversation, leftovers)
    media = is_multimodal(conversation, model)
    return {
        "model": model.model_id,
        "input": {"messages": [wire for message in conversation.messages for wire in _messages(message, media, leftovers)]},
        "parameters": _parameters(conversation, leftovers, stream),
    }


def _leave_out(conversation: Conversation, leftovers: Leftovers) -> None:
    if conversation.n > 1:
        leftovers.refuse("n")
    if conversation.frequency_penalty:  # repetition_penalty is another scale
        leftovers.refuse("frequency_penalty")
    if any(tool.strict for tool in conversation.tools):
        leftovers.drop("strict")
    if conversation.user:
        leftovers.drop("user")
    if any(message.name and message.role != "tool" for message in conversation.messages):
        leftovers.drop("name")


def _parameters(conversation: Conversation, leftovers: Leftovers, stream: bool) -> dict[str, Any]:
    """`result_format` "text", the default of older models, has no place for tool calls; their streams repeat all that was said."""
    parameters: dict[str, Any] = {
        "result_format": "message",
        "incremental_output": stream or None,
        "temperature": conversation.temperature,
        "top_p": conversation.top_p,
        "top_k": conversation.top_k,
        "max_tokens": conversation.max_output_tokens,
        "seed": conversation.seed,
        "stop": conversation.stop or None,
        "presence_penalty": conversation.presence_penalty,
        "tools": [_tool(tool) for tool in conversation.tools] or None,
        "tool_choice": _tool_choice(conversation, leftovers),
        "parallel_tool_calls": conversation.parallel_tool_calls if conversation.tools else None,
        "response_format": _response_format(conversation.json_output),
        **_thinking(conversation),
    }
    return {name: value for name, value in parameters.items() if value is not None}


def _thinking(conversation: Conversation) -> dict[str, Any]:
    wish = conversation.reasoning
    if wish is None:
        return {}
    if wish.enabled is False or wish.effort == "none" or wish.budget_tokens == 0:
        return {"enable_thinking": False}
    budget = wish.budget_tokens if wish.budget_tokens is not None else BUDGETS.get(wish.effort)
    wanted = True if wish.enabled or wish.effort or budget is not None else None
    return {"enable_thinking": wanted, "thinking_budget": budget}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if bytes(tool.parameters).strip() not in (b"", b"null"):
        function["parameters"] = tool.parameters
    return {"type": "function", "function": function}


def _tool_choice(conversation: Conversation, leftovers: Leftovers) -> Any:
    """auto, none or one tool by its name is all there is; that some tool be called can be said only where there is one."""
    choice = conversation.tool_choice
    if choice is None:
        return None
    if not conversation.tools:
        if choice.mode in ("required", "tool"):
            leftovers.refuse("tool_choice")
        return None
    if choice.mode in ("auto", "none"):
        return choice.mode
    if choice.mode == "required" and len(conversation.tools) > 1:
        leftovers.refuse("tool_choice")
        return None
    return {"type": "function", "function": {"name": choice.name or conversation.tools[0].name}}


def _response_format(wanted: JsonOutput | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if not bytes(wanted.schema):
        return {"type": "json_object"}
    described: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.description:
        described["description"] = wanted.description
    if wanted.strict is not None:
        described["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": described}


def _messages(message: Message, media: bool, leftovers: Leftovers) -> list[dict[str, Any]]:
    """One message, or one for each tool result that it holds."""
    if message.role == "tool":
        return [_tool_message(part, media, leftovers) for part in message.parts if isinstance(part, ToolResult)]
    wire: dict[str, Any] = {
        "role": message.role,
        "content": _content(message.parts, media, leftovers, "" if message.role == "assistant" else "\n"),
    }
    if thought := "".join(part.text for part in message.parts if isinstance(part, Reasoning)):
        wire["reasoning_content"] = thought
    for part in message.parts:
        if isinstance(part, Reasoning) and part.redacted:
            leftovers.drop("reasoning_content")
        elif isinstance(part, Reasoning) and part.signature:
            leftovers.drop("thinking_blocks")
    if calls := [_call(part, leftovers) for part in message.parts if isinstance(part, ToolUse)]:
        wire["tool_calls"] = calls
    return [wire]


def _tool_message(result: ToolResult, media: bool, leftovers: Leftovers) -> dict[str, Any]:
    if result.is_error:  # the wire knows no failed tool; the text tells the model
        leftovers.drop("is_error")
    return {"role": "tool", "content": _content(result.parts, media, leftovers), "tool_call_id": result.call_id}


def _call(call: ToolUse, leftovers: Leftovers) -> dict[str, Any]:
    if call.signature:  # another vendor's seal
        leftovers.drop("thought_signature")
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}


def _content(parts: list[Part] | list[Text | Image | File], media: bool, leftovers: Leftovers, between: str = "\n") -> Any:
    """A list of parts for the multimodal service, else one text: the text service takes no lists."""
    if media:
        return [wire for part in parts if (wire := _part(part, leftovers)) is not None]
    return between.join(part.text for part in parts if isinstance(part, Text))


def _part(part: Part, leftovers: Leftovers) -> dict[str, Any] | None:
    match part:
        case Text():
            return {"text": part.text}
        case Image():
            if part.detail in ("low", "high"):
                leftovers.drop("detail")
            return {"image": part.url or f"data:{part.media_type};base64,{part.data}"}
        case Audio():
            return {"audio": f"data:audio/{part.format};base64,{part.data}"}
        case File():
            return _file(part, leftovers)
    return None


def _file(file: File, leftovers: Leftovers) -> dict[str, Any] | None:
    """Pictures, sound and video alone; documents are read by one model only, which wants them uploaded."""
    media_type = file.media_type or mimetypes.guess_type(urlsplit(file.url).path if file.url else file.name)[0] or ""
    kind = media_type.partition("/")[0]
    if kind not in ("image", "audio", "video") or not (file.url or file.data):
        leftovers.refuse("file")
        return None
    if file.name:
        leftovers.drop("filename")
    return {kind: file.url or f"data:{media_type};base64,{file.data}"}
