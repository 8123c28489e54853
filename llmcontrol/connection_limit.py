"""How many connections one client address, and all of them, may hold at a worker.

An attacker's cheapest weapon is a connection that sends nothing: deadlines bound how long it lasts, this bounds how many.
Addresses behind which many clients stand, such as a reverse proxy's, are not limited one by one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from core.addresses import Network, is_within, party, read_address

_log = logging.getLogger(__name__)
_WARN_EVERY_S = 10.0


class ConnectionLimit:
    """0 = no limit. Loopback and `exempt` are limited in all, but not by address."""

    def __init__(
        self, per_address: int = 0, in_all: int = 0, exempt: Sequence[Network] = (), now: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_address = per_address
        self._in_all = in_all
        self._exempt = exempt
        self._now = now
        self._counts: dict[str, int] = {}
        self._count = 0
        self._refused = 0
        self._warned_s = float("-inf")

    def enter(self, address: str) -> bool:
        """False where there is no room. Otherwise `leave` must follow, with the same address."""
        who = party(address)
        count = self._counts.get(who, 0)
        if self._in_all and self._count >= self._in_all:
            self._warn(f"this worker holds {self._count} connections, its limit (LLM_MAX_CONNECTIONS)")
            return False
        if self._per_address and count >= self._per_address and not self._is_exempt(address):
            self._warn(f"{who} holds {count} connections, its limit (LLM_MAX_CONNECTIONS_PER_ADDRESS; see LLM_TRUSTED_PROXIES)")
            return False
        self._counts[who] = count + 1
        self._count += 1
        return True

    def leave(self, address: str) -> None:
        who = party(address)
        self._count -= 1
        self._counts[who] -= 1
        if not self._counts[who]:
            del self._counts[who]

    def _is_exempt(self, address: str) -> bool:
        """Asked only of addresses that are at their limit."""
        ip = read_address(address)
        return ip is None or ip.is_loopback or is_within(address, self._exempt)  # a UNIX socket has no address

    def _warn(self, why: str) -> None:
        self._refused += 1
        if self._now() - self._warned_s >= _WARN_EVERY_S:
            _log.warning("%d connections refused: %s", self._refused, why)
            self._warned_s, self._refused = self._now(), 0
