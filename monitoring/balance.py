"""Whether what is kept in two places says the same in both. Read as of one moment of the database, where rows are still added."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db.models import BigIntegerField, Count, Exists, F, Max, OuterRef, Subquery, Sum, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce, TruncHour

from monitoring.models import BudgetAccount, BudgetEntry, BudgetLease, Pruned, RequestLog, Rollup, UsageRecord
from monitoring.moment import one_moment

_SUMS = ("attempts", "cost_micros", "charged_micros")
_NOTHING = {f"sum_{name}": 0 for name in _SUMS}


def differences() -> Iterator[tuple[str, str | None]]:
    """(what was compared, the first difference or None), one after the other. Of what was pruned, only sums are left to compare.

    Raises DatabaseError.
    """
    with one_moment():
        for name, check in _CHECKS.items():
            yield name, check()


def _sum_of(rows: type[BudgetEntry] | type[BudgetLease], amount: Combinable, **of: OuterRef) -> Coalesce:
    sums = rows.objects.filter(**of).order_by().values(*of).annotate(total=Sum(amount)).values("total")
    return Coalesce(Subquery(sums), Value(0), output_field=BigIntegerField())


def _spent() -> str | None:
    total = _sum_of(BudgetEntry, F("amount"), budget_id=OuterRef("budget_id"), period_start=OuterRef("period_start"))
    row = BudgetAccount.objects.annotate(total=total).exclude(spent=F("total") + F("carried")).order_by("pk").first()
    return f"{_account(row)}: {row.spent} are spent, and its entries say {row.total + row.carried}" if row else None


def _leased() -> str | None:
    total = _sum_of(BudgetLease, F("granted") - F("charged"), account=OuterRef("pk"))
    row = BudgetAccount.objects.annotate(total=total).exclude(leased=F("total")).order_by("pk").first()
    return f"{_account(row)}: {row.leased} are leased, and its leases hold {row.total}" if row else None


def _entries_without_account() -> str | None:
    account = BudgetAccount.objects.filter(budget_id=OuterRef("budget_id"), period_start=OuterRef("period_start"))
    row = BudgetEntry.objects.filter(~Exists(account)).order_by("pk").first()
    return f"the entry of attempt {row} is on budget {row.budget_id}, which has no account for its period" if row else None


def _entries_without_attempt() -> str | None:
    attempt = UsageRecord.objects.filter(request_id=OuterRef("request_id"), attempt=OuterRef("attempt"))
    charged = BudgetEntry.objects.filter(started_at__gte=Pruned.kept_from()).exclude(state=BudgetEntry.State.CORRECTION)
    row = charged.filter(~Exists(attempt)).order_by("pk").first()
    return f"the entry on budget {row.budget_id} is of attempt {row}, which has no usage record" if row else None


def _attempts_without_entries() -> str | None:
    entries = BudgetEntry.objects.filter(request_id=OuterRef("request_id"), attempt=OuterRef("attempt")).order_by()
    counted = entries.values("request_id", "attempt").annotate(found=Count("pk")).values("found")
    found = Coalesce(Subquery(counted), Value(0))
    records = UsageRecord.objects.filter(started_at__gte=Pruned.kept_from())
    row = records.annotate(found=found).exclude(budget_entries=F("found")).order_by("pk").first()
    return f"attempt {row} was charged to {row.budget_entries} budgets, and has {row.found} entries" if row else None


def _requests_and_attempts() -> str | None:
    attempts = UsageRecord.objects.filter(request_id=OuterRef("request_id")).order_by()
    last = Coalesce(Subquery(attempts.values("request_id").annotate(last=Max("attempt")).values("last")), Value(0))
    number = Coalesce(Subquery(attempts.values("request_id").annotate(number=Count("pk")).values("number")), Value(0))
    rows = RequestLog.objects.filter(started_at__gte=Pruned.kept_from()).annotate(last=last, number=number)
    row = rows.exclude(attempts=F("number"), last=F("number")).order_by("pk").first()
    return (
        f"request {row} made {row.attempts} attempts, and {row.number} usage records are there, the last of number {row.last}"
        if row
        else None
    )


def _rollups() -> str | None:
    """Hour by hour, from the first whole one that is kept."""
    whole = Pruned.kept_from() + timedelta(hours=1) - timedelta(microseconds=1)
    begin = whole.replace(minute=0, second=0, microsecond=0)
    rollups = Rollup.objects.filter(span_s=Rollup.Span.HOUR, start__gte=begin).order_by().values("start")
    rolled = _by_hour(rollups.annotate(**{f"sum_{name}": Sum(name) for name in _SUMS}))
    usage = UsageRecord.objects.filter(started_at__gte=begin).annotate(start=TruncHour("started_at")).order_by().values("start")
    sums = {"sum_attempts": Count("pk"), **{f"sum_{name}": Coalesce(Sum(name), Value(0)) for name in _SUMS[1:]}}
    counted = _by_hour(usage.annotate(**sums))
    for hour in sorted({*rolled, *counted}):
        for name in _SUMS:
            ours, theirs = (of.get(hour, _NOTHING)[f"sum_{name}"] for of in (rolled, counted))
            if ours != theirs:
                return f"hour {hour:%Y-%m-%d %H}:00 UTC, {name}: the rollup says {ours}, and the usage records {theirs}"
    return None


def _by_hour(rows: Iterable[Any]) -> dict[datetime, dict[str, int]]:
    return {row["start"]: row for row in rows}


def _account(row: BudgetAccount) -> str:
    return f"budget {row.budget_id}, period from {row.period_start}"


_CHECKS: dict[str, Callable[[], str | None]] = {
    "Budget entries = accounts": _spent,
    "Leases = accounts": _leased,
    "Budget entries have accounts": _entries_without_account,
    "Budget entries have usage records": _entries_without_attempt,
    "Usage records have budget entries": _attempts_without_entries,
    "Usage records = requests": _requests_and_attempts,
    "Usage records = rollups": _rollups,
}
