"""Budgets of teams, providers and users. Those of API keys stay with their keys. What was spent is no configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from django.db.models import Model
from rest_framework import serializers

from access.api.budgets import BudgetSerializer
from access.budget_rules import scope_of
from access.budgets import written
from access.models import Budget, Team
from llmcontrol.portable.document import Entry
from llmcontrol.portable.kind import Serialized, found_by
from providers.models import Provider

_HOLDERS: Final[Mapping[str, type[Model]]] = {"team": Team, "provider": Provider}


class Budgets(Serialized):
    section, model, serializer = "budgets", Budget, BudgetSerializer
    key = ("scope", "kind", "currency", "period")
    repeats = True

    def rows(self) -> Iterable[Budget]:
        return Budget.objects.filter(key=None).select_related("team", "provider")

    def shown(self, row: Budget) -> Entry:
        scope, _, name = scope_of(row)
        columns = {column: getattr(row, column) for column in ("kind", "currency", "period")}
        limit: Any = written(row, row.limit) if row.kind == Budget.Kind.MONEY else row.limit
        return {"scope": {scope: name}, **columns, "limit": limit, "hard": row.hard}

    def resolved(self, entry: Entry) -> Entry:
        scope = entry.get("scope")
        if not isinstance(scope, dict):
            return entry
        if "key" in scope:
            raise serializers.ValidationError({"scope": "Budgets of API keys stay with their keys: make it there."})
        named = {name: found_by("scope", _HOLDERS[name], name=value) for name, value in scope.items() if name in _HOLDERS}
        return {**entry, "scope": {**scope, **{name: str(row.pk) for name, row in named.items()}}}
