"""F38 and F39: a burst gets what its limit allows and no more, cheaply, and nobody else feels it, however many processes serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tests.faults.backends import ON_POSTGRES, ON_SQLITE
from tests.faults.client import Client, request
from tests.faults.figures import iso
from tests.faults.history import History, quantile_of
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize, new_row
from tests.faults.stage import Stage

PER_MINUTE, PER_S = 120, 2.0
BURST_CLIENTS, BURST_S = 12, 8.0
WINDOWS, WINDOW_S = 5, 4.0
COST_ROUNDS, WRITTEN_S = 3, 1.0
# What runs beside requests, as often as where it is used.
AS_DELIVERED = {"LLM_CONFIG_POLL_S": "1", "LLM_DRAIN_INTERVAL_S": "0.5"}
HEADERS = ("retry-after", "retry-after-ms", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")


@ON_SQLITE
def test_f38_a_burst_of_ten_times_the_limit(stage: Stage, judge: Judge) -> None:
    alias = stage.model("ok@tokens=5")
    history = stage.load(alias, LoadSize(BURST_CLIENTS, BURST_S, 0, 0), key=limited(stage)).history()
    figures = stage.check(history)
    refused = history.where(lambda row: row.status == 429)
    assert len(history) >= 10 * allowed(history), figures.explain()
    judge("F38", "admitted ÷ limit", len(history.ok) / allowed(history), at_most=1.05, why=figures.explain())
    judge("F38", "admitted ÷ limit, at least", len(history.ok) / allowed(history), at_least=0.95, why=figures.explain())
    judge("F38", "neither answered nor a 429", len(history) - len(history.ok) - len(refused), at_most=0, why=figures.explain())
    bare = [row for row in refused if not all(name in row.headers for name in HEADERS)]
    judge("F38", "429 without Retry-After or x-ratelimit headers", len(bare), at_most=0, why=str(bare[:1]))
    judge("F38", "ERRQ", figures.errq_pct, at_least=100, unit="%", why=figures.explain())
    judge("F38", "AMP of what was admitted", len(figures.attempts) / len(history.ok), at_most=1, unit="×", why=figures.explain())


@ON_SQLITE
def test_f38_another_key_does_not_feel_the_burst(stage: Stage, judge: Judge) -> None:
    """It asks for a tenth of its own limit. Windows with and without the burst take turns, so that a busy machine is busy in both."""
    alias = stage.model("ok@tokens=10,delay=0.02")
    bursting, other = limited(stage), limited(stage, 10 * 60 * 4)
    quiet = LoadSize(2, WINDOW_S, 0, 0)
    ratios = []
    for _ in range(WINDOWS):
        usual = stage.load(alias, quiet, key=other, pause_s=0.3).history()
        burst = stage.load(alias, LoadSize(BURST_CLIENTS, WINDOW_S, 0, 0), key=bursting)
        met = stage.load(alias, quiet, key=other, pause_s=0.3).history()
        burst.history()
        assert len(met.ok) == len(met), met.statuses()
        ratios.append(iso(met, usual))
    judge("F38", "ISO of the other key", quantile_of(ratios, 0.5), at_most=1.2, unit="×", why=str(ratios))


@ON_SQLITE
def test_f38_a_refusal_costs_little(new_stage: Callable[..., Stage], judge: Judge) -> None:
    """Processor time of the one worker for each request, in turns, and with what a request leaves to be written."""
    stage = new_stage(workers=1, env=AS_DELIVERED)
    alias = stage.model("ok@tokens=40,delay=0.02")
    used_up = limited(stage, 1)
    stage.load(alias, LoadSize(4, 1, 0, 0), key=used_up).history()
    shares, costs = [], []
    for _ in range(COST_ROUNDS):
        answered_us = cost_us(stage, alias, stage.key, 400, clients=50)
        refused_us = cost_us(stage, alias, used_up, 4000, clients=10)
        costs.append((round(answered_us), round(refused_us)))
        shares.append(100 * refused_us / answered_us)
    judge("F38", "processor time of a 429 ÷ that of an answer", quantile_of(shares, 0.5), at_most=20, unit="%", why=str(costs))


def cost_us(stage: Stage, alias: str, key: str, count: int, clients: int) -> float:
    """Of one of `count` requests, half of them streams, one after the other from each client."""
    before_s = stage.machine.cpu_s()
    asyncio.run(_ask_many(stage, alias, key, count // clients, clients))
    time.sleep(WRITTEN_S)
    return 1e6 * (stage.machine.cpu_s() - before_s) / count


async def _ask_many(stage: Stage, alias: str, key: str, each: int, clients: int) -> None:
    await asyncio.gather(*(_ask_in_turn(stage.machine.port, alias, key, each, number % 2 == 0) for number in range(clients)))


async def _ask_in_turn(port: int, alias: str, key: str, count: int, stream: bool) -> None:
    client = Client(port)
    for _ in range(count):
        row = new_row(alias, stream)
        await client.ask(row, request(row, port, key, {}, {}), 30)
    client.close()


@ON_SQLITE
def test_f39_one_limit_over_four_workers(new_stage: Callable[..., Stage], judge: Judge) -> None:
    burst_over(new_stage(workers=4), judge, "4 workers without Redis (G7)")


@ON_POSTGRES
def test_f39_one_limit_over_two_machines(new_stage: Callable[..., Stage], judge: Judge) -> None:
    burst_over(new_stage(workers=2, machines=2), judge, "2 machines of 2 workers with Redis")


def burst_over(stage: Stage, judge: Judge, where: str) -> None:
    """Every request on a connection of its own, so that every worker gets its share of them."""
    alias = stage.model("ok@tokens=5")
    history = stage.load(alias, LoadSize(16, BURST_S, 0, 0), key=limited(stage), reconnect_every=1).history()
    figures = stage.check(history)
    assert len(history) >= 5 * allowed(history), figures.explain()
    assert len(processes(history)) == sum(machine.workers_wanted for machine in stage.machines), "not every worker was asked"
    judge("F39", f"admitted ÷ limit, {where}", len(history.ok) / allowed(history), at_most=1.05, unit="×", why=figures.explain())
    judge("F39", f"admitted ÷ limit at least, {where}", len(history.ok) / allowed(history), at_least=0.95, unit="×", why=figures.explain())
    judge("F39", f"failures but 429, {where}", len(history) - len(history.ok) - statuses(history, 429), at_most=0, why=figures.explain())


def limited(stage: Stage, per_minute: int = PER_MINUTE) -> str:
    return str(stage.api_key(rate_limit={"requests_per_minute": per_minute})["key"])


def allowed(history: History) -> float:
    """A full bucket, and what flows in while the burst lasts."""
    lasted_s = max(row.invoke_t for row in history) - min(row.invoke_t for row in history)
    return PER_MINUTE + PER_S * lasted_s


def statuses(history: History, status: int) -> int:
    return sum(row.status == status for row in history)


def processes(history: History) -> set[str]:
    """Each makes request ids that begin alike: 16 hexadecimal digits behind "req_"."""
    return {row.request_id[:20] for row in history if row.request_id}
