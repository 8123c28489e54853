"""Durations counted by size: 28 classes from 16 ms to two minutes, each √2 as wide as the one before, so that counts of any rows
can be added up and still tell a median.

An estimate taken from them lies in the right class: at most 41 % off, and a few per cent where a class holds many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from operator import mul

CLASSES = 28
# The bits of a square grow by one for each factor of √2. Below 16 ms all is one class, and from 131 s on.
_FIRST_BITS = 8


def counts(durations_ms: Sequence[int]) -> list[int]:
    """How many fall into each class."""
    found = [0] * CLASSES
    for square_bits, count in Counter(map(int.bit_length, map(mul, durations_ms, durations_ms))).items():
        found[min(max(square_bits - _FIRST_BITS, 0), CLASSES - 1)] += count
    return found


def quantile(counted: Sequence[int], share: float) -> int | None:
    """The duration in ms that `share` (0 to 1) of all stay below; None of nothing. In the last class: where that begins."""
    rank, below = share * sum(counted), 0
    for number, count in enumerate(counted):
        if count and below + count >= rank:
            low, high = _edges(number)
            return int(low + (high - low) * (rank - below) / count)
        below += count
    return None


def _edges(number: int) -> tuple[float, float]:
    high = sqrt(2 ** (number + _FIRST_BITS))
    low = high / sqrt(2) if number else 0.0
    return (low, low) if number == CLASSES - 1 else (low, high)
