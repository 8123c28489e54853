"""What `manage.py check` can know of vendors: that keys can be opened, that every wire loads, that the rows can work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ValidationError
from django.db import DatabaseError
from django.db.models import Model
from django.utils.text import capfirst

from core.errors import ConfigurationError
from core.secrets import CannotOpen
from providers.adapters import registry
from providers.models import Provider, ProviderKey
from providers.vault import key_ring


@register(Tags.security)
def key_ring_works(**options: Any) -> list[CheckMessage]:
    """Keys at a service are not asked for: that the service is away keeps no command from running. `check --deploy` asks."""
    try:
        key_ring()
    except (ValueError, ConfigurationError) as error:
        return [Error(f"The key ring does not work: {error}", hint="Correct KEY_ENCRYPTION_KEYS.", id="providers.E001")]
    return []


@register(Tags.security, deploy=True)
def key_ring_opens(**options: Any) -> list[CheckMessage]:
    try:
        ring = key_ring()
        ring.open(ring.seal("probe", "check"), "check")
    except (ValueError, ConfigurationError, CannotOpen) as error:
        return [Error(f"No secret can be sealed: {error}.", hint="Correct what is said there.", id="providers.E005")]
    return []


@register()
def adapters_load(**options: Any) -> list[CheckMessage]:
    """Asking for a form imports the adapter that declares it."""
    errors: list[CheckMessage] = []
    for kind, _ in registry.kinds():
        try:
            registry.form(kind)
        except ConfigurationError as error:
            errors.append(Error(f"The adapter of provider type {kind!r} does not load: {error}", id="providers.E002"))
    return errors


@register(Tags.database)
def rows_work(databases: Sequence[str] | None = None, **options: Any) -> list[CheckMessage]:
    """Rows that came in past admin and REST are held to the same rules. Only where a database is named (`manage.py check
    --database default`): it may not be there yet, and a row that cannot work keeps no process from starting."""
    return [message for row_type in (Provider, ProviderKey) for message in refused_rows(row_type, databases, "providers.E003")]


def refused_rows(row_type: type[Model], databases: Sequence[str] | None, id_: str) -> list[CheckMessage]:
    """An error for each field of a row that admin and REST would refuse. Before `migrate` there is nothing to look at."""
    errors: list[CheckMessage] = []
    for alias in databases or ():
        with suppress(DatabaseError):
            errors += [
                Error(f"{capfirst(row._meta.verbose_name)} {row}, {field}: {' '.join(sentences)}", hint="Correct it in the admin.", id=id_)
                for row in row_type._default_manager.using(alias).iterator()
                for field, sentences in _refusals(row).items()
            ]
    return errors


def _refusals(row: Model) -> dict[str, list[str]]:
    """As `full_clean`, but for what the database itself sees to: relations, and what must be unique."""
    try:
        row.full_clean({field.name for field in row._meta.fields if field.is_relation}, validate_unique=False, validate_constraints=False)
    except ValidationError as refused:
        found: dict[str, list[str]] = refused.message_dict
        return found
    return {}
