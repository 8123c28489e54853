"""Key-encryption keys (KEKs) at key management services. Another service is one file here and one line in `KINDS`.

Such a file has `refusal()`, which says in a sentence what setting is missing, and `build(reference)`, which returns a `core.secrets.Kek`.
It imports the service's library only in `build`, so that who does not use it does not pay for it.
"""

from __future__ import annotations

from importlib import import_module

from django.conf import settings

from core.errors import ConfigurationError
from core.secrets import Kek
from providers.kek.remote import RemoteKek

KINDS = {"vault": "providers.kek.vault", "aws": "providers.kek.aws"}


def build(reference: str) -> Kek:
    """`vault:NAME` or `aws:KEY` → the KEK, asked seldom. Opens no connection. Raises ConfigurationError."""
    kind, _, name = reference.partition(":")
    module = import_module(KINDS[kind])
    if refusal := module.refusal():
        raise ConfigurationError(f"KEY_ENCRYPTION_KEYS names {reference}: {refusal}")
    try:
        kek: Kek = module.build(name)
    except ImportError as exc:
        raise ConfigurationError(
            f"KEY_ENCRYPTION_KEYS names {reference}, which needs a library that is not installed ({exc.name}): "
            "pip install --require-hashes -r requirements-extra.txt"
        ) from exc
    return RemoteKek(kek, ttl_s=settings.KEK_CACHE_S, max_keys=settings.KEK_CACHE_KEYS)
