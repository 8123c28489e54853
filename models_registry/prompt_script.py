"""A template's messages as one text for people to edit: a line such as [system] begins each, [history: name] stands for a history.

A line of a message that looks like one of these has a backslash before it. Pure.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from models_registry.prompts import ROLES

_HEAD = re.compile(rf"\[(?:({'|'.join(ROLES)})|history: ?([A-Za-z_][A-Za-z0-9_]*))\][ \t]*")
_ESCAPED = re.compile(rf"(?m)^(\\*{_HEAD.pattern})$")


def written(messages: Any) -> str:
    """What is no list of messages, and came past the forms, as it is."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return str(messages)
    return "\n\n".join(_written(message) for message in messages)


def read(text: str) -> list[dict[str, Any]]:
    """Raises ValueError where text stands before the first head, or under a history."""
    found: list[dict[str, Any]] = []
    lines: list[str] = []
    for line in [*text.replace("\r\n", "\n").split("\n"), None]:
        head = _HEAD.fullmatch(line) if line is not None else None
        if line is not None and head is None:
            lines.append(line)
            continue
        _close(found, lines)
        lines = []
        if head is not None:
            role, history = head.groups()
            found.append({"role": role, "content": ""} if role else {"history": history})
    return found


def difference(before: str, after: str) -> list[tuple[str, str]]:
    """(what became of it, the line): "same", "gone", "new"."""
    kinds = {" ": "same", "-": "gone", "+": "new"}
    lines = list(difflib.unified_diff(before.split("\n"), after.split("\n"), n=3, lineterm=""))[2:]
    return [(kinds.get(line[:1], "place"), line[1:] if line[:1] in kinds else line) for line in lines]


def _written(message: dict[str, Any]) -> str:
    if message.get("history"):
        return f"[history: {message['history']}]"
    content = _ESCAPED.sub(r"\\\1", str(message.get("content", "")))
    return f"[{message.get('role', 'user')}]\n{content}"


def _close(found: list[dict[str, Any]], lines: list[str]) -> None:
    """What stands under the last head is its message; the blank lines round it are for the eye."""
    content = "\n".join(line[1:] if line.startswith("\\") and _ESCAPED.fullmatch(line[1:]) else line for line in lines).strip("\n")
    if found and "content" in found[-1]:
        found[-1]["content"] = content
    elif content.strip():
        where = "Nothing is said under a history" if found else "Begin with a line such as [system] or [user]"
        raise ValueError(f"{where}: {content.strip()[:40]!r} belongs to no message.")
