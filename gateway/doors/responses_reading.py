"""The items of an OpenAI Responses request in our own words.

A thought is sealed by its maker. Seals of other vendors than OpenAI travel in `encrypted_content`, which clients give back
unread: "signature:" and "redacted:" before what they are, "tool:" before the seal of the call that follows.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from core.conversation import Audio, File, Image, Message, Part, Reasoning, Text, ToolResult, ToolUse
from gateway.doors.openai_messages import data_of, invalid

SIGNATURE, REDACTED, TOOL = "signature:", "redacted:", "tool:"


class _Audio(msgspec.Struct):
    data: str
    format: str


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: _Audio | None = None


class Item(msgspec.Struct):
    """One item of `input`, of any type. A message may leave its type out."""

    type: str = "message"
    role: str = ""
    content: str | list[_Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[_Part] | None = None
    summary: list[_Part] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    status: str | None = None
    phase: Any = None


_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def read(items: list[Item]) -> list[Message]:
    """Raises InvalidRequest with the place, e.g. input.0.content.1, in `param`. What one turn of an assistant said is one message."""
    read: list[Message] = []
    seal = ""
    for position, item in enumerate(items):
        at = f"input.{position}"
        match item.type:
            case "message":
                _add_message(read, item, at)
            case "function_call":
                _add(read, _call(item, at, seal))
                seal = ""
            case "function_call_output":
                read.append(_result(item, at))
            case "reasoning" if (item.encrypted_content or "").startswith(TOOL):
                seal = (item.encrypted_content or "").removeprefix(TOOL)
            case "reasoning":
                _add(read, _thought(item))
            case "item_reference":
                raise invalid(at, "refers to an item that is not kept here: send the item itself")
            case other:
                raise invalid(f"{at}.type", f"is {other[:40]!r}, which the model that serves this request cannot be given")
    return read


def _add_message(read: list[Message], item: Item, at: str) -> None:
    role = _ROLES.get(item.role)
    if role is None:
        raise invalid(f"{at}.role", "must be one of user, assistant, system, developer")
    parts = _parts(item.content, f"{at}.content")
    if role == "assistant":
        _add(read, *parts)
        return
    for position, part in enumerate(parts):
        if role == "system" and not isinstance(part, Text):
            raise invalid(f"{at}.content.{position}", f"must be text: a {item.role} message holds nothing else")
    read.append(Message(role, [*parts]))


def _add(read: list[Message], *parts: Part) -> None:
    """To the assistant's turn, which lasts until somebody else speaks."""
    if not read or read[-1].role != "assistant":
        read.append(Message("assistant", []))
    read[-1].parts += parts


def _call(item: Item, at: str, seal: str) -> ToolUse:
    for name in ("call_id", "name"):
        if not getattr(item, name):
            raise invalid(f"{at}.{name}", "is missing")
    return ToolUse(item.call_id or "", item.name or "", item.arguments or "", seal)


def _result(item: Item, at: str) -> Message:
    if not item.call_id:
        raise invalid(f"{at}.call_id", "is missing: an output names the call that it answers")
    parts: list[Text | Image | File] = []
    for position, part in enumerate(_parts(item.output, f"{at}.output")):
        if isinstance(part, Audio):
            raise invalid(f"{at}.output.{position}", "must be text, an image or a file: a tool gives nothing else back")
        parts.append(part)
    return Message("tool", [ToolResult(item.call_id, parts)])


def is_sealed_by_openai(item: Item) -> bool:
    """A seal without our mark is OpenAI's own: no other vendor could open it."""
    return bool(item.encrypted_content) and not (item.encrypted_content or "").startswith((SIGNATURE, REDACTED, TOOL))


def _thought(item: Item) -> Reasoning:
    sealed = item.encrypted_content or ""
    if sealed.startswith(REDACTED):
        return Reasoning(redacted=sealed.removeprefix(REDACTED))
    told = item.summary or (item.content if isinstance(item.content, list) else None) or []
    text = "\n\n".join(part.text for part in told if part.text)
    return Reasoning(text, sealed.removeprefix(SIGNATURE) if sealed.startswith(SIGNATURE) else "")


def _parts(content: str | list[_Part] | None, at: str) -> list[Text | Image | Audio | File]:
    if isinstance(content, list):
        read = [_part(part, f"{at}.{position}") for position, part in enumerate(content)]
        return [part for part in read if not isinstance(part, Text) or part.text]
    return [Text(content)] if content else []


def _part(part: _Part, at: str) -> Text | Image | Audio | File:
    match part.type:
        case "input_text" | "output_text" | "text" if part.text is not None:
            return Text(part.text)
        case "refusal" if part.refusal is not None:
            return Text(part.refusal)
        case "input_image" if part.image_url is not None:
            return _image(part.image_url, part.detail or "", f"{at}.image_url")
        case "input_file":
            return _file(part, at)
        case "input_audio" if part.input_audio is not None:
            return Audio(part.input_audio.data, part.input_audio.format)
        case "input_image":
            raise invalid(f"{at}.image_url", "is missing: the model that serves this request cannot see files kept elsewhere")
        case "input_text" | "output_text" | "text" | "refusal" | "input_audio":
            raise invalid(f"{at}.{part.type.removeprefix('output_')}", "is missing")
    raise invalid(at, f"has the type {part.type[:40]!r}, which the model that serves this request cannot be given")


def _image(url: str, detail: str, at: str) -> Image:
    if url.startswith(("http://", "https://")):
        return Image(url=url, detail=detail)
    media_type, data = data_of(url, at)
    return Image(data=data, media_type=media_type, detail=detail)


def _file(part: _Part, at: str) -> File:
    name = part.filename or ""
    if part.file_id:
        return File(file_id=part.file_id, name=name)
    if part.file_url:
        return File(url=part.file_url, name=name)
    if not part.file_data:
        raise invalid(at, "must hold file_data, file_url or file_id")
    media_type, data = data_of(part.file_data, f"{at}.file_data")
    return File(data=data, media_type=media_type, name=name)
