"""Values laid down for the other processes of the machine: sealed files under hashed names, bounded in bytes, kept for a time.

A file is `expiry (wall seconds) | nonce | ciphertext`, sealed by AES-256-GCM under a key derived from a secret of the
installation; its name and its expiry are bound to it. Called from threads, several at once.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_EXPIRY = struct.Struct("<d")
_NONCE_BYTES = 12
# A file takes whole pages, whatever it holds.
_PAGE_BYTES = 4096
# One process looks at what is there each time it has laid down such a part of the bound; a value is at most as large.
_PART = 16
_TEMPORARY = "."


class Laid:
    def __init__(self, folder: Path, secret: bytes, wall: Callable[[], float], max_bytes: int) -> None:
        keys = HKDF(algorithm=SHA256(), length=64, salt=None, info=b"llmcontrol: values laid down for peers").derive(secret)
        self._cipher, self._name_key = AESGCM(keys[:32]), keys[32:]
        self._folder = folder
        self._wall = wall
        self._max_bytes = max_bytes
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._unchecked_bytes = 0

    def open(self) -> None:
        """Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def put(self, name: str, value: bytes, ttl_s: float) -> None:
        """A value larger than a sixteenth of the bound is not kept. Raises OSError."""
        if _on_disk(len(value)) > self._max_bytes // _PART:
            return
        file = self._file_of(name)
        expiry, nonce = _EXPIRY.pack(self._wall() + ttl_s), os.urandom(_NONCE_BYTES)
        sealed = expiry + nonce + self._cipher.encrypt(nonce, value, file.encode() + expiry)
        temporary = self._folder / f"{_TEMPORARY}{os.getpid()}-{next(self._numbers)}"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
                out.write(sealed)
            temporary.replace(self._folder / file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._make_room(_on_disk(len(sealed)))

    def get(self, name: str) -> bytes | None:
        """None where it is not there, is too old, or is not what was laid down. Raises OSError."""
        file = self._file_of(name)
        try:
            sealed = (self._folder / file).read_bytes()
        except FileNotFoundError:
            return None
        expiry, nonce, rest = sealed[: _EXPIRY.size], sealed[_EXPIRY.size :][:_NONCE_BYTES], sealed[_EXPIRY.size + _NONCE_BYTES :]
        try:
            value = self._cipher.decrypt(nonce, rest, file.encode() + expiry)
        except (InvalidTag, ValueError):
            return None
        return value if _EXPIRY.unpack(expiry)[0] > self._wall() else None

    def _file_of(self, name: str) -> str:
        return hashlib.blake2b(name.encode(), digest_size=20, key=self._name_key).hexdigest()

    def _make_room(self, written_bytes: int) -> None:
        """So the bound may be exceeded by a sixteenth for each process."""
        with self._lock:
            self._unchecked_bytes += written_bytes
            if self._unchecked_bytes * _PART < self._max_bytes:
                return
            self._unchecked_bytes = 0
            found, now = [], self._wall()
            for entry in os.scandir(self._folder):
                with suppress(OSError, struct.error):
                    stat = entry.stat()
                    found.append((stat.st_mtime_ns, _on_disk(stat.st_size), entry.path, self._is_over(entry, now)))
            excess = sum(size for _, size, _, _ in found) - self._max_bytes
            for _, size, path, over in sorted(found):
                if over or excess > 0:
                    Path(path).unlink(missing_ok=True)
                    excess -= size

    def _is_over(self, entry: os.DirEntry[str], now: float) -> bool:
        """What is being written, or was when its writer died, has no time yet: it goes by its age alone."""
        if entry.name.startswith(_TEMPORARY):
            return False
        with open(entry.path, "rb") as file:
            return bool(_EXPIRY.unpack(file.read(_EXPIRY.size))[0] <= now)


def _on_disk(size_bytes: int) -> int:
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES
