"""Leases in the database: never more than the limit, from however many processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from core.clock import FrozenClock
from core.config import BudgetSpec
from gateway.config.budgets import DatabaseBank, _report_use, _tend
from monitoring import accounts, metrics
from monitoring.accounts import Posting
from monitoring.models import BudgetAccount, BudgetLease
from tests.engines import postgres_database
from tests.live import copy_migrated

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]
DAY = 1_799_971_200


def spec(limit: int = 1000, **changes: Any) -> BudgetSpec:
    values = {
        "id": "b",
        "name": "The daily tokens budget of team growth",
        "scope": "team",
        "holder": "t",
        "kind": "tokens",
        "period": "day",
    }
    return BudgetSpec(limit=limit, **{**values, **changes})


def take(bank: DatabaseBank, least: int, wanted: int | None = None, spare: int = 0, limit: int = 1000) -> Any:
    return bank._take(spec(limit), DAY, 0, least, least if wanted is None else wanted, spare)


def figures() -> tuple[int, int]:
    account = BudgetAccount.objects.get()
    return account.spent, account.leased


def test_a_lease_grows_until_nothing_is_left() -> None:
    one, other = DatabaseBank("one", 60), DatabaseBank("other", 60)
    first = take(one, 600)
    assert (first.granted, first.leased) == (600, 600)
    assert take(other, 300).granted == 300
    more = take(one, 50, 500)
    assert (more.lease_id, more.granted) == (first.lease_id, 700)
    refused = take(other, 1)
    assert (refused.lease_id, refused.spent, refused.leased) == (0, 0, 1000)
    assert figures() == (0, 1000)


def test_what_is_given_back_is_there_for_others_and_an_empty_lease_is_closed() -> None:
    one, other = DatabaseBank("one", 60), DatabaseBank("other", 60)
    held = take(one, 1000)
    accounts.post([Posting("b", DAY, held.lease_id, 300)])
    assert _tend({held.lease_id: 600}, set()) == {held.lease_id: 400}
    assert figures() == (300, 100)
    assert take(other, 600).granted == 600
    assert _tend({held.lease_id: 100}, {held.lease_id}) == {}
    assert figures() == (300, 600)
    assert _tend({held.lease_id: 0}, set()) == {}


def test_a_lease_on_which_a_request_runs_stays_though_all_that_was_granted_is_charged() -> None:
    """A vendor has delivered more than was asked of it, and used up what another request has reserved."""
    one = DatabaseBank("one", 60)
    held = take(one, 700)
    accounts.post([Posting("b", DAY, held.lease_id, 700)])
    assert _tend({held.lease_id: 0}, set()) == {held.lease_id: 700}
    assert _tend({held.lease_id: -200}, set()) == {held.lease_id: 900}
    assert figures() == (700, 200)


def test_more_used_than_granted_is_counted_beyond_the_limit() -> None:
    one = DatabaseBank("one", 60)
    held = take(one, 1000)
    assert _tend({held.lease_id: -30}, set()) == {held.lease_id: 1030}
    assert figures() == (0, 1030)
    assert take(one, 0).lease_id == 0


def test_a_lower_limit_holds_at_once() -> None:
    one = DatabaseBank("one", 60)
    take(one, 500)
    assert take(one, 1, limit=400).lease_id == 0
    assert take(one, 1, limit=501).lease_id


def test_leases_of_a_machine_that_is_gone_are_released_by_who_has_watched_it() -> None:
    clock = FrozenClock()
    watcher = DatabaseBank("one", 60, clock)
    take(DatabaseBank("gone", 60), 500)
    watcher._release_silent()
    clock.advance(59)
    watcher._release_silent()
    BudgetLease.objects.update(renewed=2)
    clock.advance(59)
    watcher._release_silent()
    clock.advance(59)
    watcher._release_silent()
    assert figures() == (0, 500)
    clock.advance(1)
    watcher._release_silent()
    assert figures() == (0, 0)


def test_who_takes_a_new_lease_each_time_is_not_silent() -> None:
    """Of one request every ten seconds each lease may have been renewed as often as the one before it when somebody looks."""
    clock = FrozenClock()
    watcher, busy = DatabaseBank("one", 60, clock), DatabaseBank("busy", 60)
    for _ in range(9):
        held = take(busy, 500)
        watcher._release_silent()
        assert figures() == (0, 500)
        _tend({held.lease_id: 500}, {held.lease_id})
        clock.advance(10)


async def test_who_could_not_ask_has_watched_nobody() -> None:
    bank = DatabaseBank("one", 60)
    bank._seen = {"other": (1, 1, 0.0)}
    with pytest.raises(ZeroDivisionError):
        await bank._run(lambda: 1 // 0)
    assert bank._seen == {}


def test_budgets_of_one_name_have_a_series_each() -> None:
    """A soft one beside a hard one differs by nothing that its name says."""
    for budget_id, limit in (("soft", 50), ("hard", 100)):
        accounts.post([Posting(budget_id, DAY, 0, 25)])
        _report_use([(spec(limit, id=budget_id), DAY)])
    series = (metrics.BUDGET_USED.labels(spec().name, budget_id)._value.get() for budget_id in ("soft", "hard"))
    assert list(series) == [0.5, 0.25]


def test_each_threshold_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    for amount, said in ((499, ""), (1, "50 %"), (100, ""), (200, "80 %"), (0, ""), (200, "100 %"), (9, "")):
        accounts.post([Posting("b", DAY, 0, amount)])
        caplog.clear()
        _report_use([(spec(), DAY)])
        assert (f"has reached {said}" in caplog.text) if said else not caplog.text
    assert metrics.BUDGET_USED.labels(spec().name, "b")._value.get() == 1.009
    account = BudgetAccount.objects.get()
    assert account.alerted_percent == 100
    assert account.alerted_at is not None


HAMMER = """
import asyncio, random, sys
import django; django.setup()
from core.clock import SystemClock
from core.config import Snapshot
from core.errors import BudgetExhausted
from gateway.budget import Budgets
from gateway.config.budgets import DatabaseBank
from tests.gateway_config.test_budgets import spec

async def main(token, tries):
    bank, dice, used, refused = DatabaseBank(token, 60), random.Random(token), 0, 0
    budgets = Budgets(bank, SystemClock(), lease_s=60, timeout_s=60)
    budget = spec(5000, period="total")
    budgets.apply(Snapshot(version=1, loaded_at=0.0, budgets=(budget,)))
    async def one():
        nonlocal used, refused
        amount = dice.randrange(1, 60)
        needs = [(budget, amount)]
        try:
            held = budgets.reserve_now(needs) or await budgets.reserve(needs)
        except BudgetExhausted:
            refused += 1
            return
        await asyncio.sleep(dice.random() / 50)
        really = dice.randrange(amount + 1)
        used += really
        held.settle([really])
    for _ in range(tries // 50):
        await asyncio.gather(*(one() for _ in range(50)))
        await budgets.tend()
    await budgets.tend()
    await budgets.tend()
    print(used, refused, flush=True)

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.process
@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_four_processes_together_never_use_more_than_the_limit(tmp_path: Path, backend: str) -> None:
    """What each says it has used must be what the books say is leased and not given back: nothing is drained here."""
    with database(tmp_path, backend) as env:
        hammers = [hammer(env, f"process-{number}", 1500) for number in range(4)]
        assert [process.stdout.readline() for process in hammers] == ["ready\n"] * 4
        said = [process.communicate("\n", timeout=100)[0].split() for process in hammers]
        used, refused = (sum(int(numbers[at]) for numbers in said) for at in (0, 1))
        leased = int(manage(env, "shell", "-v0", "-c", LEASED).stdout)
    assert used <= 5000
    assert refused > 0
    assert leased == used > 4500


LEASED = "from monitoring.models import BudgetAccount as A; print(A.objects.get().leased)"


def manage(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=True
    )


def hammer(env: dict[str, str], token: str, tries: int) -> Any:
    command = [sys.executable, "-c", HAMMER, token, str(tries)]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def database(folder: Path, backend: str) -> Iterator[dict[str, str]]:
    """The environment of processes on a database of their own."""
    with nullcontext(copy_migrated(folder)) if backend == "sqlite" else postgres_database("budgets") as url:
        yield os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
