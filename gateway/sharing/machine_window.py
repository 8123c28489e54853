"""A sliding window that all worker processes of one machine share."""

from __future__ import annotations

from collections.abc import Iterator

from core.config import RateSpec
from gateway.rates import EPSILON_S, Window
from gateway.sharing.machine_region import PATIENCE_S, Cell

# Places that were given back, for which there is room.
_MAX_FREED = 64
_BEFORE_STARTS = 3 + _MAX_FREED


class Shared:
    """Marks a limit that is one and the same in all processes of the machine."""

    __slots__ = ()


class Ring:
    """`gateway.rates.Moments` in a cell: the place of the first, how many, and room for `size`. The oldest make way."""

    __slots__ = ("_values", "size")

    def __init__(self, values: memoryview[float]) -> None:
        self._values = values
        self.size = len(values) - _BEFORE_STARTS

    def __len__(self) -> int:
        return int(self._values[1])

    def __getitem__(self, index: int) -> float:
        return self._values[self._at(index)]

    def __delitem__(self, index: int) -> None:
        for later in range(index, len(self) - 1):
            self._values[self._at(later)] = self[later + 1]
        self._values[1] -= 1

    def __iter__(self) -> Iterator[float]:
        return (self[index] for index in range(len(self)))

    def __reversed__(self) -> Iterator[float]:
        return (self[index] for index in range(len(self) - 1, -1, -1))

    def append(self, moment: float) -> None:
        if len(self) == self.size:
            self.popleft()
        self._values[1] += 1
        self._values[self._at(-1)] = moment

    def popleft(self) -> float:
        moment = self[0]
        self._values[0] = (self._values[0] + 1) % self.size
        self._values[1] -= 1
        return moment

    def _at(self, index: int) -> int:
        if index < 0:
            index += int(self._values[1])
        return _BEFORE_STARTS + (int(self._values[0]) + index) % self.size


class SharedWindow(Window, Shared):
    """Places that were given back are few, and read and written whole."""

    __slots__ = ("_cell", "doubles")

    def __init__(self, cell: Cell, spec: RateSpec) -> None:
        super().__init__(spec)
        self._cell = cell
        self._starts = Ring(cell.values)
        self.doubles = len(cell.values)

    @staticmethod
    def doubles_for(capacity: int) -> int:
        """A power of two for the starts: small changes of the capacity find the same block."""
        return _BEFORE_STARTS + (1 << (capacity + _MAX_FREED - 1).bit_length())

    def book(self, amount: int, now: float) -> float:
        with self._cell:
            self._load()
            wait_s = super().book(amount, now)
            self._store()
            # Between our look at the clock and our lock another process may have begun a call: that one is no queue.
            return 0.0 if wait_s < PATIENCE_S and self._has_room(now) else wait_s

    def give_back(self, amount: int, start_at: float) -> None:
        with self._cell:
            self._load()
            super().give_back(amount, start_at)
            self._store()

    def used(self, now: float) -> int:
        with self._cell:
            self._load()
            return super().used(now)

    def _has_room(self, now: float) -> bool:
        """Whether the last start, and so any before it, was possible now."""
        starts = self._starts
        return len(starts) <= self.capacity or starts[-1 - self.capacity] + self.window_s <= now + EPSILON_S

    def _load(self) -> None:
        values = self._cell.values
        self._freed = list(values[3 : 3 + int(values[2])]) if values[2] else []

    def _store(self) -> None:
        """Places beyond the room stay taken until they leave the window. The front of a heap is a heap."""
        values, freed = self._cell.values, self._freed[:_MAX_FREED]
        values[2] = len(freed)
        for index, start_at in enumerate(freed, 3):
            values[index] = start_at
