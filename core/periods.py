"""When a budget begins anew. All in UTC; a week begins on Monday."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

_DAY_S = 86_400
# 1970 began on a Thursday.
_FIRST_MONDAY_DAY = 4


class Period(NamedTuple):
    """From `start` up to, not including, `end`, in wall seconds; `end` inf = for ever, `start` then 0."""

    start: int
    end: float


def period_at(kind: str, wall_s: float) -> Period:
    """`kind`: day | week | month | total."""
    if kind == "total":
        return Period(0, float("inf"))
    day = int(wall_s // _DAY_S)
    if kind == "day":
        return Period(day * _DAY_S, (day + 1) * _DAY_S)
    if kind == "week":
        monday = day - (day - _FIRST_MONDAY_DAY) % 7
        return Period(monday * _DAY_S, (monday + 7) * _DAY_S)
    first = datetime.fromtimestamp(wall_s, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return Period(int(first.timestamp()), following.timestamp())
