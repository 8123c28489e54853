"""Where a budget stands now, and how what was counted is set right."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from access.budget_rules import MAX_SPENT
from access.models import Budget
from core.money import plain
from core.periods import Period, period_at
from monitoring import accounts, audit
from monitoring.models import AuditEvent, BudgetAccount, BudgetEntry

_ASKED_AT_ONCE = 500


class Standing(NamedTuple):
    """In the budget's unit. `reserved` is held by running requests, and by processes for the next ones; `ends_at` None = never."""

    used: int
    reserved: int
    left: int
    alerted_percent: int
    started_at: datetime | None
    ends_at: datetime | None


def standing_of(budget: Budget) -> Standing:
    """In the period of this moment."""
    return standings_of([budget])[budget.pk]


def standings_of(budgets: Sequence[Budget]) -> dict[uuid.UUID, Standing]:
    """Of each by its id, in the period of this moment; in a query for every few hundred of them."""
    now = timezone.now().timestamp()
    periods = {kind: period_at(kind, now) for kind in Budget.Period.values}
    starts, found = {period.start for period in periods.values()}, dict[tuple[str, float], BudgetAccount]()
    for first in range(0, len(budgets), _ASKED_AT_ONCE):
        ids = [str(budget.pk) for budget in budgets[first : first + _ASKED_AT_ONCE]]
        accounts = BudgetAccount.objects.filter(budget_id__in=ids, period_start__in=starts)
        found |= {(account.budget_id, account.period_start): account for account in accounts}
    nothing = BudgetAccount()
    return {
        budget.pk: _standing(budget, period := periods[budget.period], found.get((str(budget.pk), period.start), nothing))
        for budget in budgets
    }


def _standing(budget: Budget, period: Period, account: BudgetAccount) -> Standing:
    left = max(0, budget.limit - account.spent - account.leased)
    begun, ends = (None if budget.period == "total" else datetime.fromtimestamp(edge, UTC) for edge in (period.start, period.end))
    return Standing(account.spent, account.leased, left, account.alerted_percent, begun, ends)


def written(budget: Budget, value: int) -> str:
    """As REST and forms write amounts: '12.5', '1000'."""
    return plain(value) if budget.kind == "money" else str(value)


def correct(budget: Budget, amount: int, note: str) -> BudgetEntry:
    """An entry of its own in the period of this moment; `amount` in the budget's unit, below 0 gives back. Raises ValidationError."""
    if not amount:
        raise ValidationError({"amount": "Write what to add, or with a minus what to give back."})
    if not note.strip():
        raise ValidationError({"note": "Say why, for whoever checks the books."})
    now = timezone.now()
    values: dict[str, Any] = {"budget_id": str(budget.pk), "period_start": period_at(budget.period, now.timestamp()).start}
    with transaction.atomic():
        _refuse_absurd(values, amount)
        accounts.post([accounts.Posting(values["budget_id"], values["period_start"], 0, amount)])
        audit.record(AuditEvent.Action.CORRECTED, budget, {"amount": (None, amount), "note": (None, note.strip()[:200])})
        return BudgetEntry.objects.create(
            **values,
            started_at=now,
            request_id=f"correction-{uuid.uuid4().hex[:24]}",
            attempt=0,
            reserved=0,
            amount=amount,
            state=BudgetEntry.State.CORRECTION,
            note=note.strip()[:200],
        )


def _refuse_absurd(account: dict[str, Any], amount: int) -> None:
    """Raises ValidationError where the column would get near its end: PostgreSQL refuses what goes beyond, SQLite makes a float of it."""
    spent = BudgetAccount.objects.filter(**account).select_for_update().values_list("spent", flat=True).first() or 0
    if abs(spent + amount) > MAX_SPENT:
        raise ValidationError({"amount": "With this, more than four million million would be used, or given back, in this period."})
