"""What the chain of a route may be, and how it reads in plain words. Pure: values in, sentences out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from core.choice import MAX_TASK_TYPE, PRIORITY, STRATEGIES, is_task_type
from core.config import RouteSpec

MAX_TARGETS = 10
MAX_WEIGHT = 1000
MAX_TASK_TYPES = 50
MAX_FIXED_ANSWER_CHARACTERS = 4_000
_CHATS = frozenset({"chat", "completion"})
_EMBEDS = frozenset({"embedding"})
# Alias → the types of the models that have it.
Types = Mapping[str, set[str]]


def aliases_of(spec: RouteSpec) -> list[str]:
    """Every model alias that the chain names."""
    return [*spec.targets, *spec.fallbacks, *filter(None, [spec.degrade_to])]


class Malformed(ValueError):
    """A JSON column, `field`, holds what it should not."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


def spec_of(
    alias: str,
    targets: Any,
    degrade_to: str | None,
    fixed_answer: str | None,
    *,
    strategy: str | None = PRIORITY,
    weights: Any = None,
    fallbacks: Any = None,
    task_types: Any = None,
) -> RouteSpec:
    """None = what the column's default says. Raises Malformed."""
    weights = {} if weights is None else weights
    if not isinstance(weights, dict) or not all(type(weight) is int for weight in weights.values()):
        raise Malformed("weights", "Write a whole number for each alias that has a weight.")
    return RouteSpec(
        alias,
        _texts("targets", targets, "Write a list of aliases of models."),
        degrade_to or "",
        fixed_answer or "",
        strategy=strategy or PRIORITY,
        weights=weights,
        fallbacks=_texts("fallbacks", [] if fallbacks is None else fallbacks, "Write a list of aliases of models."),
        task_types=_texts("task_types", [] if task_types is None else task_types, "Write a list of task types."),
    )


def _texts(field: str, value: Any, sentence: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Malformed(field, sentence)
    return tuple(value)


def refusals(spec: RouteSpec, types: Types) -> dict[str, str]:
    """Field → why it cannot be so; {} = the chain works. `types` knows every alias that some model has.

    What depends on a field that is refused is judged once that is put right."""
    targets = _of_targets(spec.targets, types)
    fallbacks = "" if targets else _of_fallbacks(spec, types)
    found = {
        "targets": targets,
        "strategy": "" if spec.strategy in STRATEGIES else f"Unknown; the strategies are {', '.join(STRATEGIES)}.",
        "weights": "" if targets else _of_weights(spec),
        "fallbacks": fallbacks,
        "task_types": _of_task_types(spec.task_types),
        "degrade_to": _of_degrade_to(msgspec.structs.replace(spec, fallbacks=()) if fallbacks else spec, types),
        "fixed_answer": _of_fixed_answer(spec, types),
    }
    return {field: sentence for field, sentence in found.items() if sentence}


def steps_of(spec: RouteSpec) -> list[str]:
    """In plain words, e.g. ["gpt-4o, then claude", "if none of them answers, the smaller gpt-4o-mini", "after that a fixed answer"]."""
    steps = [_targets_in_words(spec)]
    several = len(spec.targets) > 1
    if spec.fallbacks:
        then = ", then ".join(spec.fallbacks)
        steps.append(f"if none of them answers, {then}" if several else f"if it does not answer, {then}")
        several = True
    if spec.degrade_to:
        smaller = spec.degrade_to
        steps.append(f"if none of them answers, the smaller {smaller}" if several else f"if it does not answer, the smaller {smaller}")
    if spec.fixed_answer:
        steps.append("after that a fixed answer")
    return steps


def _targets_in_words(spec: RouteSpec) -> str:
    if spec.strategy == "weighted":
        weighted = ", ".join(f"{alias} {spec.weights.get(alias, 1)}" for alias in spec.targets)
        return f"by weight {weighted}"
    of = ", ".join(spec.targets)
    how = {
        "cost": f"the cheapest of {of}",
        "speed": f"the fastest of {of}",
        "quality": f"the best of {of}",
        "least_busy": f"the least busy of {of}",
    }.get(spec.strategy)
    return how if how and len(spec.targets) > 1 else ", then ".join(spec.targets)


def _of_weights(spec: RouteSpec) -> str:
    if strange := [alias for alias in spec.weights if alias not in spec.targets]:
        return f"Only the models of this route have weights; {_listed(strange)} is none of them."
    if wrong := [alias for alias, weight in spec.weights.items() if not 1 <= weight <= MAX_WEIGHT]:
        return f"Write a whole number from 1 to {MAX_WEIGHT:,} for {_listed(wrong)}."
    return ""


def _of_fallbacks(spec: RouteSpec, types: Types) -> str:
    aliases = spec.fallbacks
    if not aliases:
        return ""
    if twice := sorted(set(aliases) & set(spec.targets)):
        return f"Tried already, as one of the targets: {_listed(twice)}."
    if refused := _of_targets(aliases, types):
        return refused
    if len([kind for kind in (_CHATS, _EMBEDS) if kind & _all_types((*spec.targets, *aliases), types)]) > 1:
        return "Chat and embedding models do not stand in for each other: name models of the targets' kind."
    return ""


def _of_task_types(names: tuple[str, ...]) -> str:
    if len(names) > MAX_TASK_TYPES:
        return f"Name at most {MAX_TASK_TYPES} task types; these are {len(names)}."
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return f"Named twice: {_listed(twice)}."
    if wrong := [name for name in names if not is_task_type(name)]:
        return f"{_listed(wrong)}: a task type has 1 to {MAX_TASK_TYPE} letters, digits and . _ : / -, the first a letter or digit."
    return ""


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
    if alias in spec.fallbacks:
        return f"{alias!r} is tried already, as one of the fallbacks: name another model."
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
