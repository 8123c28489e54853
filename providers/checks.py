"""What `manage.py check` can know of vendors: that keys can be opened, that every wire loads, that the rows can work."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ValidationError
from django.db import DatabaseError

from core.errors import ConfigurationError
from core.secrets import CannotOpen
from providers.adapters import registry
from providers.models import Provider
from providers.vault import key_ring


@register(Tags.security)
def key_ring_works(**options: Any) -> list[CheckMessage]:
    try:
        ring = key_ring()
        ring.open(ring.seal("probe", "check"), "check")
    except (ValueError, CannotOpen) as error:
        return [Error(f"The key ring does not work: {error}", hint="Correct KEY_ENCRYPTION_KEYS.", id="providers.E001")]
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


@register()
def rows_work(**options: Any) -> list[CheckMessage]:
    """Rows that came in past admin and REST are held to the same rules. Without a database, or before `migrate`, there is
    nothing to look at; not tagged `database`, because a plain `manage.py check` leaves such checks out."""
    errors: list[CheckMessage] = []
    try:
        providers = list(Provider.objects.all())
    except DatabaseError:
        return []
    for provider in providers:
        try:
            provider.clean_fields()
            provider.clean()
        except ValidationError as refused:
            errors += [
                Error(f"Provider {provider.name}, {field}: {' '.join(sentences)}", hint="Correct it in the admin.", id="providers.E003")
                for field, sentences in refused.message_dict.items()
            ]
    return errors
