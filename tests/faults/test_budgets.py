"""F40: many at once on a budget for ten, some of whom leave; and a kill with reservations in flight."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.faults.client import Client, request
from tests.faults.history import Row
from tests.faults.judge import Judge
from tests.faults.loads import new_row
from tests.faults.processes import until
from tests.faults.stage import SETTINGS, Stage
from tests.live import manage

REQUESTS, FOR = 200, 10
TOKENS = 40
INPUT_MICROS, OUTPUT_MICROS = 1000, 2000  # a token: so dear that no rounding hides anything
PRICE = ("1000.00", "2000.00")
LIMIT_MICROS = FOR * (200 * INPUT_MICROS + 120 * OUTPUT_MICROS)
# However the dice fall, so many fit: of the longest body and answer.
FIT = LIMIT_MICROS // (200 * INPUT_MICROS + 5 * TOKENS * OUTPUT_MICROS)
LEAK_AFTER_S = 10.0


class Books(NamedTuple):
    spent: int
    leased: int
    entries: int
    leases: int


def books(stage: Stage) -> Books:
    """Of the only budget."""
    rows = stage.database.rows("SELECT COALESCE(SUM(spent), 0), COALESCE(SUM(leased), 0) FROM monitoring_budgetaccount")
    ((entries,),) = stage.database.rows("SELECT COALESCE(SUM(amount), 0) FROM monitoring_budgetentry")
    ((leases,),) = stage.database.rows("SELECT COALESCE(SUM(granted - charged), 0) FROM monitoring_budgetlease")
    return Books(*(int(number) for number in (*rows[0], entries, leases)))


def balanced(stage: Stage) -> bool:
    done = manage("ledger_check", env=stage.machine.env)
    assert done.returncode == 0, done.stdout + done.stderr
    return "sums agree" in done.stdout


def budget(stage: Stage, key: dict[str, Any], limit: str, **fields: Any) -> None:
    body = {"scope": {"key": key["id"]}, "kind": "money", "currency": "USD", "limit": limit, "period": "total", **fields}
    stage.control.call("POST", "/api/v1/llm/budgets", body)
    stage.apply()


async def burst(stage: Stage, alias: str, key: str, requests: int, dice: random.Random) -> list[Row]:
    """All at once, half of them streams, a third of which are cut somewhere."""
    port = stage.machine.port

    async def one(number: int) -> Row:
        row, client = new_row(alias, stream=number % 2 == 0), Client(port)
        leave_at = dice.randrange(1, TOKENS - 2) if number % 6 == 0 else None
        sent = request(row, port, key, {}, {"max_tokens": dice.randrange(TOKENS, 5 * TOKENS)})
        await client.ask(row, sent, 60, (lambda seen: seen.tokens >= leave_at) if leave_at else None)
        client.close()
        return row

    return await asyncio.gather(*(one(number) for number in range(requests)))


@pytest.mark.short("both")
@pytest.mark.parametrize("workers", [1, 4])
def test_f40_two_hundred_at_once_on_a_budget_for_ten(new_stage: Callable[..., Stage], judge: Judge, workers: int) -> None:
    two_hundred_at_once(new_stage(workers=workers), judge, f"{workers} workers")


@pytest.mark.parametrize("workers", [1, 4])
def test_f40_in_the_default_configuration(new_stage: Callable[..., Stage], judge: Judge, workers: int) -> None:
    """Nothing that the product does at intervals is done more often than it is delivered with."""
    as_delivered = {name: "" for name in SETTINGS if name != "OUTBOUND_ALLOW"}
    two_hundred_at_once(new_stage(workers=workers, env=as_delivered), judge, f"{workers} workers, default configuration")


def two_hundred_at_once(stage: Stage, judge: Judge, where: str) -> None:
    alias = stage.model(f"ok@tokens={TOKENS},delay=0.02", price=PRICE)
    key = stage.api_key()
    budget(stage, key, f"{LIMIT_MICROS / 1e6:.6f}")

    rows = asyncio.run(burst(stage, alias, key["key"], REQUESTS, random.Random(40)))
    ended = time.monotonic()
    refused = [row for row in rows if row.status == 429]
    served = [row for row in rows if row.status == 200]
    assert len(refused) + len(served) == REQUESTS, {row.status for row in rows}
    assert all(row.headers.get("x-should-retry") == "false" for row in refused)
    judge("F40", f"served, {where}", len(served), at_least=FIT)
    until(lambda: books(stage).leased == 0 or time.monotonic() > ended + LEAK_AFTER_S, "leases are back", timeout_s=LEAK_AFTER_S + 5)
    found = books(stage)
    judge("F40", f"overshoot, {where}", max(0, found.spent - LIMIT_MICROS), at_most=0, unit="µUSD")
    judge("F40", f"leaked after 10 s, {where}", found.leased + found.leases, equals=0, unit="µUSD")
    truth = sum(used.cost_micros or 0 for used in stage.database.usage() if used.key_id == key["id"])
    judge("F40", f"spent beside the usage records, {where}", found.spent - truth, equals=0, unit="µUSD")
    judge("F40", f"spent beside the entries, {where}", found.spent - found.entries, equals=0, unit="µUSD")
    assert balanced(stage)


@pytest.mark.short("both")
def test_f40_a_worker_is_killed_with_reservations_in_flight(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(workers=2)
    alias = stage.model("ok@tokens=200,delay=0.02", price=PRICE)
    key = stage.api_key()
    budget(stage, key, "100.00")

    async def killed() -> list[Row]:
        running = asyncio.create_task(burst(stage, alias, key["key"], 40, random.Random(1)))
        await asyncio.sleep(1.5)
        await asyncio.to_thread(stage.machine.kill_worker)
        return await running

    asyncio.run(killed())
    until(lambda: books(stage).leased == 0, "leases are back", timeout_s=60)
    found = books(stage)
    usage = [used for used in stage.database.usage() if used.key_id == key["id"]]
    interrupted = [used for used in usage if used.status == "interrupted" and used.output_tokens]
    judge("F40", "streams charged for what was sent before kill -9", len(interrupted), at_least=1)
    ((beside,),) = stage.database.rows(f"SELECT COUNT(*) FROM monitoring_usagerecord WHERE key_id = '{key['id']}' AND budget_entries = 0")
    assert beside == 0, f"{beside} attempts were served before their worker knew of the budget"
    judge("F40", "spent beside the entries after kill -9", found.spent - found.entries, equals=0, unit="µUSD")
    truth = sum(used.cost_micros or 0 for used in usage)
    judge("F40", "spent beside the usage records after kill -9", found.spent - truth, equals=0, unit="µUSD")
    assert balanced(stage)
