"""A conversation as Google's `generateContent` wants it.

Facts: https://ai.google.dev/api/generate-content, /api/caching (Content, Part, FunctionDeclaration),
/gemini-api/docs/thinking, /thought-signatures, /file-input-methods; the spelling is that of google-genai 3.4.
"""

from __future__ import annotations

import mimetypes
import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from core.config import ModelSpec
from core.conversation import (
    Audio,
    Conversation,
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
from core.errors import InvalidRequest
from providers.adapters.translated import Leftovers

FILES_URL = "https://generativelanguage.googleapis.com/v1beta/"
# What Google says to send in place of the seal of a call that its own model did not make.
FOREIGN_SEAL = "skip_thought_signature_validator"
# Aliases such as gemini-flash-latest are of the newest generation; gemma and tuned models behave like the old ones.
_FROM_GEMINI_3 = re.compile(r"(?:models/)?gemini-(?![12][.-])")
# What Google's own OpenAI-compatible door makes of an effort for models that know budgets alone.
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}


def to_wire(conversation: Conversation, model: ModelSpec, leftovers: Leftovers) -> dict[str, Any]:
    """The body of one `generateContent` call. Raises InvalidRequest for what has no place there.

    Ids of tool calls are sent whoever made them up: they only pair a result with its call, and Google takes any.
    Which words say how much to think, and whether calls must be sealed, differs by generation of model and is read from its id.
    """
    _leave_out(conversation, leftovers)
    old = _FROM_GEMINI_3.match(model.model_id) is None
    wire: dict[str, Any] = {"contents": _contents(conversation.messages, old, leftovers)}
    if system := _system(conversation.messages):
        wire["systemInstruction"] = {"parts": system}
    if conversation.tools:
        wire["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in conversation.tools]}]
    choice = conversation.tool_choice
    if choice is not None and (conversation.tools or choice.mode in ("required", "tool")):
        wire["toolConfig"] = {"functionCallingConfig": _calling(choice)}
    if config := _generation_config(conversation, old):
        wire["generationConfig"] = config
    return wire


def _leave_out(conversation: Conversation, leftovers: Leftovers) -> None:
    if conversation.n > 1:
        leftovers.refuse("n")
    if conversation.parallel_tool_calls is False and conversation.tools:
        leftovers.refuse("parallel_tool_calls")
    if any(tool.strict for tool in conversation.tools):
        leftovers.drop("strict")
    if conversation.user:
        leftovers.drop("user")
    if any(message.name and message.role != "tool" for message in conversation.messages):
        leftovers.drop("name")
    if conversation.json_output is not None and conversation.json_output.description:
        leftovers.drop("response_format.json_schema.description")


def _generation_config(conversation: Conversation, old: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "temperature": conversation.temperature,
        "topP": conversation.top_p,
        "topK": conversation.top_k,
        "maxOutputTokens": conversation.max_output_tokens,
        "stopSequences": conversation.stop or None,
        "seed": conversation.seed,
        "presencePenalty": conversation.presence_penalty,
        "frequencyPenalty": conversation.frequency_penalty,
    }
    if conversation.json_output is not None:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = conversation.json_output.schema or None
    if conversation.reasoning is not None:
        config["thinkingConfig"] = _thinking(conversation.reasoning, old) or None
    return {name: value for name, value in config.items() if value is not None}


def _thinking(wish: ReasoningWish, old: bool) -> dict[str, Any]:
    """A budget is said as one. An effort is a level, for which models before Gemini 3 want a budget too. 0 turns thinking off."""
    if wish.enabled is False or wish.effort == "none" or wish.budget_tokens == 0:
        return {"thinkingBudget": 0}
    if wish.budget_tokens is not None:
        return {"includeThoughts": True, "thinkingBudget": wish.budget_tokens}
    if wish.effort:
        return {"includeThoughts": True, **({"thinkingBudget": _BUDGETS[wish.effort]} if old else {"thinkingLevel": wish.effort.upper()})}
    return {"includeThoughts": True} if wish.enabled else {}


def _declaration(tool: Tool) -> dict[str, Any]:
    """`parametersJsonSchema` takes the whole of JSON schema, where `parameters` knows a part of OpenAPI's.

    It must describe an object; a schema that says nothing is left out, which means no parameters to Google as to OpenAI.
    """
    declaration: dict[str, Any] = {"name": tool.name}
    if tool.description:
        declaration["description"] = tool.description
    if bytes(tool.parameters).strip() not in (b"", b"{}", b"null"):
        declaration["parametersJsonSchema"] = tool.parameters
    return declaration


def _calling(choice: ToolChoice) -> dict[str, Any]:
    config: dict[str, Any] = {"mode": _MODES[choice.mode]}
    if choice.mode == "tool":
        config["allowedFunctionNames"] = [choice.name]
    return config


def _system(messages: list[Message]) -> list[dict[str, Any]]:
    parts = [part for message in messages if message.role == "system" for part in message.parts]
    return [{"text": part.text} for part in parts if isinstance(part, Text) and part.text]


def _contents(messages: list[Message], old: bool, leftovers: Leftovers) -> list[dict[str, Any]]:
    """Turns of `user` and `model`. Neighbours of one role become one turn: Google wants all results of a turn's calls together."""
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        if message.role == "system":
            continue
        if message.role == "assistant":
            role, parts = "model", _model_parts(message, old, leftovers)
            names.update((part.id, part.name) for part in message.parts if isinstance(part, ToolUse))
        else:
            role, parts = "user", _user_parts(message, names, old, leftovers)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    if not contents:
        raise InvalidRequest("The messages must hold something besides system messages and empty ones.", param="messages")
    return contents


def _model_parts(message: Message, old: bool, leftovers: Leftovers) -> list[dict[str, Any]]:
    """A thought's seal goes onto the text that follows it, from where `gemini_stream` took it; else it stays with the thought.

    From Gemini 3 on the first call of a turn must be sealed.
    """
    wire: list[dict[str, Any]] = []
    seal, unsealed_ok = "", old
    for position, part in enumerate(message.parts):
        if isinstance(part, Text):
            if part.text or seal:
                wire.append(_sealed({"text": part.text}, seal))
            seal = ""
        elif isinstance(part, Reasoning):
            if part.redacted:
                leftovers.drop("reasoning_content")
            text_follows = position + 1 < len(message.parts) and isinstance(message.parts[position + 1], Text)
            seal, own = (part.signature, "") if text_follows else ("", part.signature)
            if part.text:
                wire.append(_sealed({"text": part.text, "thought": True}, own))
            elif own:
                wire.append(_sealed({"text": ""}, own))
        elif isinstance(part, ToolUse):
            call = {"id": part.id, "name": part.name, "args": _arguments(part)}
            wire.append(_sealed({"functionCall": call}, part.signature or ("" if unsealed_ok else FOREIGN_SEAL)))
            unsealed_ok = True
    return wire


def _sealed(part: dict[str, Any], seal: str) -> dict[str, Any]:
    return {**part, "thoughtSignature": seal} if seal else part


def _arguments(call: ToolUse) -> Any:
    if not call.arguments.strip():
        return {}
    arguments = _object(call.arguments)
    if arguments is None:
        raise InvalidRequest(f"The arguments of the call {call.id!r} of {call.name!r} are not a JSON object.", param="messages")
    return arguments


def _object(text: str) -> msgspec.Raw | None:
    """`text` to be sent as it is, if it is a JSON object."""
    try:
        msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return msgspec.Raw(text.encode())


def _user_parts(message: Message, names: dict[str, str], old: bool, leftovers: Leftovers) -> list[dict[str, Any]]:
    wire: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, Text):
            if part.text:
                wire.append({"text": part.text})
        elif isinstance(part, ToolResult):
            wire += _result_parts(part, names, old, leftovers)
        elif isinstance(part, (Image, Audio, File)):
            wire.append(_media(part, leftovers))
    return wire


def _result_parts(result: ToolResult, names: dict[str, str], old: bool, leftovers: Leftovers) -> list[dict[str, Any]]:
    """Pictures are inside the response from Gemini 3 on, beside it before."""
    name = result.name or names.get(result.call_id)
    if not name:
        text = f"The tool result for {result.call_id!r} answers no earlier tool call; Google Gemini must know the tool's name."
        raise InvalidRequest(text, param="messages")
    said = "\n".join(part.text for part in result.parts if isinstance(part, Text))
    media = [_media(part, leftovers) for part in result.parts if not isinstance(part, Text)]
    response: dict[str, Any] = {"id": result.call_id, "name": name, "response": _response(said, result.is_error)}
    if media and not old:
        response["parts"] = media
    return [{"functionResponse": response}, *(media if old else ())]


def _response(text: str, is_error: bool) -> Any:
    if is_error:
        return {"error": text}
    found = _object(text)
    return {"result": text} if found is None else found


def _media(part: Image | Audio | File, leftovers: Leftovers) -> dict[str, Any]:
    """Google fetches http(s) addresses itself, and guesses their type where we cannot."""
    if isinstance(part, Audio):
        return {"inlineData": {"mimeType": f"audio/{part.format}", "data": part.data}}
    if isinstance(part, Image) and part.detail in ("low", "high"):
        leftovers.drop("detail")
    uri = part.url or (_file_uri(part.file_id) if isinstance(part, File) and part.file_id else "")
    name = urlsplit(uri).path if uri else part.name if isinstance(part, File) else ""
    media_type = part.media_type or mimetypes.guess_type(name)[0] or ""
    if isinstance(part, File) and part.name:
        leftovers.drop("filename")
    if uri:
        return {"fileData": {**({"mimeType": media_type} if media_type else {}), "fileUri": uri}}
    if not media_type:
        text = "The media type of a file is not known: send it as a data URL such as data:application/pdf;base64,…"
        raise InvalidRequest(text, param="messages")
    return {"inlineData": {"mimeType": media_type, "data": part.data}}


def _file_uri(file_id: str) -> str:
    """Files at Google are named by an address, or by `files/…`, which is its end. Raises InvalidRequest for another vendor's id."""
    if "://" in file_id:
        return file_id
    if file_id.startswith("files/"):
        return FILES_URL + file_id
    text = f"The file {file_id!r} is not kept at Google Gemini, which serves this model: send its data, or upload it there (files/…)."
    raise InvalidRequest(text, param="messages")
