"""Names that one process of the machine has for itself: each is the lock of one byte of a file, freed by the kernel at its death."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from gateway.sharing.machine_region import lock_of_byte

# Of so many bytes, which need not be there: that two of a million names share one is less likely than a hit by lightning.
_BYTES = 2**62


class Claims:
    """The locks do not exclude within the process that holds them, so it remembers its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._own: dict[str, asyncio.TimerHandle] = {}

    def open(self) -> None:
        """Raises OSError."""
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def close(self) -> None:
        """Every claim is given up."""
        for name in list(self._own):
            self.release(name)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def claim(self, name: str, ttl_s: float) -> bool:
        """True as well where the file is not open, or the system has no locks to give: this process then decides alone."""
        if name in self._own:
            return False
        try:
            self._lock(fcntl.F_WRLCK, name)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            pass
        self._own[name] = asyncio.get_running_loop().call_later(ttl_s, self.release, name)
        return True

    def release(self, name: str) -> None:
        ends = self._own.pop(name, None)
        if ends is None:
            return
        ends.cancel()
        with suppress(OSError):
            self._lock(fcntl.F_UNLCK, name)

    def _lock(self, kind: int, name: str) -> None:
        if self._file >= 0:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, lock_of_byte(kind, _place(name)))


def _place(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") % _BYTES
