"""The moment at which all rules are judged, and what several of them read, read once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from typing import Any, TypeVar

T = TypeVar("T")


class Moment:
    """`now` in wall seconds."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.at = datetime.fromtimestamp(now, UTC)
        self._found: dict[Hashable, Any] = {}

    def once(self, what: Hashable, read: Callable[[], T]) -> T:
        """What `read` found the first time that `what` was asked for."""
        if what not in self._found:
            self._found[what] = read()
        found: T = self._found[what]
        return found
