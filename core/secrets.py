"""Secrets that do not print themselves, and the ring of keys that seals them at rest.

A sealed secret is `version | kek id | wrapped data key | nonce | ciphertext` (AES-256-GCM twice): each row has its own
data key, wrapped by a key-encryption key (KEK) that lives outside the database. Both layers are bound to the row, the
field and the origin of the provider's address, so a ciphertext that is moved, or an address that is changed, does not open.
In version 1 the wrapped data key has the length that `LocalKek` makes; in version 2 its length stands before it, in two bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple, NoReturn, Protocol
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_FIXED, _SIZED = 1, 2  # versions
_SIZE_BYTES = 2
_NONCE_BYTES = 12
_KEY_BYTES = 32
_TAG_BYTES = 16
_LOCAL_BYTES = _NONCE_BYTES + _KEY_BYTES + _TAG_BYTES
_DEFAULT_PORTS = {"http": 80, "https": 443}
_DAMAGED = "the stored secret is damaged; enter the key again"


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


class KekAway(CannotOpen):
    """The KEK cannot be used just now: its service does not answer, or refuses us. Nothing is wrong with the secret."""


NOT_ITS_PLACE = "the secret does not belong to this row and address, or was altered; enter the key again"


class Kek(Protocol):
    """A key-encryption key, in this process (`LocalKek`) or at a key management service (`providers.kek`)."""

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        """`data_key` has 32 bytes; the same `context` is needed to unwrap. Raises KekAway."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Raises CannotOpen where the two do not belong together, KekAway where that cannot be known."""
        ...

    def version(self, wrapped: bytes) -> str:
        """Which version of the KEK has wrapped it, for people; "" where there is but one, or the service does not say."""
        ...


class LocalKek:
    """32 bytes from the environment or a file."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data_key, context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        try:
            return self._cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError):
            raise CannotOpen(NOT_ITS_PLACE) from None

    def version(self, wrapped: bytes) -> str:
        return ""


def origin(url: str) -> str:
    """scheme://host:port of a URL, lower case and with the port spelled out: what a key is bound to."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return f"{scheme}://{(parts.hostname or '').lower()}:{parts.port or _DEFAULT_PORTS.get(scheme, 0)}"


class _Token(NamedTuple):
    """A sealed secret, taken apart. `sealed`: nonce and ciphertext."""

    kek_id: int
    wrapped: bytes
    sealed: bytes


def _parse(token: bytes) -> _Token:
    """Raises CannotOpen for what is no token."""
    version = token[0] if token else 0
    if version == _FIXED:
        begin, size = 2, _LOCAL_BYTES
    elif version == _SIZED:
        begin, size = 2 + _SIZE_BYTES, int.from_bytes(token[2 : 2 + _SIZE_BYTES], "big")
    else:
        raise CannotOpen(_DAMAGED)
    if not size or len(token) < begin + size + _NONCE_BYTES + _TAG_BYTES:
        raise CannotOpen(_DAMAGED)
    return _Token(token[1], token[begin : begin + size], token[begin + size :])


def sealed_under(token: bytes) -> int:
    """The id of the KEK a token was sealed with, known without any key. Raises CannotOpen for what is no token."""
    return _parse(token).kek_id


class KeyRing:
    """Seals and opens. `keks` maps an id (1–255) to 32 bytes or to a KEK elsewhere; `current` seals, all of them open."""

    def __init__(self, keks: Mapping[int, bytes | Kek], current: int) -> None:
        short = any(isinstance(kek, bytes) and len(kek) != _KEY_BYTES for kek in keks.values())
        if current not in keks or short or not all(0 < id_ < 256 for id_ in keks):
            raise ValueError("a key ring needs 32-byte keys with ids from 1 to 255, and a current one among them")
        self._keks: dict[int, Kek] = {id_: LocalKek(kek) if isinstance(kek, bytes) else kek for id_, kek in keks.items()}
        self.ids = frozenset(keks)
        self.current = current

    def seal(self, plaintext: str, bound_to: str) -> bytes:
        """`bound_to` is the row, field and origin; the same string is needed to open. Raises KekAway."""
        aad = bound_to.encode()
        data_key, nonce = AESGCM.generate_key(bit_length=256), os.urandom(_NONCE_BYTES)
        return self._head(data_key, aad) + nonce + AESGCM(data_key).encrypt(nonce, plaintext.encode(), aad)

    def reseal(self, token: bytes, bound_to: str) -> bytes:
        """The same secret under the current KEK: its data key is wrapped anew, the ciphertext stays. Raises CannotOpen.

        It is opened on the way, so that a damaged secret is noticed now and not when the old KEK is gone.
        """
        data_key, _ = self._open(token, bound_to)
        return self._head(data_key, bound_to.encode()) + _parse(token).sealed

    def open(self, token: bytes, bound_to: str) -> Secret:
        """Raises CannotOpen, which says what to do but never what was inside."""
        return self._open(token, bound_to)[1]

    def version(self, token: bytes) -> str:
        """Which version of its KEK has wrapped a token's data key; "" where that is not known. Raises CannotOpen for what is no token."""
        id_, wrapped, _ = _parse(token)
        return self._keks[id_].version(wrapped) if id_ in self._keks else ""

    def _head(self, data_key: bytes, aad: bytes) -> bytes:
        """Version, KEK id, and the data key under that KEK."""
        wrapped = self._keks[self.current].wrap(data_key, aad)
        if len(wrapped) == _LOCAL_BYTES:
            return bytes((_FIXED, self.current)) + wrapped
        return bytes((_SIZED, self.current)) + len(wrapped).to_bytes(_SIZE_BYTES, "big") + wrapped

    def _open(self, token: bytes, bound_to: str) -> tuple[bytes, Secret]:
        """The data key, and what it opens."""
        id_, wrapped, sealed = _parse(token)
        kek = self._keks.get(id_)
        if kek is None:
            raise CannotOpen(
                f"the secret was sealed with key-encryption key {id_}, which is not configured; "
                f"add key {id_} to KEY_ENCRYPTION_KEYS and restart, or enter the key again"
            )
        aad = bound_to.encode()
        data_key = kek.unwrap(wrapped, aad)
        try:
            plaintext = AESGCM(data_key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], aad)
        except (InvalidTag, ValueError):
            raise CannotOpen(NOT_ITS_PLACE) from None
        return data_key, Secret(plaintext.decode())
