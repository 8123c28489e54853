"""What is learnt of a vendor's limits, by all worker processes of one machine together: one that is full would starve the others."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from core.config import RateSpec
from gateway.adaptive import Adaptive
from gateway.sharing.machine_bucket import BUCKET_DOUBLES, SharedBucket
from gateway.sharing.machine_region import Cell
from gateway.sharing.machine_window import Shared

# Behind the bucket: whether anything is there yet, and `Adaptive.numbers`.
_FILLED, _NUMBERS = BUCKET_DOUBLES, BUCKET_DOUBLES + 1
ADAPTIVE_DOUBLES = _NUMBERS + 22


class SharedAdaptive(Adaptive, Shared):
    """Its numbers are in `cell`: taken from there before anything is done with them, and laid back after. What the vendor
    stated to this process stays with it: the others hear the same."""

    __slots__ = ("_cell", "_inside", "_seen")

    def __init__(self, cell: Cell, spec: RateSpec, now: float) -> None:
        self._cell, self._inside, self._seen = cell, False, 0
        super().__init__(spec)
        with cell:
            self._bucket = SharedBucket(cell, 0, self._bucket.capacity, self._bucket.rate, now)
            if not cell.values[_FILLED]:
                cell.values[_FILLED] = 1.0
                self._lay_back()
            self.resize(spec, now)

    @property
    def in_flight(self) -> int:
        self._seen = self._cell.total(int(self._flight.level))
        return self._seen

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        self._cell.own += value - self._seen

    @property
    def concurrency(self) -> int:
        with self._held():
            return super().concurrency

    @property
    def calls_per_s(self) -> float:
        with self._held():
            return super().calls_per_s

    def resize(self, spec: RateSpec, now: float) -> None:
        with self._held():
            super().resize(spec, now)

    def book(self, amount: int, now: float) -> float:
        with self._held():
            return super().book(amount, now)

    def began(self) -> int:
        with self._held():
            return super().began()

    def succeeded(self, among: int, booked_at: float, now: float, who: Hashable = None, stated: float | None = None) -> None:
        with self._held():
            super().succeeded(among, booked_at, now, who, stated)

    def limited(self, among: int, booked_at: float, now: float, rest_s: float = 0.0) -> None:
        with self._held():
            super().limited(among, booked_at, now, rest_s)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Inside, its own numbers are those of all."""
        if self._inside:
            yield
            return
        with self._cell:
            self._inside = True
            self.recall(self._cell.values[_NUMBERS:].tolist())
            try:
                yield
            finally:
                self._lay_back()
                self._inside = False

    def _lay_back(self) -> None:
        for at, number in enumerate(self.numbers(), start=_NUMBERS):
            self._cell.values[at] = number
