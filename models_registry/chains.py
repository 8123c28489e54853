"""What the chain of a route may be, and how it reads in plain words. Pure: values in, sentences out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.config import RouteSpec

MAX_TARGETS = 10
MAX_FIXED_ANSWER_CHARACTERS = 4_000
_CHATS = frozenset({"chat", "completion"})
_EMBEDS = frozenset({"embedding"})
# Alias → the types of the models that have it.
Types = Mapping[str, set[str]]


def aliases_of(spec: RouteSpec) -> list[str]:
    """Every model alias that the chain names."""
    return [*spec.targets, *filter(None, [spec.degrade_to])]


def spec_of(alias: str, targets: Any, degrade_to: str | None, fixed_answer: str | None) -> RouteSpec:
    """Raises ValueError where `targets`, a JSON column, is no list of texts."""
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise ValueError("Write a list of aliases of models.")
    return RouteSpec(alias, tuple(targets), degrade_to or "", fixed_answer or "")


def refusals(spec: RouteSpec, types: Types) -> dict[str, str]:
    """Field → why it cannot be so; {} = the chain works. `types` knows every alias that some model has."""
    found = {
        "targets": _of_targets(spec.targets, types),
        "degrade_to": _of_degrade_to(spec, types),
        "fixed_answer": _of_fixed_answer(spec, types),
    }
    return {field: sentence for field, sentence in found.items() if sentence}


def in_plain_words(spec: RouteSpec) -> str:
    """E.g. "gpt-4o, then claude; if none of them answers, the smaller gpt-4o-mini; after that a fixed answer"."""
    steps = [", then ".join(spec.targets)]
    if spec.degrade_to:
        steps.append(f"if {'none of them answers' if len(spec.targets) > 1 else 'it does not answer'}, the smaller {spec.degrade_to}")
    if spec.fixed_answer:
        steps.append("after that a fixed answer")
    return "; ".join(steps)


def _of_targets(targets: tuple[str, ...], types: Types) -> str:
    if not targets:
        return "Name at least one model's alias."
    if len(targets) > MAX_TARGETS:
        return f"Name at most {MAX_TARGETS} aliases; these are {len(targets)}."
    if twice := sorted({alias for alias in targets if targets.count(alias) > 1}):
        return f"Named twice: {_listed(twice)}. Each alias is tried once."
    if unknown := [alias for alias in targets if alias not in types]:
        return _unknown(unknown)
    found = _all_types(targets, types)
    if unserved := sorted(found - _CHATS - _EMBEDS):
        return f"A route leads to models for chat or for embeddings; here are some of type {_listed(unserved)}."
    return "Chat and embedding models do not stand in for each other: name one kind." if found & _CHATS and found & _EMBEDS else ""


def _of_degrade_to(spec: RouteSpec, types: Types) -> str:
    alias = spec.degrade_to
    if not alias:
        return ""
    if alias in spec.targets:
        return f"{alias!r} is tried already, as one of the targets: name another model."
    if alias not in types:
        return _unknown([alias])
    kinds = [kind for kind in (_CHATS, _EMBEDS) if kind & _all_types(aliases_of(spec), types)]
    if len(kinds) > 1 or types[alias] - _CHATS - _EMBEDS:
        return f"{alias!r} cannot stand in for the targets: it is not of their type, chat or embedding."
    return ""


def _of_fixed_answer(spec: RouteSpec, types: Types) -> str:
    text = spec.fixed_answer
    if len(text) > MAX_FIXED_ANSWER_CHARACTERS:
        return f"Write at most {MAX_FIXED_ANSWER_CHARACTERS:,} characters; these are {len(text):,}."
    if text and not text.strip():
        return "Write a text that says something, or nothing at all."
    if text and _all_types(spec.targets, types) & _EMBEDS:
        return "A text is no embedding: leave it empty for models that make embeddings."
    return ""


def _all_types(aliases: Iterable[str], types: Types) -> set[str]:
    return {model_type for alias in aliases for model_type in types.get(alias, ())}


def _unknown(aliases: list[str]) -> str:
    return f"No model has the alias {_listed(aliases)}. A route leads to models, never to another route."


def _listed(names: list[str]) -> str:
    """A few names for a sentence, none of them at length."""
    return ", ".join(repr(name[:80]) for name in names[:5])
