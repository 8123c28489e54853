"""What a caller sends as the variables of a prompt template: read, bounded, and never a template itself. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import msgspec

from core.errors import InvalidRequest
from core.prompts import VariableSpec, VariableType

FIELD = "prompt.variables"
MAX_ITEMS = 2_000


class Turned(NamedTuple):
    """A message of a history, as the caller sent it, but for repeated keys. `opens`: a turn begins with it."""

    raw: msgspec.Raw
    opens: bool


# Of a history or a context what there is, by its place among all.
Listed = Mapping[int, str | Turned]
Value = str | Listed


class _Turn(msgspec.Struct):
    role: Literal["user", "assistant", "tool"]
    content: str | list[msgspec.Raw] | None = None


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_turn = msgspec.json.Decoder(_Turn).decode
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_texts = msgspec.json.Decoder(list[str]).decode
_text = msgspec.json.Decoder(str).decode
_number = msgspec.json.Decoder(int | float).decode


def read(variables: Mapping[str, VariableSpec], given: Mapping[str, msgspec.Raw]) -> dict[str, Value]:
    """Every declared variable, of what was `given` as JSON. Raises InvalidRequest, the variable in `param`."""
    for name in given:
        if name not in variables:
            raise _refused(name, f"The prompt has no variable {name[:100]!r}; it has {', '.join(variables) or 'none'}.")
    return {name: _value(variable, given.get(name)) for name, variable in variables.items()}


def characters_in(value: Value) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(len(each) if isinstance(each, str) else len(bytes(each.raw)) for each in value.values())


def _value(variable: VariableSpec, raw: msgspec.Raw | None) -> Value:
    name = variable.name
    if raw is None or bytes(raw) == b"null":
        if variable.required:
            raise _refused(name, f"The variable {name!r} is missing.")
        return variable.default if variable.type in ("text", "number") else {}
    reader, meaning = _TYPES[variable.type]
    try:
        value = reader(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as refused:
        raise _refused(name, f"The variable {name!r} must be {meaning}: {refused}.") from None
    if not isinstance(value, str) and len(value) > MAX_ITEMS:
        raise _refused(name, f"The variable {name!r} has {len(value):,} items; at most {MAX_ITEMS:,} are taken.")
    if (size := characters_in(value)) > variable.max_characters:
        raise _refused(name, f"The variable {name!r} has {size:,} characters; the prompt takes {variable.max_characters:,}.")
    return value


def _plain(raw: msgspec.Raw) -> str:
    text = _text(raw)
    text.encode()  # JSON can spell half characters, which no vendor can be sent
    return text


def _digits(raw: msgspec.Raw) -> str:
    return msgspec.json.encode(_number(raw)).decode()


def _context(raw: msgspec.Raw) -> Listed:
    texts = _texts(raw)
    for text in texts:
        text.encode()
    return dict(enumerate(texts))


def _history(raw: msgspec.Raw) -> Listed:
    """A key that is there twice goes on once, with the value that was judged."""
    found: dict[int, str | Turned] = {}
    for at, each in enumerate(_raws(raw)):
        once = msgspec.Raw(msgspec.json.encode(_fields(each)))
        bytes(once).decode()
        found[at] = Turned(once, _turn(once).role == "user")
    return found


_TYPES: Mapping[VariableType, tuple[Callable[[msgspec.Raw], Value], str]] = {
    "text": (_plain, "a text"),
    "number": (_digits, "a number"),
    "context": (_context, "a list of texts"),
    "history": (_history, "a list of messages whose roles are user, assistant or tool"),
}


def _refused(name: str, sentence: str) -> InvalidRequest:
    return InvalidRequest(sentence, param=f"{FIELD}.{name[:100]}")
