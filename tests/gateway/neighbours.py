"""Processes that serve together, in one: each with a gateway of its own, all with one vendor and one clock."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from core.clock import FrozenClock
from gateway.manager import Manager
from gateway.pipeline import Pipeline
from gateway.sharing.peers import Heard, Peers
from tests.gateway.scripted import Bench, Steady


class Town:
    """What all of its peers have in common. `deaf`: nothing that is told arrives."""

    def __init__(self, clock: FrozenClock) -> None:
        self.clock = clock
        self.claims: dict[str, tuple[float, Peer]] = {}
        self.asked: list[str] = []
        self.laid: dict[str, tuple[float, bytes]] = {}
        self.told: list[Mapping[str, Any]] = []
        self.peers: list[Peer] = []
        self.deaf = False

    def peer(self) -> Peer:
        self.peers.append(Peer(self))
        return self.peers[-1]


class Peer:
    """See `gateway.sharing.peers.Peers`."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self.listeners: dict[str, Heard] = {}

    async def claim(self, name: str, ttl_s: float) -> bool:
        town = self._town
        town.asked.append(name)
        await asyncio.sleep(0)
        if town.claims.get(name, (0.0, None))[0] > town.clock.monotonic():
            return False
        town.claims[name] = (town.clock.monotonic() + ttl_s, self)
        return True

    def release(self, name: str) -> None:
        if self._town.claims.get(name, (0.0, None))[1] is self:
            del self._town.claims[name]

    def tell(self, kind: str, message: Mapping[str, Any]) -> None:
        self._town.told.append(message)
        if self._town.deaf:
            return
        for peer in self._town.peers:
            if peer is not self and kind in peer.listeners:
                asyncio.get_running_loop().call_soon(peer.listeners[kind], message)

    def listen(self, kind: str, heard: Heard) -> None:
        self.listeners[kind] = heard

    async def lay(self, name: str, value: bytes, ttl_s: float) -> None:
        await asyncio.sleep(0)
        self._town.laid[name] = (self._town.clock.monotonic() + ttl_s, value)

    async def look(self, name: str) -> bytes | None:
        await asyncio.sleep(0)
        until, value = self._town.laid.get(name, (0.0, b""))
        return value if until > self._town.clock.monotonic() else None


def processes(monkeypatch: Any, town: Town, number: int, peers: Sequence[Peers] = (), **bench: Any) -> list[Bench]:
    """They share `scripts`; all else is their own. `peers`: others than the town's."""
    made = []
    for peer in peers or [town.peer() for _ in range(number)]:
        one = Bench(monkeypatch, **bench)
        one.clock = town.clock
        one.peers = peer  # type: ignore[attr-defined]
        one.manager = Manager(transport=None, clock=town.clock, queue_timeout_s=1, rng=Steady(), peers=one.peers)  # type: ignore[arg-type, attr-defined]
        one.pipeline = Pipeline(one.manager, one.sink, town.clock, max_retries=2, max_in_flight=1000)
        one.manager.apply(one.snapshot)
        made.append(one)
    for one in made:
        one.scripts, one.responses = made[-1].scripts, made[-1].responses
    return made


async def turns(number: int = 30) -> None:
    """Lets everything that can go on do so."""
    for _ in range(number):
        await asyncio.sleep(0)
