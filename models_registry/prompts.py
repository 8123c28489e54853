"""Prompt templates: what may stand in one, and how it is read. Logic-less; pure: values in, specs and sentences out.

    {{name}}        the value of a declared variable: one pass, and values are never read as a template
    {{"{{"}}        two braces, literally; single braces, and closing ones, stand for themselves

There are no conditions, loops, filters, attributes, includes or expressions, so there is nothing that a template could do.
What becomes of a template with values: `models_registry.prompt_building`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from core.prompts import LATEST, MessageSpec, PromptSpec, PromptVersionSpec, VariableSpec, VariableType
from core.shapes import known

MAX_MESSAGES = 50
MAX_VARIABLES = 50
MAX_TEMPLATE_CHARACTERS = 100_000
MAX_VARIABLE_CHARACTERS = 1_000_000
MAX_INPUT_TOKENS = 100_000_000
MAX_LABELS = 20
ROLES = ("system", "developer", "user", "assistant")
TYPES: tuple[VariableType, ...] = ("text", "number", "history", "context")

TEMPLATE_NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}\Z")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")
LABEL = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_MARK = re.compile(r'\{\{(?:[ \t]*(?:([A-Za-z_][A-Za-z0-9_]{0,59})|("\{\{"))[ \t]*\}\})?')
_SHOWN = 30


class TemplateRefused(ValueError):
    """`field` is where: name, messages, variables, labels, max_input_tokens."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    """Either what is said in a role, or the name of the variable whose messages stand here."""

    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: str | None = None
    history: str | None = None


class _Variable(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    type: VariableType = "text"
    required: bool = True
    default: str = ""
    max_characters: int = 20_000
    description: str = ""


def read_version(number: int, messages: Any, variables: Any, max_input_tokens: int | None) -> PromptVersionSpec:
    """A version as its row has it: lists of objects. Raises TemplateRefused for what can never work."""
    declared = _declared(_converted("variables", variables, list[_Variable]))
    read = tuple(_message(at, message) for at, message in enumerate(_converted("messages", messages, list[_Message]), 1))
    _refuse_sizes(read, max_input_tokens)
    _refuse_misuse(read, declared)
    return PromptVersionSpec(number, read, declared, max_input_tokens)


def read_template(id_: str, name: str, labels: Any, versions: Iterable[PromptVersionSpec]) -> PromptSpec:
    """A template as its row has it. Raises ValueError; a label for a version that is not there is left out."""
    if not TEMPLATE_NAME.match(name):  # it stands in headers
        raise TemplateRefused("name", f"{name[:100]!r} cannot be the name of a prompt.")
    by_number = {version.number: version for version in versions}
    return PromptSpec(id_, name, by_number, {label: number for label, number in read_labels(labels).items() if number in by_number})


def read_labels(labels: Any) -> dict[str, int]:
    """Label → number of a version. Raises TemplateRefused; whether there is such a version is the row's affair."""
    found = _converted("labels", labels, dict[str, int])
    if len(found) > MAX_LABELS:
        raise TemplateRefused("labels", f"At most {MAX_LABELS} labels.")
    for label in found:
        if not LABEL.fullmatch(label) or label == LATEST:
            raise TemplateRefused(
                "labels", f"{label[:40]!r} cannot be a label: small letters, digits, _ and -, a letter first, and not “{LATEST}”."
            )
    return found


def pieces(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(literals, names) of one text. Raises ValueError with a sentence where braces open and no variable follows."""
    literals, names, since = [""], [], 0
    for mark in _MARK.finditer(text):
        literals[-1] += text[since : mark.start()]
        since = mark.end()
        name, braces = mark.groups()
        if name:
            names.append(name)
            literals.append("")
        elif braces:
            literals[-1] += "{{"
        else:
            raise ValueError(
                f"{text[mark.start() : mark.start() + _SHOWN]!r} is no variable: write {{{{name}}}}, "
                'or {{"{{"}} where two braces are meant. There are no expressions.'
            )
    literals[-1] += text[since:]
    return tuple(literals), tuple(names)


def names_in(messages: Sequence[MessageSpec]) -> Iterator[str]:
    """Every variable that is used, as often as it is."""
    for message in messages:
        yield from message.names
        if message.history:
            yield message.history


def _converted(field: str, value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as refused:
        raise TemplateRefused(field, f"{str(refused).replace('`$', '`' + field)}.") from None


def _message(at: int, message: _Message) -> MessageSpec:
    if (message.content is None) == (message.history is None):
        raise TemplateRefused("messages", f"Message {at} needs either `content` or `history`, the name of a variable of that type.")
    if message.history is not None:
        return MessageSpec("", history=message.history)
    try:
        literals, names = pieces(message.content or "")
    except ValueError as refused:
        raise TemplateRefused("messages", f"Message {at}: {refused}") from None
    return MessageSpec(message.role, literals, names)


def _declared(variables: list[_Variable]) -> dict[str, VariableSpec]:
    if len(variables) > MAX_VARIABLES:
        raise TemplateRefused("variables", f"At most {MAX_VARIABLES} variables.")
    found: dict[str, VariableSpec] = {}
    for each in variables:
        shown = repr(each.name[:60])
        if not NAME.fullmatch(each.name):
            raise TemplateRefused("variables", f"{shown} cannot be a variable: up to 60 letters, digits and _, no digit first.")
        if each.name in found:
            raise TemplateRefused("variables", f"{shown} is declared twice.")
        if not 1 <= each.max_characters <= MAX_VARIABLE_CHARACTERS:
            raise TemplateRefused("variables", f"{shown}: write max_characters from 1 to {MAX_VARIABLE_CHARACTERS:,}.")
        if each.default and (each.required or each.type != "text"):
            raise TemplateRefused("variables", f"{shown}: only a text that is not required has a default.")
        if len(each.default) > each.max_characters or len(each.description) > 500:
            raise TemplateRefused("variables", f"{shown}: its default is longer than max_characters, or its description than 500.")
        found[each.name] = VariableSpec(*(getattr(each, name) for name in VariableSpec.__struct_fields__))
    return found


def _refuse_sizes(messages: Sequence[MessageSpec], max_input_tokens: int | None) -> None:
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise TemplateRefused("messages", f"Write 1 to {MAX_MESSAGES} messages.")
    if sum(len(literal) for message in messages for literal in message.literals) > MAX_TEMPLATE_CHARACTERS:
        raise TemplateRefused("messages", f"All texts together have at most {MAX_TEMPLATE_CHARACTERS:,} characters.")
    if max_input_tokens is not None and not 1 <= max_input_tokens <= MAX_INPUT_TOKENS:
        raise TemplateRefused("max_input_tokens", "Write a whole number from 1, or nothing for the model's window.")


def _refuse_misuse(messages: Sequence[MessageSpec], declared: Mapping[str, VariableSpec]) -> None:
    used = list(names_in(messages))
    if unknown := sorted(set(used) - set(declared)):
        raise TemplateRefused("variables", f"Used but not declared: {', '.join(unknown)[:500]}.")
    if idle := sorted(set(declared) - set(used)):
        raise TemplateRefused("variables", f"Declared but used in no message: {', '.join(idle)[:500]}.")
    for at, message in enumerate(messages, 1):
        if message.history and declared[message.history].type != "history":
            raise TemplateRefused("messages", f"Message {at}: {message.history!r} is declared as {declared[message.history].type}.")
        if misplaced := [name for name in message.names if declared[name].type == "history"]:
            raise TemplateRefused("messages", f"Message {at}: {misplaced[0]!r} is a history, which stands in a place of its own.")
    for name, variable in declared.items():
        if variable.type in ("history", "context") and used.count(name) > 1:
            raise TemplateRefused("messages", f"{name!r} is a {variable.type}, which stands in one place only.")


known(list[_Variable], list[_Message])
