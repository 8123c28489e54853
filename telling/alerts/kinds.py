"""What a rule can be about: its words, unit and bounds. What each reads is in `conditions.py`, of the same names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from django.utils.translation import gettext_lazy

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


class Kind(NamedTuple):
    """`states`: it is about what is, not about a window of time. `inclusive`: it fires at the threshold, not only beyond it."""

    label: str
    unit: str
    low: float
    high: float
    per_provider: bool = False
    states: bool = False
    inclusive: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    "error_rate": Kind("Error rate", "% of the requests", 0, 100, per_provider=True),
    "p95_duration": Kind("p95 of durations", "seconds", 0, 130, per_provider=True),
    "call_cost": Kind("Cost of one call", "units of the reporting currency", 0, 1_000_000),
    "budget": Kind("Budget used", "% of its limit", 1, 1000, states=True, inclusive=True),
    "breaker_open": Kind("Breaker open", "breakers of a provider", 0, 10_000, states=True),
    "key_rejected": Kind("Key rejected", "keys of a provider", 0, 10_000, states=True),
    "usage_missing": Kind("Usage missing", "% of a provider's answers", 0, 100),
    "queue_delay": Kind("Queue delay", "seconds that a task has waited", 0, 86_400, states=True),
    "journal_backlog": Kind("Journal backlog", "MiB in one process", 0, 1_000_000, states=True),
}


def choices() -> list[tuple[str, StrOrPromise]]:
    return [(name, gettext_lazy(kind.label)) for name, kind in KINDS.items()]
