"""The process's key ring, built from settings once."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from core.secrets import KeyRing
from providers import kek


@lru_cache(maxsize=1)
def key_ring() -> KeyRing:
    """KEY_ENCRYPTION_KEYS maps ids to 32 bytes, or to where else a key is; the highest id seals, all of them open.

    Opens no connection. Raises ConfigurationError.
    """
    keks = {id_: key if isinstance(key, bytes) else kek.build(key) for id_, key in settings.KEY_ENCRYPTION_KEYS.items()}
    return KeyRing(keks, current=max(keks))
