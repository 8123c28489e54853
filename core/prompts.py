"""Prompt templates as the data plane sees them: frozen, and read once, when the configuration is loaded.

What may stand in them: `models_registry.prompts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

VariableType = Literal["text", "number", "history", "context"]

# The version that is meant where a request names none, if there is one of this label; else the latest.
PRODUCTION = "production"
# Stands for the highest number, and so is no label of its own.
LATEST = "latest"
_MAX_NUMBER_DIGITS = 9


class VariableSpec(msgspec.Struct, frozen=True):
    """One declared variable. `history` takes messages, `context` a list of texts; `max_characters` is of all of its text together."""

    name: str
    type: VariableType = "text"
    required: bool = True
    default: str = ""
    max_characters: int = 20_000
    description: str = ""


class MessageSpec(msgspec.Struct, frozen=True):
    """One message: `literals[0]`, the value of `names[0]`, `literals[1]`, …; always one literal more than names.

    With `history` it is no message of its own: those of the variable of that name stand in its place.
    """

    role: str
    literals: tuple[str, ...] = ("",)
    names: tuple[str, ...] = ()
    history: str = ""


class PromptVersionSpec(msgspec.Struct, frozen=True):
    """`max_input_tokens`: history and context are shortened until all of it fits; None = into the model's window, if that is known."""

    number: int
    messages: tuple[MessageSpec, ...]
    variables: Mapping[str, VariableSpec]
    max_input_tokens: int | None = None


class PromptSpec(msgspec.Struct, frozen=True):
    """All versions of one template by number, and which of them the labels stand for."""

    id: str
    name: str
    versions: Mapping[int, PromptVersionSpec]
    labels: Mapping[str, int] = msgspec.field(default_factory=dict)

    def version(self, asked: int | str | None) -> PromptVersionSpec | None:
        """By number, also as text, or by label; None = the one in production. None where there is no such version."""
        if asked is None:
            asked = PRODUCTION if PRODUCTION in self.labels else LATEST
        if isinstance(asked, int):
            return self.versions.get(asked)
        if asked == LATEST:
            return self.versions[max(self.versions)] if self.versions else None
        is_number = asked.isascii() and asked.isdecimal() and len(asked) <= _MAX_NUMBER_DIGITS
        return self.versions.get(int(asked) if is_number else self.labels.get(asked, 0))


class PromptUse(msgspec.Struct, frozen=True):
    """What of a template went into a request, for its records. `left_out`: values that did not fit, by their place."""

    name: str
    version: int
    left_out: str = ""

    @property
    def header(self) -> bytes:
        """E.g. b"support@3"; names have letters that a header can hold, see `models_registry.models.PromptTemplate`."""
        return f"{self.name}@{self.version}".encode()
