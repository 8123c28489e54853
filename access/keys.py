"""API keys and personal tokens: make, digest, recognise. Pure: the pepper is handed in."""

from __future__ import annotations

import hmac
import secrets
from functools import lru_cache

API_KEY_PREFIX = "sk-llmc-"
TOKEN_PREFIX = "llmc-pat-"  # what every token begins with  # nosec B105
_RANDOM_BYTES = 32
_SHOWN_RANDOM_CHARACTERS = 4


def make(prefix: str) -> str:
    """A new credential with 256 random bits."""
    return prefix + secrets.token_urlsafe(_RANDOM_BYTES)


def shown(credential: str, prefix: str) -> str:
    """The beginning, by which people recognise it: too short to help in guessing the rest."""
    return credential[: len(prefix) + _SHOWN_RANDOM_CHARACTERS]


def digest(pepper: bytes, credential: bytes) -> bytes:
    """What is stored and looked up, whole. Keyed, so that a stolen database alone cannot test guesses; fast, because the
    credential is random and not a password."""
    mac = _keyed(pepper).copy()
    mac.update(credential)
    return mac.digest()


@lru_cache(maxsize=8)
def _keyed(pepper: bytes) -> hmac.HMAC:
    """Half of the work is the same for every credential: it is done once."""
    return hmac.new(pepper, digestmod="sha256")
