"""Grants to teams. Those to a person stay where that person is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rest_framework import serializers

from access import services
from access.models import Grant, Team
from llmcontrol.portable import models
from llmcontrol.portable.document import Entry
from llmcontrol.portable.kind import Kind, found_by
from models_registry.models import PromptTemplate, Route
from monitoring.api.bodies import in_body_words
from providers.models import Provider


class Grants(Kind):
    section, model = "grants", Grant
    key = ("team", *Grant.OBJECTS)

    def rows(self) -> Iterable[Grant]:
        return Grant.objects.filter(user=None).select_related("team", "provider", "model__provider", "route", "prompt")

    def shown(self, row: Grant) -> Entry:
        named = {
            "team": row.team and row.team.name,
            "provider": row.provider and row.provider.name,
            "model": row.model and models.named(row.model),
            "route": row.route and row.route.alias,
            "prompt": row.prompt and row.prompt.name,
        }
        return {name: value for name, value in named.items() if value}

    def save(self, row: Grant | None, entry: Entry, changed: Entry) -> Grant:
        """One that is here already says all that it can say."""
        if unknown := sorted(set(entry) - set(self.key)):
            raise serializers.ValidationError(dict.fromkeys(unknown, "This field is not known."))
        if row is not None:
            return row
        found = {name: _found(name, value) for name, value in entry.items() if value}
        with in_body_words():
            return services.save_grant(Grant(**found), self.scene.user)


def _found(name: str, value: Any) -> Any:
    """Raises ValidationError."""
    if name == "model":
        return models.found(value)
    model, column = {
        "team": (Team, "name"),
        "provider": (Provider, "name"),
        "route": (Route, "alias"),
        "prompt": (PromptTemplate, "name"),
    }[name]
    return found_by(name, model, **{column: value})
