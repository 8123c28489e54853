"""What `manage.py check` can know of vendors without a database: that keys can be opened, and that every wire loads."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register

from core.errors import ConfigurationError
from core.secrets import CannotOpen
from providers.adapters import registry
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
