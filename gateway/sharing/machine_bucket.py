"""A bucket that all worker processes of one machine share."""

from __future__ import annotations

from gateway.rates import Bucket
from gateway.sharing.machine_region import Cell
from gateway.sharing.machine_window import Shared

BUCKET_DOUBLES = 3


class SharedBucket(Bucket, Shared):
    """Its three numbers are in `cell`, from `first` on. One that comes to numbers that are there keeps what is used of them."""

    __slots__ = ("_cell", "_first", "_values")

    def __init__(self, cell: Cell, first: int, capacity: float, rate: float, now: float) -> None:
        self._cell, self._first, self._values = cell, first, cell.values
        with cell:
            if self.rate:
                self.pace(capacity, rate, now)
            else:
                self.fit(capacity, rate, now)

    @property
    def _full_at(self) -> float:
        return self._values[self._first]

    @_full_at.setter
    def _full_at(self, value: float) -> None:
        self._values[self._first] = value

    @property
    def capacity(self) -> float:
        return self._values[self._first + 1]

    @capacity.setter
    def capacity(self, value: float) -> None:
        self._values[self._first + 1] = value

    @property
    def rate(self) -> float:
        return self._values[self._first + 2]

    @rate.setter
    def rate(self, value: float) -> None:
        self._values[self._first + 2] = value

    def fit(self, capacity: float, rate: float, now: float) -> None:
        """Each process does so when the numbers change; the first one changes them."""
        with self._cell:
            if (capacity, rate) != (self.capacity, self.rate):
                super().fit(capacity, rate, now)

    def pace(self, capacity: float, rate: float, now: float) -> None:
        with self._cell:
            super().pace(capacity, rate, now)

    def book(self, amount: float, now: float) -> float:
        with self._cell:
            return super().book(amount, now)

    def give_back(self, amount: float, start_at: float = 0.0) -> None:
        with self._cell:
            super().give_back(amount, start_at)
