"""What `manage.py check` can know of models: whether each row could be saved as it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ValidationError
from django.db import DatabaseError, models

from models_registry.models import LLMModel


@register()
def model_rows_work(**options: Any) -> list[CheckMessage]:
    """See `refused_rows`."""
    return refused_rows(LLMModel.objects.all(), "models_registry.E001")


def refused_rows(rows: Iterable[models.Model], id_: str) -> list[CheckMessage]:
    """An error for each field of a row that admin and REST would refuse: it came into the database past them.

    Without a database, or before `migrate`, there is nothing to look at; checks that use this are not tagged `database`,
    because a plain `manage.py check` leaves such checks out.
    """
    errors: list[CheckMessage] = []
    try:
        for row in rows:
            errors += [
                Error(f"{row._meta.verbose_name} {row}, {field}: {' '.join(sentences)}", hint="Correct it in the admin.", id=id_)
                for field, sentences in _refusals(row).items()
            ]
    except DatabaseError:
        return []
    return errors


def _refusals(row: models.Model) -> dict[str, list[str]]:
    try:
        row.clean_fields(exclude={field.name for field in row._meta.fields if field.is_relation})
        row.clean()
    except ValidationError as refused:
        found: dict[str, list[str]] = refused.message_dict
        return found
    return {}
