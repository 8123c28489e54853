"""What can be done with prompt templates. Every write validates and runs in one transaction; ValidationError names the field."""

from __future__ import annotations

from typing import Any

import msgspec
from django.core.exceptions import ValidationError
from django.db import transaction

from core.prompts import PRODUCTION
from models_registry.prompt_models import PromptTemplate, PromptVersion
from models_registry.shipped_prompts import SHIPPED

MAX_VERSIONS = 1_000


class Wording(msgspec.Struct, frozen=True):
    """What a version says. Lists as JSON has them; `max_input_tokens` None = the model's window."""

    messages: Any
    variables: Any
    max_input_tokens: int | None = None


def latest_of(template: PromptTemplate) -> PromptVersion | None:
    return template.versions.first() if not template._state.adding else None


def wording_of(version: PromptVersion) -> Wording:
    return Wording(version.messages, version.variables, version.max_input_tokens)


def save_prompt(template: PromptTemplate, wording: Wording | None = None, *, note: str = "", by: str = "") -> PromptVersion | None:
    """The row as it stands, and a new version where `wording` is another than the latest: that one, else None.

    A new template needs a wording. Labels may name the version that is made here. Raises ValidationError by field.
    """
    labels = template.labels
    with transaction.atomic():
        made = _first(template, wording, note, by) if template._state.adding else _another(template, wording, note, by)
        template.labels = labels
        template.full_clean()
        template.save()
    return made


def add_shipped_prompts() -> list[str]:
    """The names of those that were added: all that are missing. What is there stays as people have made it."""
    there = set(PromptTemplate.objects.values_list("name", flat=True))
    missing = [shipped for shipped in SHIPPED if shipped.name not in there]
    for shipped in missing:
        template = PromptTemplate(name=shipped.name, description=shipped.description, labels={PRODUCTION: 1})
        save_prompt(template, Wording(list(shipped.messages), list(shipped.variables)), note="Shipped")
    return [shipped.name for shipped in missing]


def _first(template: PromptTemplate, wording: Wording | None, note: str, by: str) -> PromptVersion:
    if wording is None:
        raise ValidationError({"messages": "Write at least one message."})
    template.labels = {}
    template.full_clean()
    template.save(force_insert=True)
    return _version(template, 1, wording, note, by)


def _another(template: PromptTemplate, wording: Wording | None, note: str, by: str) -> PromptVersion | None:
    PromptTemplate.objects.select_for_update().get(pk=template.pk)  # two that change it at once take turns
    latest = template.versions.first()
    if wording is None or (latest is not None and wording_of(latest) == wording):
        return None
    number = latest.number + 1 if latest is not None else 1
    if number > MAX_VERSIONS:
        raise ValidationError({"messages": f"A prompt has at most {MAX_VERSIONS:,} versions: make another prompt."})
    return _version(template, number, wording, note, by)


def _version(template: PromptTemplate, number: int, wording: Wording, note: str, by: str) -> PromptVersion:
    row = PromptVersion(template=template, number=number, note=note, created_by=by, **msgspec.structs.asdict(wording))
    row.full_clean()
    row.save(force_insert=True)
    return row
