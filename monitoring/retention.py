"""Old rows of the ledger go, in small batches; their rollups stay.

By batch on Postgres too: partitions would have to be made ahead of time, and a table that is already full would have to be
written anew to get them. A batch is found by the index on the moment and holds its locks for milliseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.db import models, transaction

from core.clock import Clock
from monitoring.budget_retention import drop_closed_accounts, prune_entries
from monitoring.models import BudgetEntry, Pruned, RequestLog, UsageRecord

ROWS_PER_BATCH = 500
INTERVAL_S = 3600.0
_BATCHES_PER_STEP = 4


def prune_batch(before: datetime) -> int:
    """Deletes up to ROWS_PER_BATCH rows of each table that began before that moment; returns how many. Raises DatabaseError."""
    with transaction.atomic():
        _remember(before)
        gone = sum(_delete(model, before) for model in (UsageRecord, RequestLog))
    return gone + prune_entries(before)


def _delete(model: type[models.Model], before: datetime) -> int:
    old = model._default_manager.filter(started_at__lt=before).order_by("started_at").values_list("pk", flat=True)
    return model._default_manager.filter(pk__in=list(old[:ROWS_PER_BATCH])).delete()[0]


def _remember(before: datetime) -> None:
    """The days before this one are not whole any more, so nobody compares them with their rollups."""
    known, _ = Pruned.objects.get_or_create(pk=1, defaults={"before": before})
    if known.before < before:
        Pruned.objects.filter(pk=1, before__lt=before).update(before=before)


def first_kept_day(now: datetime, days: int) -> datetime:
    """Whole days are kept, in UTC: today and `days` before it."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)


class Pruner:
    """Deletes once an hour what is older than `days` (0 = nothing), a few batches at each `step` until nothing is left of it."""

    def __init__(self, days: int, clock: Clock) -> None:
        self._days = days
        self._clock = clock
        self._due_s = clock.monotonic()

    def step(self) -> int:
        """Bounded work; returns how many rows went. Raises DatabaseError."""
        if not self._days or self._clock.monotonic() < self._due_s:
            return 0
        before = first_kept_day(datetime.fromtimestamp(self._clock.wall(), UTC), self._days)
        gone = 0
        for _ in range(_BATCHES_PER_STEP):
            if not self._exists(before):
                drop_closed_accounts(before)
                self._due_s = self._clock.monotonic() + INTERVAL_S
                break
            gone += prune_batch(before)
        return gone

    def _exists(self, before: datetime) -> bool:
        return any(model.objects.filter(started_at__lt=before).exists() for model in (UsageRecord, RequestLog, BudgetEntry))
