"""Secrets that do not print themselves, and the ring of keys that seals them at rest.

A sealed secret is `version | kek id | wrapped data key | nonce | ciphertext` (AES-256-GCM twice): each row has its own
data key, wrapped by a key-encryption key (KEK) that lives outside the database. Both layers are bound to the row, the
field and the origin of the provider's address, so a ciphertext that is moved, or an address that is changed, does not open.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NoReturn
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = 1
_NONCE_BYTES = 12
_KEY_BYTES = 32
_WRAPPED_BYTES = _NONCE_BYTES + _KEY_BYTES + 16
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Secret:
    """A string that shows itself only through `reveal()`: not in repr, str, format, pickle or a traceback's locals."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(****)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


class CannotOpen(Exception):
    """A sealed secret does not open: another row, another address, another KEK, or altered bytes."""


def origin(url: str) -> str:
    """scheme://host:port of a URL, lower case and with the port spelled out: what a key is bound to."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return f"{scheme}://{(parts.hostname or '').lower()}:{parts.port or _DEFAULT_PORTS.get(scheme, 0)}"


class KeyRing:
    """Seals and opens. `keks` maps an id (1–255) to 32 bytes; `current` seals, all of them open."""

    def __init__(self, keks: Mapping[int, bytes], current: int) -> None:
        if current not in keks or any(len(kek) != _KEY_BYTES or not 0 < id_ < 256 for id_, kek in keks.items()):
            raise ValueError("a key ring needs 32-byte keys with ids from 1 to 255, and a current one among them")
        self._keks = {id_: AESGCM(kek) for id_, kek in keks.items()}
        self.current = current

    def seal(self, plaintext: str, bound_to: str) -> bytes:
        """`bound_to` is the row, field and origin; the same string is needed to open."""
        aad = bound_to.encode()
        data_key = AESGCM.generate_key(bit_length=256)
        wrap_nonce, nonce = os.urandom(_NONCE_BYTES), os.urandom(_NONCE_BYTES)
        wrapped = wrap_nonce + self._keks[self.current].encrypt(wrap_nonce, data_key, aad)
        sealed = nonce + AESGCM(data_key).encrypt(nonce, plaintext.encode(), aad)
        return bytes((_VERSION, self.current)) + wrapped + sealed

    def open(self, token: bytes, bound_to: str) -> Secret:
        """Raises CannotOpen, which says what to do but never what was inside."""
        if len(token) < 2 + _WRAPPED_BYTES + _NONCE_BYTES + 16 or token[0] != _VERSION:
            raise CannotOpen("the stored secret is damaged; enter the key again")
        kek = self._keks.get(token[1])
        if kek is None:
            raise CannotOpen(f"the secret was sealed with key-encryption key {token[1]}, which is not configured")
        aad = bound_to.encode()
        wrapped, sealed = token[2 : 2 + _WRAPPED_BYTES], token[2 + _WRAPPED_BYTES :]
        try:
            data_key = kek.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], aad)
            plaintext = AESGCM(data_key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], aad)
        except InvalidTag:
            raise CannotOpen("the secret does not belong to this row and address, or was altered; enter the key again") from None
        return Secret(plaintext.decode())
