"""Sums by day and by what requests say of themselves: user, task type and tag. Kept as the rollups are, in the same transaction.

Callers make these words up, so there may be any number of them. Of each team and day each process tells so many combinations apart;
the rest is summed up under `LabelRollup.OTHER`, and no sum is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import add as plus
from operator import sub as minus
from typing import Final

from django.conf import settings

from monitoring import upserts
from monitoring.models import LabelRollup
from monitoring.upserts import Row, Sums

Labels = tuple[str, str, str]  # user, task type, tag
# A rollup's key without its span, its labels, names (as in NAMES), sums (as in SUMS).
Labelled = tuple[Row, Labels, Row, Sequence[int]]

NO_LABELS: Final[Labels] = ("", "", "")
_OTHERS: Final[Labels] = (LabelRollup.OTHER, LabelRollup.OTHER, LabelRollup.OTHER)
KEY: Final = ("start", "team_id", "key_id", "alias", "end_user", "task_type", "tag", "currency", "reporting_currency")
NAMES: Final = ("team_name", "key_name")
_columns = [str(field.column) for field in LabelRollup._meta.concrete_fields if not field.primary_key]
SUMS: Final = tuple(_columns[len(KEY) + len(NAMES) :])
_TABLE: Final = Sums(LabelRollup, KEY, NAMES, (), SUMS, at_once=128)
_DAY_S = 86_400
_TEAMS_AND_DAYS_KNOWN = 512


def add(whole: Iterable[Labelled], labelled: Iterable[Labelled]) -> None:
    """Counts `whole`, everything, under no labels, and of that `labelled` under its labels. Called inside a transaction; raises
    DatabaseError. Nearly all requests say nothing of themselves: those cost nothing here beyond what they cost the rollups."""
    days: dict[Row, tuple[Row, list[int]]] = {}
    for key, labels, names, sums in whole:
        _count(days, _key(key, labels), names, sums, plus)
    for key, labels, names, sums in labelled:
        _count(days, _key(key, NO_LABELS), names, sums, minus)
        _count(days, _key(key, labels), names, sums, plus)
    rows = [(key[0] * _DAY_S, *key[1:], *names, *sums) for key, (names, sums) in sorted(days.items()) if any(sums)]
    upserts.add(_TABLE, rows)


def _key(key: Row, labels: Labels) -> Row:
    hour, team_id, key_id, _, alias, _, _, _, currency, reporting = key
    day = hour // 24
    return (day, team_id, key_id, alias, *_told_apart(day, team_id, labels), currency, reporting)


def _count(days: dict[Row, tuple[Row, list[int]]], key: Row, names: Row, sums: Sequence[int], how: Callable[[int, int], int]) -> None:
    so_far = days[key][1] if key in days else [0] * len(SUMS)
    days[key] = names, list(map(how, so_far, sums))


def _told_apart(day: int, team_id: str, labels: Labels) -> Labels:
    if labels == NO_LABELS:
        return labels
    known = _known(day, team_id)
    if labels not in known:
        if len(known) >= settings.MAX_LABELS_PER_DAY:
            return _OTHERS
        known.add(labels)
    return labels


@lru_cache(maxsize=_TEAMS_AND_DAYS_KNOWN)
def _known(day: int, team_id: str) -> set[Labels]:
    """What is told apart of that team on that day; grows. Asked of the database once."""
    rows = LabelRollup.objects.filter(start=_moment(day), team_id=team_id).exclude(end_user="", task_type="", tag="")
    return set(rows.order_by().values_list("end_user", "task_type", "tag").distinct()) - {_OTHERS}


def forget() -> None:
    """After rows were deleted."""
    _known.cache_clear()


def _moment(day: int) -> datetime:
    return datetime.fromtimestamp(day * _DAY_S, UTC)
