"""The process's key ring, built from settings once."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from core.secrets import KeyRing


@lru_cache(maxsize=1)
def key_ring() -> KeyRing:
    """KEY_ENCRYPTION_KEYS maps ids to 32 bytes; the highest id seals, all of them open."""
    keks = settings.KEY_ENCRYPTION_KEYS
    return KeyRing(keks, current=max(keks))
