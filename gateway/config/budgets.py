"""The database's side of budgets: leases are granted, renewed and released here. Off the loop, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from typing import TypeVar

from django.db import transaction
from django.db.models import F, Max
from django.utils import timezone

from core.clock import Clock, SystemClock
from core.config import BudgetSpec
from gateway.budget import Grant, share
from gateway.budget_words import amount
from monitoring import accounts, metrics
from monitoring.models import BudgetAccount, BudgetLease
from monitoring.signals import budget_reached
from monitoring.threads import DatabaseThread

log = logging.getLogger(__name__)
T = TypeVar("T")

ALERT_PERCENTS = (100, 80, 50)


class DatabaseBank:
    """See `gateway.budget.Bank`. `holder` is the token of this process's journal: whoever adopts that releases its leases."""

    def __init__(self, holder: str, lease_s: float, clock: Clock = SystemClock()) -> None:  # noqa: B008  (has no state)
        self._holder = holder
        self._lease_s = lease_s
        self._clock = clock
        self._thread = DatabaseThread("budgets")
        self._one_at_a_time = asyncio.Lock()
        # Of each holder, its newest lease and the most renewals, and when these were first seen (monotonic seconds).
        self._seen: dict[str, tuple[int, int, float]] = {}

    async def take(self, budget: BudgetSpec, period_start: int, lease_id: int, least: int, wanted: int, spare: int) -> Grant:
        return await self._run(lambda: self._take(budget, period_start, lease_id, least, wanted, spare))

    async def tend(self, given_back: Mapping[int, int], unused: Set[int], accounts: Sequence[tuple[BudgetSpec, int]]) -> dict[int, int]:
        def work() -> dict[int, int]:
            granted = _tend(given_back, unused) if given_back else {}
            _report_use(accounts)
            return granted

        return await self._run(work)

    async def watch(self) -> None:
        await self._run(self._release_silent)

    async def stop(self, *, drained: bool) -> None:
        """Gives everything back, unless something that was used is still to be charged: then it stays till the journal is adopted."""
        try:
            if drained:
                await self._run(lambda: accounts.release(self._holder))
        except Exception as exc:
            log.warning("budgets: leases stay until this journal is adopted (%s: %s)", type(exc).__name__, exc)
        await self._thread.disconnect()

    async def _run(self, work: Callable[[], T]) -> T:
        async with self._one_at_a_time:
            try:
                return await self._thread.run(work)
            except BaseException:
                self._seen.clear()  # while nobody could write, nobody could renew
                raise

    def _take(self, budget: BudgetSpec, period_start: int, lease_id: int, least: int, wanted: int, spare: int) -> Grant:
        account = BudgetAccount.objects.filter(budget_id=budget.id, period_start=period_start).first()
        if account is not None and not share(budget.limit, account.spent + account.leased, least, max(1, wanted), spare):
            return Grant(0, 0, account.spent, account.leased)  # as most refusals: no lock is taken
        with transaction.atomic():
            BudgetAccount.objects.get_or_create(budget_id=budget.id, period_start=period_start)
            account = BudgetAccount.objects.select_for_update().get(budget_id=budget.id, period_start=period_start)
            more = share(budget.limit, account.spent + account.leased, least, wanted, spare)
            # The condition holds the limit even where the lock does not.
            room = BudgetAccount.objects.filter(pk=account.pk, spent__lte=budget.limit - more - F("leased"))
            if (not more and least) or not room.update(leased=F("leased") + more):
                return Grant(0, 0, account.spent, account.leased)
            return self._granted(account, more)

    def _granted(self, account: BudgetAccount, more: int) -> Grant:
        lease, _ = BudgetLease.objects.get_or_create(account=account, holder=self._holder)
        BudgetLease.objects.filter(pk=lease.pk).update(granted=F("granted") + more, renewed=F("renewed") + 1)
        return Grant(lease.pk, lease.granted + more, account.spent, account.leased + more)

    def _release_silent(self) -> None:
        """By our own clock, from when we first saw that number of renewals: no two machines need to agree on the time. Who has taken
        a lease since then lives too, though the new one may have been renewed as often as the one before it."""
        now, seen = self._clock.monotonic(), {}
        leases = BudgetLease.objects.exclude(holder=self._holder).values("holder").order_by()
        for holder, newest, renewed in leases.annotate(newest=Max("pk"), last=Max("renewed")).values_list("holder", "newest", "last"):
            *known, since_s = self._seen.get(holder, (0, -1, now))
            silent = known == [newest, renewed]
            seen[holder] = (newest, renewed, since_s if silent else now)
            if silent and now - since_s >= self._lease_s and accounts.release(holder, renewed):
                log.error("budgets: the leases of %s, which has not been heard of for %.0f s, are released", holder, now - since_s)
        self._seen = seen


def _tend(given_back: Mapping[int, int], unused: Set[int]) -> dict[int, int]:
    """What was granted to each lease after giving back. One of `unused` that is charged for all that was used of it is closed."""
    granted: dict[int, int] = {}
    with transaction.atomic():
        locked = BudgetAccount.objects.filter(pk__in=BudgetLease.objects.filter(pk__in=list(given_back)).values("account_id"))
        list(locked.order_by("budget_id", "period_start").select_for_update().values_list("pk"))
        for lease in BudgetLease.objects.filter(pk__in=list(given_back)):
            back = given_back[lease.pk]
            if back:
                BudgetAccount.objects.filter(pk=lease.account_id).update(leased=F("leased") - back)
            if lease.pk in unused and lease.granted - back == lease.charged:
                lease.delete()
                continue
            BudgetLease.objects.filter(pk=lease.pk).update(granted=F("granted") - back, renewed=F("renewed") + 1)
            granted[lease.pk] = lease.granted - back
    return granted


def _report_use(used: Sequence[tuple[BudgetSpec, int]]) -> None:
    """The metric, and once for each account and threshold a line in the log and a mark that the admin shows."""
    specs = {(spec.id, start): spec for spec, start in used}
    rows = BudgetAccount.objects.filter(budget_id__in={budget_id for budget_id, _ in specs}).order_by()
    for account in rows.only("budget_id", "period_start", "spent", "alerted_percent"):
        spec = specs.get((account.budget_id, account.period_start))
        if spec is None:
            continue
        metrics.BUDGET_USED.labels(spec.name, spec.id).set(account.spent / spec.limit)
        reached = next((percent for percent in ALERT_PERCENTS if account.spent * 100 >= spec.limit * percent), 0)
        if reached > account.alerted_percent:
            _alert(spec, account, reached)


def _alert(spec: BudgetSpec, account: BudgetAccount, reached: int) -> None:
    unreported = BudgetAccount.objects.filter(pk=account.pk, alerted_percent__lt=reached)
    if unreported.update(alerted_percent=reached, alerted_at=timezone.now()):
        budget_reached.send_robust(BudgetAccount, budget=spec, percent=reached, spent=account.spent)
        log.warning("%s has reached %d %%: %s of %s are used", spec.name, reached, amount(spec, account.spent), amount(spec, spec.limit))
