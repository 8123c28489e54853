"""How many tasks may run at once over all workers: of each type (LLM_TASK_LIMITS, and the rows of types that were added), and in all.

Counted in the transaction that claims.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from django.conf import settings
from django.db import connection
from django.db.models import Count, QuerySet

from tasks.kinds import KINDS
from tasks.models import Task, TaskType
from tasks.states import Status

ALL = "*"
# Any number that no other advisory lock of this database has.
_LOCK = 7_261_500_401


def alone() -> None:
    """Until the end of the transaction, nobody else counts the queue. On SQLite, who writes is alone anyway."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def admitted(due: QuerySet[Task], most: int) -> list[Task]:
    """Of these, in their order, as many as there is room for."""
    bounds = _bounds()
    if not bounds:
        return list(due[:most])
    alone()
    counts = Task.objects.filter(status=Status.RUNNING).order_by().values_list("kind").annotate(Count("pk"))
    running: Mapping[str, int] = dict(counts)
    room = min(most, bounds.get(ALL, most + sum(running.values())) - sum(running.values()))
    if room <= 0:
        return []
    limited = [name for name in bounds if name != ALL]
    found = [due.exclude(kind__in=limited)[:room]]
    found += [due.filter(kind=name)[: min(room, left)] for name in limited if (left := bounds[name] - running.get(name, 0)) > 0]
    return sorted(chain(*found), key=lambda row: row.rank)[:room]


def next_in_line(left: Sequence[Task]) -> Iterable[Task]:
    """Tasks that wait for a place which these have left, so that their workers are told: one for each."""
    bounds = _bounds(row.kind for row in left)
    waiting = Task.objects.filter(status=Status.QUEUED).exclude(pk__in=[row.pk for row in left]).order_by("rank")
    for name in bounds:
        places = sum(1 for row in left if name in (row.kind, ALL))
        if places:
            yield from (waiting if name == ALL else waiting.filter(kind=name))[:places]


def _bounds(kinds: Iterable[str] | None = None) -> Mapping[str, int]:
    """Of shipped types the setting says it, of added ones their rows. `kinds`: of these, where they were added; None = of all."""
    bounds: Mapping[str, int] = settings.TASK_LIMITS
    rows = TaskType.objects.filter(max_concurrency__isnull=False).order_by()
    if kinds is not None:
        added = set(kinds) - KINDS.keys()
        rows = rows.filter(name__in=added) if added else rows.none()
    return {**bounds, **{name: most for name, most in rows.values_list("name", "max_concurrency") if most}}
