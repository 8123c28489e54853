"""How fast and how busy a model is, as this process sees it: measured on what callers send, never by calls of our own."""

from __future__ import annotations

from collections.abc import Iterable

from core.config import Snapshot
from core.usage import Usage

# A new measurement counts for a fifth, and for more the older the average is: for half after a minute.
_LEAST_SHARE = 0.2
_HALF_LIFE_S = 60.0
# What was measured longer ago says nothing any more.
STALE_S = 600.0
_NAMED_BY = frozenset({"speed", "least_busy"})


class Vitals:
    """Of one model at one provider. Each `in_flight += 1` is followed by one `ended`. Times in monotonic seconds."""

    __slots__ = ("_first_token_s", "_measured_at", "_tokens_per_s", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self._first_token_s: float | None = None
        self._tokens_per_s: float | None = None
        self._measured_at = 0.0

    def ended(self, now: float, began_s: float, first_token_s: float | None, usage: Usage | None) -> None:
        """`usage` None: it failed, or the client left, and nothing is learnt of its speed. `first_token_s` None: it was no stream."""
        self.in_flight -= 1
        if usage is None:
            return
        share = max(_LEAST_SHARE, 1 - 0.5 ** ((now - self._measured_at) / _HALF_LIFE_S))
        writing_s = now - began_s
        if first_token_s is not None:
            self._first_token_s = _mixed(self._first_token_s, first_token_s - began_s, share)
            writing_s = now - first_token_s
        if usage.completion_tokens and writing_s > 0:
            self._tokens_per_s = _mixed(self._tokens_per_s, usage.completion_tokens / writing_s, share)
        self._measured_at = now

    def expected_s(self, now: float, output_tokens: int) -> float | None:
        """Until an answer of that length is whole; None = nothing was measured lately."""
        known = self._first_token_s is not None or self._tokens_per_s is not None
        if not known or now - self._measured_at > STALE_S:
            return None
        writing_s = output_tokens / self._tokens_per_s if self._tokens_per_s else 0.0
        return (self._first_token_s or 0.0) + writing_s


def measured(snapshot: Snapshot) -> Iterable[str]:
    """Ids of the models whose vitals some route goes by."""
    for route in snapshot.routes.values():
        if route.strategy in _NAMED_BY:
            yield from (model.id for alias in route.targets for model in snapshot.models.get(alias, ()))


def _mixed(average: float | None, value: float, share: float) -> float:
    return value if average is None else average + share * (value - average)
