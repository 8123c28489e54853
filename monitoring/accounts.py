"""Where budgets are charged: in the transaction that enters an attempt, so exactly as often as the attempt itself.

Whoever changes an account or one of its leases locks the account first, and several accounts in the order of budget and
period: nobody then waits for somebody who waits for him.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from django.db import connection, transaction
from django.db.models import F

from monitoring.models import BudgetAccount, BudgetLease


class Posting(NamedTuple):
    """An amount that was used of one budget in the period that begins then, out of a lease; `lease_id` 0 = without one."""

    budget_id: str
    period_start: int
    lease_id: int
    amount: int


def post(postings: Iterable[Posting]) -> None:
    """Turns what was leased into what is spent. Called inside a transaction."""
    sums: dict[tuple[str, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for posting in postings:
        sums[posting.budget_id, posting.period_start][posting.lease_id] += posting.amount
    for (budget_id, period_start), by_lease in sorted(sums.items()):
        account_id = _spend(budget_id, period_start, sum(by_lease.values()))
        _charge(account_id, {lease_id: amount for lease_id, amount in by_lease.items() if lease_id and amount})


def _spend(budget_id: str, period_start: int, amount: int) -> int:
    """The account's id."""
    table = connection.ops.quote_name(BudgetAccount._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (budget_id, period_start, spent, carried, leased, alerted_percent) VALUES (%s, %s, %s, 0, 0, 0) "
            f"ON CONFLICT (budget_id, period_start) DO UPDATE SET spent = {table}.spent + excluded.spent RETURNING id",
            [budget_id, period_start, amount],
        )
        return int(cursor.fetchone()[0])


def _charge(account_id: int, amounts: dict[int, int]) -> None:
    """A lease that is gone was released, and what it held is not among what is leased any more."""
    leased = 0
    for lease_id, amount in amounts.items():
        if BudgetLease.objects.filter(pk=lease_id, account=account_id).update(charged=F("charged") + amount):
            leased += amount
    if leased:
        BudgetAccount.objects.filter(pk=account_id).update(leased=F("leased") - leased)


def release(holder: str, renewed: int | None = None) -> int:
    """Gives back all that a process holds and has not used; it must be dead. How many leases those were.

    `renewed` given: only what has stood at that number since it was looked at.
    """
    leases = BudgetLease.objects.filter(holder=holder)
    if renewed is not None:
        leases = leases.filter(renewed__lte=renewed)
    if not leases.exists():
        return 0
    with transaction.atomic():
        # Evaluated for the locks alone: a lease changes only under that of its account.
        accounts = BudgetAccount.objects.filter(pk__in=leases.values("account_id")).order_by("budget_id", "period_start")
        list(accounts.select_for_update().values_list("pk"))
        held = list(leases)
        for lease in held:
            BudgetAccount.objects.filter(pk=lease.account_id).update(leased=F("leased") - (lease.granted - lease.charged))
        BudgetLease.objects.filter(pk__in=[lease.pk for lease in held]).delete()
    return len(held)
