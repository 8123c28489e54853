"""What `manage.py check --database default` can know of models, routes and prompts: whether each row could be saved as it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import DatabaseError

from models_registry.conversion import unconvertible
from models_registry.models import ExchangeRate, LLMModel, Price, PromptTemplate, PromptVersion, Route
from providers.checks import refused_rows


@register(Tags.database)
def model_rows_work(databases: Sequence[str] | None = None, **options: Any) -> list[CheckMessage]:
    """See `refused_rows`."""
    row_types = (LLMModel, Price, Route, ExchangeRate, PromptTemplate, PromptVersion)
    return [message for row_type in row_types for message in refused_rows(row_type, databases, "models_registry.E001")]


@register(Tags.database)
def prices_can_be_converted(databases: Sequence[str] | None = None, **options: Any) -> list[CheckMessage]:
    """Before `migrate` there is nothing to look at."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        with suppress(DatabaseError):
            found += [Warning(sentence, id="models_registry.W001") for sentence in unconvertible(alias)]
    return found
