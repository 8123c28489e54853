"""Old budget entries go in small batches; what they amounted to stays with their account, and with it the books in balance."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet, Sum

from monitoring.models import BudgetAccount, BudgetEntry, BudgetLease

ENTRIES_PER_BATCH = 500
# No period but "of all time" is longer.
_LONGEST_PERIOD = timedelta(days=31)


def prune_entries(before: datetime) -> int:
    """Deletes up to ENTRIES_PER_BATCH entries of one account from before that moment; returns how many. Raises DatabaseError."""
    oldest = _before(before).values("budget_id", "period_start").first()
    if oldest is None:
        return 0
    with transaction.atomic():
        BudgetAccount.objects.get_or_create(**oldest)
        # Its lock keeps out whoever would carry the same entries.
        account = BudgetAccount.objects.select_for_update().get(**oldest)
        entries = BudgetEntry.objects.filter(pk__in=list(_before(before).filter(**oldest).values_list("pk", flat=True)[:ENTRIES_PER_BATCH]))
        amount = entries.aggregate(total=Sum("amount"))["total"] or 0
        BudgetAccount.objects.filter(pk=account.pk).update(carried=F("carried") + amount)
        return entries.delete()[0]


def drop_closed_accounts(before: datetime) -> int:
    """Deletes accounts of periods that ended before that moment and of which nothing else is left. Raises DatabaseError."""
    begun = 0, int((before - _LONGEST_PERIOD).timestamp())
    closed = BudgetAccount.objects.filter(period_start__gt=begun[0], period_start__lt=begun[1], leased=0)
    entries = BudgetEntry.objects.filter(budget_id=OuterRef("budget_id"), period_start=OuterRef("period_start"))
    idle = (
        closed.exclude(Exists(entries))
        .exclude(Exists(BudgetLease.objects.filter(account=OuterRef("pk"))))
        .order_by("budget_id", "period_start")
    )
    found = list(idle.values_list("pk", flat=True)[:ENTRIES_PER_BATCH])
    if not found:
        return 0
    with transaction.atomic():
        # Evaluated for the locks alone: what was charged in the meantime is seen after them.
        list(BudgetAccount.objects.filter(pk__in=found).order_by("budget_id", "period_start").select_for_update().values_list("pk"))
        return int(idle.filter(pk__in=found).order_by().delete()[0])


def _before(moment: datetime) -> QuerySet[BudgetEntry]:
    return BudgetEntry.objects.filter(started_at__lt=moment).order_by("started_at")
