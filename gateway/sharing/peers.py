"""The other processes that serve with this one, whichever machine they are on: what can be claimed, told, and laid down for them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

Heard = Callable[[Mapping[str, Any]], None]
# What is laid down under such a name can be made again at any time.
CACHE_PREFIX = "cache:"


class Peers(Protocol):
    """Nothing here raises, and nothing takes longer than a twentieth of a second: where nobody can be asked, this process decides alone."""

    async def claim(self, name: str, ttl_s: float) -> bool:
        """True = `name` is this process's until `release`, or its end, or `ttl_s`. False = another one has it."""
        ...

    def release(self, name: str) -> None:
        """Of what was claimed; anything else is left alone."""
        ...

    def tell(self, kind: str, message: Mapping[str, Any]) -> None:
        """To every other process, not to this one; soon, and perhaps not at all. `message` is what JSON can hold."""
        ...

    def listen(self, kind: str, heard: Heard) -> None:
        """`heard` is called on the loop with each message of `kind`; one listener for each kind."""
        ...

    async def lay(self, name: str, value: bytes, ttl_s: float) -> None:
        """Kept for every process for `ttl_s`, or shorter where room is short."""
        ...

    async def look(self, name: str) -> bytes | None:
        """What was laid down under `name`."""
        ...


class Alone:
    """A process without peers."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, max_laid: int = 10_000, max_laid_bytes: int = 32 * 2**20) -> None:
        self._monotonic = monotonic
        self._max_laid = max_laid
        self._room_bytes = max_laid_bytes
        self._claims: dict[str, float] = {}
        self._laid: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def claim(self, name: str, ttl_s: float) -> bool:
        now = self._monotonic()
        if self._claims.get(name, 0.0) > now:
            return False
        self._claims[name] = now + ttl_s
        return True

    def release(self, name: str) -> None:
        self._claims.pop(name, None)

    def tell(self, kind: str, message: Mapping[str, Any]) -> None:
        """Nobody is there to hear it."""

    def listen(self, kind: str, heard: Heard) -> None:
        """Nobody is there to speak."""

    async def lay(self, name: str, value: bytes, ttl_s: float) -> None:
        _, before = self._laid.pop(name, (0.0, b""))
        self._laid[name] = (self._monotonic() + ttl_s, value)
        self._room_bytes += len(before) - len(value)
        while self._laid and (len(self._laid) > self._max_laid or self._room_bytes < 0):
            self._room_bytes += len(self._laid.popitem(last=False)[1][1])

    async def look(self, name: str) -> bytes | None:
        expires_s, value = self._laid.get(name, (0.0, b""))
        return value if expires_s > self._monotonic() else None
