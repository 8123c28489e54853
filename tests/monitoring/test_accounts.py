"""Budgets in the books: charged with the attempt, once, and released with the process."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from core.clock import FrozenClock
from monitoring import accounts
from monitoring.accounts import Posting
from monitoring.journal import Hold, Journal
from monitoring.models import BudgetAccount, BudgetEntry, BudgetLease, UsageRecord
from monitoring.progress import ProgressFiles
from monitoring.usage import Drainer, replay
from tests.monitoring.records import die, ended, make_journal, opened, settled

pytestmark = pytest.mark.django_db
DAY = 1_799_971_200


def lease(holder: str, granted: int, budget: str = "b") -> BudgetLease:
    account, _ = BudgetAccount.objects.get_or_create(budget_id=budget, period_start=DAY)
    account.leased += granted
    account.save()
    return BudgetLease.objects.create(account=account, holder=holder, granted=granted)


def hold(of: BudgetLease | None, reserved: int = 100, budget: str = "b") -> Hold:
    return Hold(budget, DAY, of.pk if of else 0, reserved)


def standing(budget: str = "b") -> tuple[int, int]:
    account = BudgetAccount.objects.get(budget_id=budget)
    return account.spent, account.leased


def drain(journal: Journal) -> None:
    assert Drainer(journal, 0.5, FrozenClock()).drain()


def entries() -> list[tuple[str, int, int, int, str]]:
    rows = BudgetEntry.objects.order_by("pk")
    return list(rows.values_list("request_id", "attempt", "reserved", "amount", "state"))


def test_what_was_used_goes_from_leased_to_spent(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    mine = lease(journal.token, 300)
    journal.write(opened("a", holds=(hold(mine),)))
    journal.write(settled("a", charges=(40,)), ended("a"))
    journal.write(opened("b", holds=(hold(mine, 90),)))
    journal.write(settled("b", status="error"), ended("b", cost_micros=0))
    drain(journal)
    assert standing() == (40, 260)
    assert entries() == [("a", 1, 100, 40, "settled"), ("b", 1, 90, 0, "released")]
    assert list(UsageRecord.objects.values_list("budget_entries", flat=True)) == [1, 1]
    drain(journal)
    assert standing() == (40, 260)


def test_the_same_records_again_charge_nothing(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    mine = lease(journal.token, 300)
    journal.write(opened("a", holds=(hold(mine), hold(None, 7, "soft"))), settled("a", charges=(40, 9)), ended("a"))
    drain(journal)
    (tmp_path / f"{journal.token}.checkpoint").unlink(missing_ok=True)
    drain(journal)
    assert (standing(), standing("soft")) == ((40, 260), (9, 0))


def test_a_dead_process_is_charged_for_what_it_forwarded_and_its_lease_is_released(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    mine = lease(journal.token, 300)
    for name in ("streamed", "silent"):
        journal.write(opened(name, holds=(hold(mine),)))
    progress = ProgressFiles(tmp_path, journal.token)
    progress.write([settled("streamed", charges=(25,))])
    progress.close()
    die(journal)
    assert replay(tmp_path).interrupted == 2
    assert standing() == (25, 0)
    assert entries() == [("streamed", 1, 100, 25, "settled"), ("silent", 1, 100, 0, "expired")]
    assert not BudgetLease.objects.exists()


def test_a_process_that_died_before_its_first_record_is_released_too(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    lease(journal.token, 300)
    die(journal)
    replay(tmp_path)
    assert standing() == (0, 0)


def test_a_lease_that_was_released_is_not_charged_twice_over() -> None:
    mine = lease("gone", 300)
    assert accounts.release("gone") == 1
    accounts.post([Posting("b", DAY, mine.pk, 40)])
    assert standing() == (40, 0)


def test_a_lease_that_was_renewed_meanwhile_stays() -> None:
    lease("alive", 300)
    BudgetLease.objects.update(renewed=4)
    assert accounts.release("alive", renewed=3) == 0
    assert standing() == (0, 300)


# Whether it balances ------------------------------------------------------------------------------------------------


@pytest.fixture
def books(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    mine = lease(journal.token, 300)
    journal.write(opened("a", holds=(hold(mine),)), settled("a", status="error"))
    journal.write(opened("a", 2, holds=(hold(mine),)), settled("a", 2, charges=(40,)), ended("a", attempts=2))
    drain(journal)


def check() -> str:
    out = StringIO()
    call_command("ledger_check", stdout=out)
    return out.getvalue()


@pytest.mark.usefixtures("books")
def test_books_that_balance() -> None:
    assert check().endswith("All 7 sums agree.\n")


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda: BudgetAccount.objects.update(spent=41), r"budget b, period from \d+: 41 are spent, and its entries say 40"),
        (lambda: BudgetAccount.objects.update(leased=1), r"budget b, period from \d+: 1 are leased, and its leases hold 260"),
        (
            lambda: (
                BudgetEntry.objects.filter(attempt=1).update(budget_id="c"),
                BudgetEntry.objects.filter(attempt=2).update(budget_id="d"),
            ),
            r"budget b, period from \d+: 40 are spent, and its entries say 0",
        ),
        (
            lambda: BudgetEntry.objects.filter(attempt=1).update(budget_id="c"),
            "the entry of attempt a-1 is on budget c, which has no account for its period",
        ),
        (lambda: BudgetEntry.objects.filter(attempt=1).delete(), "attempt a-1 was charged to 1 budgets, and has 0 entries"),
        (lambda: UsageRecord.objects.filter(attempt=1).delete(), "attempt a-1, which has no usage record"),
        (lambda: UsageRecord.objects.update(cost_micros=1), "cost_micros: the rollup says 2468, and the usage records 2"),
        (
            lambda: (UsageRecord.objects.filter(attempt=1).delete(), BudgetEntry.objects.filter(attempt=1).delete()),
            "request a made 2 attempts, and 1 usage records are there, the last of number 2",
        ),
    ],
)
def test_the_first_difference_is_named(spoil: object, sentence: str) -> None:
    spoil()  # type: ignore[operator]
    with pytest.raises(CommandError, match=sentence):
        check()
