"""One trial over all processes: of a vendor whose breaker is half open, and of a key that was refused.

Within a process breaker and key admit one call by themselves; that call claims the trial before it is made, so that no other
process makes one. Where nothing is wrong, nothing is asked.
"""

from __future__ import annotations

from core.clock import Clock
from gateway.breaker import BreakerGate
from gateway.keypool import Key
from gateway.sharing.peers import Peers


class Trials:
    """Of one provider."""

    def __init__(self, provider_id: str, peers: Peers, clock: Clock) -> None:
        self._provider_id = provider_id
        self._peers = peers
        self._clock = clock

    async def begin(self, key: Key, model_id: str, breaker: BreakerGate, ttl_s: float) -> tuple[str, ...] | None:
        """What was claimed for a call that tries something, to be handed to `end`; () = it tries nothing. None = it must not be
        made: another process tries, or has just told what became of it, and breaker and key say how long to wait."""
        rejected, tries_vendor = key.rejected, not breaker.closed
        if rejected is None and not tries_vendor:
            return ()
        if rejected is not None:
            rejected.trial_running = True
        if tries_vendor:
            breaker.enter()
        claimed: list[str] = []
        begun = False
        try:
            if rejected is not None and not await self._claim(f"trial:{self._provider_id}:{key.id}", ttl_s, claimed):
                rejected.tried_elsewhere(self._clock.monotonic())
                return None
            if tries_vendor and not await self._claim(f"trial:{self._provider_id}:{key.id}:{model_id}", ttl_s, claimed):
                breaker.tried_elsewhere(self._clock.monotonic())
                return None
            begun = key.rejected is rejected and breaker.trying is tries_vendor
            return tuple(claimed) if begun else None
        finally:
            if not begun:
                if rejected is not None:
                    rejected.trial_running = False
                if tries_vendor:
                    breaker.neutral(True)
                self.end(tuple(claimed))

    def end(self, claimed: tuple[str, ...]) -> None:
        """After the outcome was told: who claims next is to know of it."""
        for name in claimed:
            self._peers.release(name)

    async def _claim(self, name: str, ttl_s: float, claimed: list[str]) -> bool:
        if not await self._peers.claim(name, ttl_s):
            return False
        claimed.append(name)
        return True
