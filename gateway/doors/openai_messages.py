"""The `messages` of OpenAI's chat request in our own words."""

from __future__ import annotations

import re

import msgspec

from core import conversation as ours
from core.errors import InvalidRequest


class _Url(msgspec.Struct):
    url: str
    detail: str | None = None


class _Audio(msgspec.Struct):
    data: str
    format: str


class _File(msgspec.Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: _Url | str | None = None
    input_audio: _Audio | None = None
    file: _File | None = None


class _Function(msgspec.Struct):
    name: str
    arguments: str | None = None


class _Google(msgspec.Struct):
    thought_signature: str | None = None


class _Extra(msgspec.Struct):
    google: _Google | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None
    id: str | None = None
    type: str = "function"
    index: int | None = None
    extra_content: _Extra | None = None


class _Thought(msgspec.Struct):
    type: str = "thinking"
    thinking: str = ""
    signature: str | None = None
    data: str | None = None


class Message(msgspec.Struct):
    """One message as OpenAI spells it, of any role."""

    role: str
    content: str | list[_Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: _Function | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking_blocks: list[_Thought] | None = None


# Keys of a message or part that change the answer, and that no other wire has; any other key is noted as a hint.
FOREIGN = frozenset({"audio", "partial", "prefix"})
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[^,;]*)*;base64,", re.I)


def invalid(param: str, sentence: str) -> InvalidRequest:
    """`sentence` goes on where the field's name ends."""
    return InvalidRequest(f"{param} {sentence}.", param=param)


def read(messages: list[Message]) -> list[ours.Message]:
    """Raises InvalidRequest with the place, e.g. messages.0.content.1, in `param`."""
    read: list[ours.Message] = []
    pending: dict[str, str] = {}  # of legacy calls: the function's name → the id we made for the call
    for position, message in enumerate(messages):
        at = f"messages.{position}"
        match message.role:
            case "system" | "developer":
                read.append(ours.Message("system", list(_texts(message, at)), message.name or ""))
            case "user":
                read.append(ours.Message("user", _parts(message, at), message.name or ""))
            case "assistant":
                if message.function_call is not None:
                    pending[message.function_call.name] = _made_id(position)
                read.append(ours.Message("assistant", _said(message, position), message.name or ""))
            case "tool":
                if not message.tool_call_id:
                    raise invalid(f"{at}.tool_call_id", "is missing: a tool message names the call that it answers")
                read.append(_result(message, at, message.tool_call_id))
            case "function":
                call_id = pending.get(message.name or "")
                if call_id is None:
                    raise invalid(f"{at}.name", "names no function that was called before")
                read.append(_result(message, at, call_id))
            case _:
                raise invalid(f"{at}.role", "must be one of system, developer, user, assistant, tool, function")
    return read


def _texts(message: Message, at: str) -> list[ours.Text]:
    """The content of a message that may hold nothing but text."""
    texts: list[ours.Text] = []
    for position, part in enumerate(_parts(message, at)):
        if not isinstance(part, ours.Text):
            raise invalid(f"{at}.content.{position}", f"must be text: a {message.role} message holds nothing else")
        texts.append(part)
    return texts


def _result(message: Message, at: str, call_id: str) -> ours.Message:
    """OpenAI's tools answer in text alone; vendors like it take images, too."""
    parts: list[ours.Text | ours.Image | ours.File] = []
    for position, part in enumerate(_parts(message, at)):
        if not isinstance(part, (ours.Text, ours.Image, ours.File)):
            raise invalid(f"{at}.content.{position}", "must be text, an image or a file: a tool gives nothing else back")
        parts.append(part)
    return ours.Message("tool", [ours.ToolResult(call_id, parts, message.name or "")])


def _said(message: Message, position: int) -> list[ours.Part]:
    """What an assistant said, in the order thought, words, calls."""
    at = f"messages.{position}"
    parts: list[ours.Part] = []
    if message.thinking_blocks:
        parts += [_thought(block, f"{at}.thinking_blocks.{number}") for number, block in enumerate(message.thinking_blocks)]
    elif thought := message.reasoning_content or message.reasoning:
        parts.append(ours.Reasoning(thought))
    parts += _texts(message, at)
    if message.refusal:
        parts.append(ours.Text(message.refusal))
    for number, call in enumerate(message.tool_calls or ()):
        parts.append(_call(call, f"{at}.tool_calls.{number}"))
    if message.function_call is not None:
        parts.append(ours.ToolUse(_made_id(position), message.function_call.name, message.function_call.arguments or ""))
    return parts


def _made_id(position: int) -> str:
    """Legacy function calls have no ids; the wires that they are carried to want one."""
    return f"call_{position:024x}"


def _thought(block: _Thought, at: str) -> ours.Reasoning:
    if block.type == "thinking":
        return ours.Reasoning(block.thinking, block.signature or "")
    if block.type == "redacted_thinking" and block.data:
        return ours.Reasoning(redacted=block.data)
    raise invalid(at, "must be a thinking block, or a redacted_thinking block with its data")


def _call(call: _ToolCall, at: str) -> ours.ToolUse:
    if call.type != "function" or call.function is None:
        raise invalid(at, "must be the call of a function: the model that serves this request has no other tools")
    if not call.id:
        raise invalid(f"{at}.id", "is missing: the tool's result is matched to its call by it")
    google = call.extra_content.google if call.extra_content else None
    seal = google.thought_signature if google else None
    return ours.ToolUse(call.id, call.function.name, call.function.arguments or "", seal or "")


def _parts(message: Message, at: str) -> list[ours.Part]:
    content = message.content
    if isinstance(content, list):
        read = [_part(part, f"{at}.content.{position}") for position, part in enumerate(content)]
        return [part for part in read if not isinstance(part, ours.Text) or part.text]
    return [ours.Text(content)] if content else []


def _part(part: _Part, at: str) -> ours.Text | ours.Image | ours.Audio | ours.File:
    match part.type:
        case "text" if part.text is not None:
            return ours.Text(part.text)
        case "refusal" if part.refusal is not None:
            return ours.Text(part.refusal)
        case "image_url" if part.image_url is not None:
            return _image(part.image_url, f"{at}.image_url.url")
        case "input_audio" if part.input_audio is not None:
            return ours.Audio(part.input_audio.data, part.input_audio.format)
        case "file" if part.file is not None:
            return _file(part.file, f"{at}.file")
        case "text" | "refusal" | "image_url" | "input_audio" | "file":
            raise invalid(f"{at}.{part.type}", "is missing")
    raise invalid(at, f"has the type {part.type[:40]!r}, which the model that serves this request cannot be given")


def _image(value: _Url | str, at: str) -> ours.Image:
    image = _Url(value) if isinstance(value, str) else value
    if image.url.startswith(("http://", "https://")):
        return ours.Image(url=image.url, detail=image.detail or "")
    media_type, data = data_of(image.url, at)
    return ours.Image(data=data, media_type=media_type, detail=image.detail or "")


def _file(file: _File, at: str) -> ours.File:
    if file.file_id:
        return ours.File(file_id=file.file_id, name=file.filename or "")
    if not file.file_data:
        raise invalid(at, "must hold file_data or file_id")
    media_type, data = data_of(file.file_data, f"{at}.file_data")
    return ours.File(data=data, media_type=media_type, name=file.filename or "")


def data_of(url: str, at: str) -> tuple[str, str]:
    """Media type and base64 of a data: URL. Raises InvalidRequest."""
    found = _DATA_URL.match(url)
    if found is None:
        raise invalid(at, "must be a web address or a data: URL in base64 that names its media type")
    return found.group(1).lower(), url[found.end() :]
