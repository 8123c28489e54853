"""The content blocks of Anthropic's messages as parts of a conversation."""

from __future__ import annotations

from typing import Any

import msgspec

from core.conversation import File, Image, Part, Reasoning, Text, ToolResult, ToolUse
from core.errors import InvalidRequest
from gateway.doors.anthropic_marks import TOOL_SEAL, vendors_id

_MAX_DEPTH = 4  # a tool result may hold a document, which may hold blocks, which are text


class Unread(msgspec.Struct):
    """See `Conversation.foreign` and `hints`; dicts for their order, each name once."""

    foreign: dict[str, None] = msgspec.field(default_factory=dict)
    hints: dict[str, None] = msgspec.field(default_factory=dict)


class _Source(msgspec.Struct):
    type: str
    data: str = ""
    media_type: str = ""
    url: str = ""
    file_id: str = ""
    content: str | list[Block] | None = None


class Block(msgspec.Struct):
    """Any content block: `type` says which of the others count. What a block lacks of them is refused when it is read."""

    type: str
    text: str | None = None
    source: _Source | str | None = None
    title: str | None = None
    context: str | None = None
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    tool_use_id: str = ""
    content: str | list[Block] | dict[str, Any] | None = None
    is_error: bool | None = None
    thinking: str = ""
    signature: str = ""
    data: str = ""
    cache_control: dict[str, Any] | None = None
    citations: dict[str, Any] | list[Any] | None = None
    transformations: Any = None


def texts(content: str | list[Block], path: str, unread: Unread) -> list[Part]:
    """What may only be text: the system prompt. Raises InvalidRequest for a block that is none."""
    parts: list[Part] = []
    for block, at in _blocks(content, path, unread):
        if block.type != "text":
            raise InvalidRequest(f"{at}: only text blocks can stand here, not {block.type[:40]!r}.", param=at)
        parts += _text(_required(block.text, f"{at}.text"))
    return parts


def said_by_user(content: str | list[Block], path: str, unread: Unread) -> list[Part]:
    """Raises InvalidRequest."""
    parts: list[Part] = []
    for block, at in _blocks(content, path, unread):
        if block.type == "tool_result":
            call_id = vendors_id(_required(block.tool_use_id, f"{at}.tool_use_id"))
            inner = _shown(block.content, f"{at}.content", unread)
            parts.append(ToolResult(call_id, inner, is_error=bool(block.is_error)))
        else:
            parts += _seen(block, at, unread)
    return parts


def said_by_assistant(content: str | list[Block], path: str, unread: Unread) -> list[Part]:
    """Raises InvalidRequest. Blocks of tools that run at Anthropic are foreign."""
    parts: list[Part] = []
    seal = ""
    for block, at in _blocks(content, path, unread):
        match block.type:
            case "text":
                parts += _text(_required(block.text, f"{at}.text"))
                if block.citations:
                    unread.hints["citations"] = None
            case "thinking" if not block.thinking and block.signature.startswith(TOOL_SEAL):
                seal = block.signature.removeprefix(TOOL_SEAL)
            case "thinking":
                parts.append(Reasoning(block.thinking, block.signature))
            case "redacted_thinking":
                parts.append(Reasoning(redacted=block.data))
            case "tool_use":
                parts.append(_call(block, at, seal))
                seal = ""
            case _:
                unread.foreign[at] = None
    return parts


def _blocks(content: str | list[Block] | dict[str, Any] | None, path: str, unread: Unread) -> list[tuple[Block, str]]:
    """Each block with its path."""
    if isinstance(content, str):
        return [(Block("text", content), path)]
    if isinstance(content, dict):
        raise InvalidRequest(f"{path}: write a string or an array of blocks.", param=path)
    if path.count("].") > _MAX_DEPTH:
        raise InvalidRequest(f"{path[:100]}: blocks are nested too deeply.", param=path[:100])
    for block in content or ():
        if block.cache_control is not None:
            unread.hints["cache_control"] = None
    return [(block, f"{path}[{position}]") for position, block in enumerate(content or ())]


def _call(block: Block, at: str, seal: str) -> ToolUse:
    arguments = bytes(block.input).strip()
    if not arguments.startswith(b"{"):
        raise InvalidRequest(f"{at}.input: a tool call's input is an object.", param=f"{at}.input")
    call_id = vendors_id(_required(block.id, f"{at}.id"))
    return ToolUse(call_id, _required(block.name, f"{at}.name"), arguments.decode(), seal)


def _shown(content: str | list[Block] | dict[str, Any] | None, path: str, unread: Unread) -> list[Text | Image | File]:
    return [part for block, at in _blocks(content, path, unread) for part in _seen(block, at, unread)]


def _seen(block: Block, at: str, unread: Unread) -> list[Text | Image | File]:
    """What people and tools may show a model. Other blocks exist at Anthropic only."""
    match block.type:
        case "text":
            return _text(_required(block.text, f"{at}.text"))
        case "image":
            return _image(block, at, unread)
        case "document":
            return _document(block, at, unread)
        case "search_result":
            _cited(block, unread)
            head = _text("\n".join(said for said in (block.title, block.source) if isinstance(said, str)))
            return [*head, *_shown(block.content, f"{at}.content", unread)]
        case _:
            unread.foreign[at] = None
            return []


def _image(block: Block, at: str, unread: Unread) -> list[Text | Image | File]:
    source = _source(block, at)
    if block.transformations is not None:
        unread.foreign[f"{at}.transformations"] = None
    match source.type:
        case "base64":
            data, media_type = _required(source.data, f"{at}.source.data"), _required(source.media_type, f"{at}.source.media_type")
            return [Image(data=data, media_type=media_type)]
        case "url":
            return [Image(url=_required(source.url, f"{at}.source.url"))]
        case _:
            unread.foreign[f"{at}.source"] = None
            return []


def _document(block: Block, at: str, unread: Unread) -> list[Text | Image | File]:
    """A document of plain text or of blocks is what it says, with its title above."""
    source, name = _source(block, at), block.title or ""
    _cited(block, unread)
    context = _text(block.context or "")
    match source.type:
        case "base64":
            data, media_type = _required(source.data, f"{at}.source.data"), source.media_type or "application/pdf"
            return [*context, File(data=data, media_type=media_type, name=name)]
        case "url":
            return [*context, File(url=_required(source.url, f"{at}.source.url"), name=name)]
        case "file":
            return [*context, File(file_id=_required(source.file_id, f"{at}.source.file_id"), name=name)]
        case "text":
            return [*context, *_text(name), *_text(source.data)]
        case "content":
            return [*context, *_text(name), *_shown(source.content, f"{at}.source.content", unread)]
        case _:
            unread.foreign[f"{at}.source"] = None
            return []


def _cited(block: Block, unread: Unread) -> None:
    if isinstance(block.citations, dict) and block.citations.get("enabled"):
        unread.foreign["citations"] = None


def _source(block: Block, at: str) -> _Source:
    if not isinstance(block.source, _Source):
        raise InvalidRequest(f"{at}.source: a block of type {block.type!r} needs a source object.", param=f"{at}.source")
    return block.source


def _text(text: str) -> list[Any]:
    """Empty text is no part: no vendor wants it."""
    return [Text(text)] if text else []


def _required(value: str | None, at: str) -> str:
    if value is None or (not value and not at.endswith(".text")):
        raise InvalidRequest(f"{at}: this is required.", param=at)
    return value
