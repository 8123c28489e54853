"""Limits that all worker processes of one machine share, on the numbers of a `Region`.

Each is the limit of `gateway.limits` or `gateway.rates`, with its numbers elsewhere and a lock around what reads and writes
them: the logic is there. A limit that the region has no room for is held by each process apart, divided by their number.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from core.config import LimitSpec, RateSpec
from core.errors import GatewayError
from gateway.limits import MINUTE_S, Gate, Local, Slots, fresh_rate, one_of
from gateway.rates import Bucket, Rate, shared_out
from gateway.sharing.machine_adaptive import ADAPTIVE_DOUBLES, SharedAdaptive
from gateway.sharing.machine_bucket import BUCKET_DOUBLES, SharedBucket
from gateway.sharing.machine_directory import RegionFull
from gateway.sharing.machine_folder import FOLDER_VARIABLE, WORKERS_VARIABLE
from gateway.sharing.machine_region import Cell, Region
from gateway.sharing.machine_window import Shared, SharedWindow

_log = logging.getLogger(__name__)
# Another process's call makes no sound here when it ends.
_LOOK_S = 0.01
# A window may take such a part of the region.
_LARGEST_SHARE = 4


class SharedGate(Gate, Shared):
    """`take` of its buckets is only called with its lock held."""

    __slots__ = ("_cell", "_seen")

    def __init__(self, cell: Cell, holder: str, limits: LimitSpec, error: type[GatewayError], now: float) -> None:
        self._cell, self._seen = cell, 0
        with cell:
            super().__init__(holder, LimitSpec(), error)
            self.apply(holder, limits, now)

    @property
    def in_flight(self) -> int:
        self._seen = self._cell.total(self.limits.max_concurrency or 0)
        return self._seen

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        self._cell.own += value - self._seen

    def apply(self, holder: str, limits: LimitSpec, now: float) -> None:
        with self._cell:
            super().apply(holder, limits, now)

    def enter(self, tokens: int, now: float) -> None:
        with self._cell:
            super().enter(tokens, now)

    def note(self, tokens: int, now: float) -> None:
        with self._cell:
            super().note(tokens, now)

    def leave(self, estimated_tokens: int, used_tokens: int, now: float) -> None:
        with self._cell:
            super().leave(estimated_tokens, used_tokens, now)

    def undo(self, tokens: int) -> None:
        with self._cell:
            super().undo(tokens)

    def _bucket(self, number: int, limit: int, now: float) -> Bucket:
        return SharedBucket(self._cell, number * BUCKET_DOUBLES, limit, limit / MINUTE_S, now)


class SharedSlots(Slots, Shared):
    """In order of arrival among the waiters of one process; between processes, whoever looks first. A limit that one of them
    sets is everybody's."""

    __slots__ = ("_cell", "_look", "_own_limit", "_seen")

    def __init__(self, cell: Cell) -> None:
        self._cell, self._seen = cell, 0
        self._look: asyncio.TimerHandle | None = None
        self.apart = True  # a worker that comes later leaves the limit as it is
        super().__init__(0)

    @property
    def limit(self) -> int:
        return self._own_limit if self.apart else int(self._cell.values[0])

    @limit.setter
    def limit(self, value: int) -> None:
        if self.apart:
            self._own_limit = value
        else:
            self._cell.values[0] = value

    @property
    def in_flight(self) -> int:
        self._seen = int(self._cell.own) if self.apart else self._cell.total(self.limit)
        return self._seen

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        self._cell.own += value - self._seen

    def try_take(self) -> bool:
        with self._cell:
            return super().try_take()

    async def wait(self, timeout_s: float, provider: str) -> None:
        self._look_later()
        await super().wait(timeout_s, provider)

    def _wake(self) -> None:
        with self._cell:
            super()._wake()

    def _look_later(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(_LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._wake()
        if self._waiting:
            self._look_later()


class Machine(Local):
    """Makes limits for one of `workers` processes. `region` None = each holds its part of a limit."""

    def __init__(self, region: Region | None, workers: int) -> None:
        self.workers = workers
        self.region = region
        self._complained = False

    def parts(self, limit: object) -> int:
        return 1 if isinstance(limit, Shared) else self.workers

    def keeps(self, limit: object, spec: LimitSpec | RateSpec) -> bool:
        """A gate without limits is no shared one, and is replaced when it gets some; a window of another size is in another block,
        where a worker that comes later looks for it."""
        if isinstance(limit, SharedWindow) and isinstance(spec, RateSpec):
            return SharedWindow.doubles_for(int(spec.capacity)) == limit.doubles
        if isinstance(limit, Gate) and isinstance(spec, LimitSpec) and not isinstance(limit, Shared):
            return limit.limits.limits_something or not spec.limits_something
        return True

    def gate(self, name: str, holder: str, limits: LimitSpec, error: type[GatewayError], now: float, machines: int) -> Gate:
        if limits.limits_something and (cell := self._cell("gate:" + name, 2 * BUCKET_DOUBLES, tallied=True)):
            return SharedGate(cell, holder, one_of(limits, machines), error, now)
        return Gate(holder, one_of(limits, machines * self.workers), error)

    def rate(self, name: str, spec: RateSpec, now: float, machines: int) -> Rate:
        part = shared_out(spec, machines)
        if spec.type == "token_bucket" and (cell := self._cell("bucket:" + name, BUCKET_DOUBLES)):
            return SharedBucket(cell, 0, part.capacity, part.refill_rate or part.capacity, now)
        if spec.type == "adaptive" and (cell := self._cell("adaptive:" + name, ADAPTIVE_DOUBLES, tallied=True)):
            return SharedAdaptive(cell, part, now)
        if spec.type == "sliding_window":
            doubles = SharedWindow.doubles_for(int(spec.capacity))  # the part of one machine may become the whole
            if cell := self._cell(f"window:{name}:{doubles}", doubles):
                return SharedWindow(cell, part)
        return fresh_rate(shared_out(spec, machines * self.workers))

    def slots(self, name: str) -> Slots:
        cell = self._cell("slots:" + name, 1, tallied=True)
        return SharedSlots(cell) if cell else Slots(0)

    def _cell(self, name: str, doubles: int, *, tallied: bool = False) -> Cell | None:
        if self.region is None:
            return None
        try:
            if doubles * _LARGEST_SHARE > len(self.region.doubles):
                raise RegionFull("it is too large")
            return self.region.cell(name, doubles, tallied=tallied)
        except RegionFull as exc:
            if not self._complained:
                self._complained = True
                _log.warning(
                    "a limit cannot be shared by the workers (%s), nor perhaps others after it: each worker holds limit ÷ %d; "
                    "set LLM_SHARED_LIMITS_BYTES higher",
                    str(exc),  # the exception itself would keep alive whoever asked
                    self.workers,
                )
            return None


def joined() -> Local:
    """The limits of this process, as its supervisor has arranged it (`machine_folder.shared_folder`)."""
    workers = int(os.environ.get(WORKERS_VARIABLE, "1"))
    if workers == 1:
        return Local()
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        return Machine(None, workers)  # the supervisor has said why
    try:
        region = Region(Path(folder) / "limits")
        region.take_column()
    except (OSError, ValueError, RegionFull) as exc:
        _log.warning("this worker does not share its limits (%s): it holds limit ÷ %d", exc, workers)
        return Machine(None, workers)
    return Machine(region, workers)
