"""A conversation as the body of `POST /v1/messages`, version 2023-06-01: the version that still takes temperature and its kin.

What this wire asks for differently: the system's words stand apart, turns alternate, tools answer in the user's turn, and
`max_tokens` is required. Source: https://docs.anthropic.com/en/api/messages and the types of the official SDK.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any

import msgspec

from core.config import ModelSpec
from core.conversation import Audio, Conversation, File, Image, Message, Part, Reasoning, ReasoningWish, Text, Tool, ToolResult, ToolUse
from core.errors import InvalidRequest
from providers.adapters.translated import Leftovers

# Asked for where neither the client nor the model's row says how long an answer may be.
DEFAULT_MAX_TOKENS = 4096
# Tokens of thought for an effort, where the client names no budget; the vendor takes no less than the least.
BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768}
MIN_BUDGET_TOKENS = 1024
# What is kept for the answer itself where one limit bounds both, unless the client names the budget, too.
MIN_ANSWER_TOKENS = 1024
# Capabilities of a model's row. The first decides itself how long to think, the second takes no temperature: from Claude
# Opus 4.7 on, the vendor answers 400 to a budget and to a temperature.
ADAPTIVE = "adaptive_thinking"
FIXED_SAMPLING = "fixed_sampling"
_EFFORTS = {"minimal": "low", "": "medium"}
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "tool": "tool"}
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})


def to_wire(conversation: Conversation, model: ModelSpec, leftovers: Leftovers) -> dict[str, Any]:
    """The body, without `stream`. Raises InvalidRequest for what the wire cannot carry, unless the model's row drops it."""
    wire: dict[str, Any] = {
        "model": model.model_id,
        "max_tokens": conversation.max_output_tokens or model.max_output_tokens or DEFAULT_MAX_TOKENS,
        "messages": _turns(conversation.messages, leftovers),
    }
    if system := _system(conversation.messages):
        wire["system"] = system
    if conversation.tools:
        wire["tools"] = [_tool(tool) for tool in conversation.tools]
    if choice := _tool_choice(conversation):
        wire["tool_choice"] = choice
    if conversation.user:
        wire["metadata"] = {"user_id": conversation.user}
    if conversation.json_output is not None:
        _ask_for_json(conversation, wire, leftovers)
    _stop(conversation, wire, leftovers)
    _think(conversation, model, wire, leftovers)
    _sample(conversation, model, wire, leftovers)
    return wire


def _system(messages: list[Message]) -> str | list[dict[str, Any]]:
    """The system's words from wherever they stand: one text as it is, several as blocks."""
    texts = [part.text for message in messages if message.role == "system" for part in message.parts if isinstance(part, Text)]
    texts = [text for text in texts if text.strip()]
    return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]


def _turns(messages: list[Message], leftovers: Leftovers) -> list[dict[str, Any]]:
    """Turns that alternate: neighbours of one role are one turn, and in a user's turn the tools' results come first."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.name:
            leftovers.drop("name")
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [block for part in message.parts if (block := _block(part, leftovers)) is not None]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise InvalidRequest("The messages must hold something besides system messages and empty ones.", param="messages")
    for turn in turns:
        if turn["role"] == "user":
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return turns


def _block(part: Part, leftovers: Leftovers) -> dict[str, Any] | None:
    """None = nothing is sent: the vendor refuses text without words, and thought that it has not sealed."""
    match part:
        case Text():
            return {"type": "text", "text": part.text} if part.text.strip() else None
        case Image():
            return _image(part, leftovers)
        case File():
            return _document(part, leftovers)
        case Audio():
            leftovers.refuse("input_audio")
            return None
        case Reasoning():
            return _thought(part, leftovers)
        case ToolUse():
            return _tool_use(part, leftovers)
        case ToolResult():
            return _tool_result(part, leftovers)


def _image(image: Image, leftovers: Leftovers) -> dict[str, Any]:
    if image.detail not in ("", "auto"):
        leftovers.drop("detail")
    if image.url:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": image.data}}


def _document(file: File, leftovers: Leftovers) -> dict[str, Any] | None:
    """PDF and plain text are all that the vendor reads. A `file_id` is one of its own, and asks for the client's beta header."""
    if file.file_id:
        source = {"type": "file", "file_id": file.file_id}
    elif file.url:
        source = {"type": "url", "url": file.url}
    elif file.media_type == "application/pdf":
        source = {"type": "base64", "media_type": file.media_type, "data": file.data}
    elif file.media_type.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": _decoded_text(file.data)}
    else:
        leftovers.refuse("file")
        return None
    return {"type": "document", "source": source, **({"title": file.name} if file.name else {})}


def _decoded_text(data: str) -> str:
    try:
        return base64.b64decode(data).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidRequest("A text file must be base64 of UTF-8.", param="file") from None


def _thought(thought: Reasoning, leftovers: Leftovers) -> dict[str, Any] | None:
    if thought.redacted:
        return {"type": "redacted_thinking", "data": thought.redacted}
    if thought.signature:
        return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}
    if thought.text:
        leftovers.drop("reasoning_content")
    return None


def _tool_use(call: ToolUse, leftovers: Leftovers) -> dict[str, Any]:
    if call.signature:  # another vendor's seal
        leftovers.drop("thought_signature")
    arguments = call.arguments.strip().encode() or b"{}"
    try:
        _decode_object(arguments)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"The arguments of the tool call {call.id!r} are no JSON object.", param="messages") from None
    return {"type": "tool_use", "id": _id(call.id), "name": call.name, "input": msgspec.Raw(arguments)}


def _tool_result(result: ToolResult, leftovers: Leftovers) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": _id(result.call_id)}
    if content := [inner for part in result.parts if (inner := _block(part, leftovers)) is not None]:
        block["content"] = content
    if result.is_error:
        block["is_error"] = True
    return block


def _id(call_id: str) -> str:
    """Another vendor's id in the letters that this one takes, e.g. Moonshot's get_weather:0; different ids stay different."""
    plain = _NOT_IN_IDS.sub("_", call_id)
    return plain if plain == call_id else f"{plain}_{hashlib.sha256(call_id.encode()).hexdigest()[:8]}"


def _tool(tool: Tool) -> dict[str, Any]:
    wire: dict[str, Any] = {"name": tool.name}
    if tool.description:
        wire["description"] = tool.description
    wire["input_schema"] = _schema(tool)
    if tool.strict:
        wire["strict"] = True
    return wire


def _schema(tool: Tool) -> dict[str, Any]:
    """The parameters' schema, which must say that it is an object."""
    try:
        schema = msgspec.json.decode(tool.parameters or b"{}", type=dict[str, Any] | None)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"The parameters of the tool {tool.name!r} are no JSON schema.", param="tools") from None
    return {"type": "object", **(schema or {"properties": {}})}


def _tool_choice(conversation: Conversation) -> dict[str, Any] | None:
    choice = conversation.tool_choice
    mode = choice.mode if choice is not None else "auto"
    alone = conversation.parallel_tool_calls is False and mode != "none"
    if (choice is None and not alone) or (not conversation.tools and mode in ("auto", "none")):
        return None
    wire: dict[str, Any] = {"type": _CHOICES[mode]}
    if choice is not None and choice.name:
        wire["name"] = choice.name
    if alone:
        wire["disable_parallel_tool_use"] = True
    return wire


def _ask_for_json(conversation: Conversation, wire: dict[str, Any], leftovers: Leftovers) -> None:
    """Structured output wants a schema: JSON of any shape cannot be asked for."""
    wanted = conversation.json_output
    if wanted is None or not bytes(wanted.schema):
        leftovers.refuse("response_format")
        return
    wire["output_config"] = {"format": {"type": "json_schema", "schema": wanted.schema}}
    if wanted.description:
        leftovers.drop("response_format.json_schema.description")


def _stop(conversation: Conversation, wire: dict[str, Any], leftovers: Leftovers) -> None:
    """The vendor takes no sequence of white space alone."""
    sequences = [text for text in conversation.stop if text.strip()]
    if len(sequences) < len(conversation.stop):
        leftovers.refuse("stop")
    if sequences:
        wire["stop_sequences"] = sequences


def _think(conversation: Conversation, model: ModelSpec, wire: dict[str, Any], leftovers: Leftovers) -> None:
    """The wish to think, where it fits: not beside a forced tool, nor in the middle of a turn that began without thinking."""
    wish = conversation.reasoning
    if wish is None or wish == ReasoningWish():
        return
    if wish.enabled is False or wish.effort == "none":
        wire["thinking"] = {"type": "disabled"}
    elif wire.get("tool_choice", {}).get("type") in ("any", "tool"):
        leftovers.refuse("reasoning_effort")
    elif _goes_on_unthought(wire["messages"]):
        leftovers.drop("reasoning_effort")
    else:
        bounded = bool(conversation.max_output_tokens or model.max_output_tokens)
        _start_thinking(wish, wire, leftovers, bounded=bounded, adaptive=ADAPTIVE in model.capabilities)


def _start_thinking(wish: ReasoningWish, wire: dict[str, Any], leftovers: Leftovers, *, bounded: bool, adaptive: bool) -> None:
    """A limit that the client or the model's row sets is never raised, because money hangs on it: the budget gives way."""
    budget = max(wish.budget_tokens or BUDGETS[wish.effort or "medium"], MIN_BUDGET_TOKENS)
    if not bounded:
        wire["max_tokens"] += budget
    if adaptive:
        if wish.budget_tokens:
            leftovers.drop("thinking_budget")
        wire["thinking"] = {"type": "adaptive"}
        wire["output_config"] = {**wire.get("output_config", {}), "effort": _EFFORTS.get(wish.effort, wish.effort)}
        return
    budget = min(budget, wire["max_tokens"] - (1 if wish.budget_tokens else MIN_ANSWER_TOKENS))
    if budget < MIN_BUDGET_TOKENS:
        leftovers.refuse("reasoning_effort")
    else:
        wire["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _goes_on_unthought(turns: list[dict[str, Any]]) -> bool:
    """Whether the answer goes on with a turn of the model's, from one tool to the next, that began without thinking.

    The vendor answers 400 to that when thinking is on, and most clients of other dialects do not carry thoughts back.
    """
    begun = None
    for turn in reversed(turns):
        if turn["role"] == "assistant":
            begun = turn
        elif turn["content"][0]["type"] != "tool_result":
            break
    return begun is not None and begun["content"][0]["type"] not in _THOUGHTS


def _sample(conversation: Conversation, model: ModelSpec, wire: dict[str, Any], leftovers: Leftovers) -> None:
    """Temperatures end at 1 here. While the model thinks, and for some models always, only the defaults are taken."""
    fixed = FIXED_SAMPLING in model.capabilities or wire.get("thinking", {}).get("type") in ("enabled", "adaptive")
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(conversation, name)
        if value is None or (fixed and value == 1 and name != "top_k"):
            continue
        if fixed or (name == "temperature" and value > 1):
            leftovers.refuse(name)
        else:
            wire[name] = value
    if conversation.n > 1:
        leftovers.refuse("n")
    if conversation.seed is not None:
        leftovers.refuse("seed")
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(conversation, name):
            leftovers.refuse(name)
