"""Budget entries that are not kept any more: their sums are, and the books balance without them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from monitoring import budget_retention, retention
from monitoring.accounts import Posting, post
from monitoring.chain import REFUSED_FILE
from monitoring.journal import Hold
from monitoring.models import BudgetAccount, BudgetEntry, BudgetLease, Rollup, UsageRecord
from monitoring.usage import Drainer, replay
from tests.monitoring.records import BEGUN, die, ended, make_journal, opened, settled

pytestmark = pytest.mark.django_db
DAY_S = 86_400
TODAY = 1_799_971_200
BEFORE = datetime.fromtimestamp(TODAY - 7 * DAY_S, UTC)
LONG_AGO = BEGUN - 60 * DAY_S


def enter(folder: Path, *began: float) -> None:
    """One request for each moment, in a budget of its day and in one of all time."""
    journal = make_journal(folder)
    for number, moment in enumerate(began):
        name, day = f"request-{number}", int(moment // DAY_S * DAY_S)
        holds = (Hold("daily", day, 0, 100), Hold("total", 0, 0, 100))
        journal.write(opened(name, started_at=moment, holds=holds), settled(name, charges=(40, 40)), ended(name, started_at=moment))
    assert Drainer(journal, 0.5).drain()
    journal.close()


def accounts() -> dict[tuple[str, int], tuple[int, int]]:
    rows = BudgetAccount.objects.values_list("budget_id", "period_start", "spent", "carried")
    return {(budget, (start - TODAY) // DAY_S if start else 0): (spent, carried) for budget, start, spent, carried in rows}


def balanced() -> bool:
    out = StringIO()
    call_command("ledger_check", stdout=out)
    return "sums agree" in out.getvalue()


def prune() -> None:
    while retention.prune_batch(BEFORE):
        pass
    budget_retention.drop_closed_accounts(BEFORE)


def test_old_entries_go_their_sums_stay_and_the_books_balance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_retention, "ENTRIES_PER_BATCH", 1)
    enter(tmp_path, LONG_AGO, LONG_AGO + 1, BEGUN - 10 * DAY_S, BEGUN)
    prune()
    assert [entry.request_id for entry in BudgetEntry.objects.all()] == ["request-3", "request-3"]
    assert accounts() == {("daily", -10): (40, 40), ("daily", 0): (40, 0), ("total", 0): (160, 120)}
    assert balanced()
    BudgetAccount.objects.filter(budget_id="total").update(carried=119)
    with pytest.raises(Exception, match="160 are spent, and its entries say 159"):
        balanced()


def test_corrections_are_carried_too(tmp_path: Path) -> None:
    post([Posting("total", 0, 0, -5)])
    moment = datetime.fromtimestamp(LONG_AGO, UTC)
    BudgetEntry.objects.create(
        started_at=moment,
        request_id="correction-1",
        attempt=0,
        budget_id="total",
        period_start=0,
        reserved=0,
        amount=-5,
        state="correction",
    )
    prune()
    assert accounts() == {("total", 0): (-5, -5)}
    assert balanced()


def test_what_still_holds_something_stays(tmp_path: Path) -> None:
    enter(tmp_path, LONG_AGO)
    account = BudgetAccount.objects.get(budget_id="daily")
    BudgetLease.objects.create(account=account, holder="alive")
    prune()
    assert BudgetAccount.objects.filter(pk=account.pk).exists()
    BudgetLease.objects.all().delete()
    budget_retention.drop_closed_accounts(BEFORE)
    assert list(accounts()) == [("total", 0)]


def test_attempts_whose_entries_went_first_are_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, LONG_AGO, BEGUN)
    monkeypatch.setattr(retention, "ROWS_PER_BATCH", 0)
    prune()
    assert (UsageRecord.objects.count(), BudgetEntry.objects.count()) == (2, 2)
    assert balanced()


def test_a_journal_that_outlived_its_rows_is_not_entered_again(tmp_path: Path) -> None:
    """A machine comes back with its disk after the rows that it had written, but not noted as written, were deleted."""
    journal = make_journal(tmp_path)
    for name, moment in (("old", LONG_AGO), ("new", BEGUN)):
        journal.write(opened(name, started_at=moment, holds=(Hold("total", 0, 0, 100),)), settled(name, charges=(40,)))
        journal.write(ended(name, started_at=moment))
    assert Drainer(journal, 0.5).drain()
    (tmp_path / f"{journal.token}.checkpoint").unlink()
    die(journal)
    prune()
    rolled = list(Rollup.objects.order_by("pk").values())
    report = replay(tmp_path)
    assert (report.usage_records, report.refused) == (0, 3)
    refused = [json.loads(line) for line in (tmp_path / REFUSED_FILE).read_text().splitlines()]
    assert {line["row"]["request_id"] for line in refused} == {"old"}
    assert "nobody can tell whether it was entered before" in refused[0]["reason"]
    assert accounts() == {("total", 0): (80, 40)}
    assert list(Rollup.objects.order_by("pk").values()) == rolled
    assert balanced()


def test_nothing_is_dropped_of_a_period_that_may_still_run() -> None:
    start = int((BEFORE - timedelta(days=30)).timestamp())
    post([Posting("monthly", start, 0, 1)])
    assert budget_retention.drop_closed_accounts(BEFORE) == 0
