"""F18, F19, F20 and F26: a vendor that keeps its callers waiting is left in time, and nobody else waits with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from statistics import median
from typing import NamedTuple

import pytest

from tests.faults.backends import ON_SQLITE
from tests.faults.figures import Attempt, iso
from tests.faults.history import History, Row
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.processes import until
from tests.faults.raw import Raw, read_raw
from tests.faults.stage import Stage

pytestmark = ON_SQLITE

NEVER_OPENS = {"fail_max": 1000, "reset_timeout_s": 1}
LIMIT_S = 2.0  # of silence, before and in the middle of an answer
TOTAL_S = 3.0
TRICKLE_S = 0.2  # between two bytes
ONCE = LoadSize(6, 0.5, 0, 0)  # three clients stream, three do not, and each asks once: what it meets takes longer
SLOW_S, KEEPALIVE_S = 4.0, 1.0
IN_FLIGHT = 200
QUICK = "ok@tokens=40,delay=0.02"
SHARE = LoadSize(16, 1.5, 0, 0)
ROUNDS = 5


@pytest.mark.short
def test_f18_f20_f26_waiting_has_an_end(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(workers=1)

    def slow(*names: str, **timeouts: float) -> str:
        """Each at a provider of its own."""
        alias = ""
        for priority, name in enumerate(names):
            alias = stage.model(name, alias=alias, priority=priority, provider=stage.provider(breaker=NEVER_OPENS, timeouts=timeouts))
        return alias

    silent, helped = slow("fault-stall", first_byte_s=LIMIT_S), slow("fault-stall", "ok@tokens=6", first_byte_s=LIMIT_S)
    stalled = slow("fault-stall-midstream@delay=0.01", idle_s=LIMIT_S)
    dripping = slow("fault-drip", total_s=TOTAL_S)
    twice = slow("fault-stall", "fault-drip", first_byte_s=LIMIT_S, total_s=TOTAL_S)
    trickling = slow(f"fault-drip@delay={TRICKLE_S}", idle_s=LIMIT_S)
    loads = [stage.load(alias, ONCE) for alias in (silent, helped, stalled, dripping, twice, trickling)]
    rows = sum((load.history() for load in loads), History())
    figures = stage.check(rows)

    def of(alias: str) -> History:
        return rows.where(lambda row: row.alias == alias)

    judge_stall(judge, of(silent), of(helped), [attempt for attempt in figures.attempts if attempt.row in of(silent)])
    judge_stall_midstream(judge, of(stalled), [attempt for attempt in figures.attempts if attempt.row in of(stalled)])
    judge_drip(judge, of(dripping) + of(twice))
    judge_trickle(judge, of(trickling))
    judge("F18", "ERRQ", figures.errq_pct, at_least=100, unit="%", why=figures.explain())
    drift = stage.check(of(stalled).where(lambda row: row.stream))
    judge("F20", "DRIFT of streams", drift.drift_pct, at_most=0.1, unit="%", why=drift.explain())


def judge_stall(judge: Judge, silent: History, helped: History, attempts: list[Attempt]) -> None:
    timed_out = silent.where(lambda row: (row.status, row.code) == (504, "upstream_timeout"))
    judge("F18", "504 upstream_timeout", 100 * len(timed_out) / len(silent), at_least=100, unit="%", why=str(silent.statuses()))
    off_pct = 100 * max(abs(row.latency_s - LIMIT_S) / LIMIT_S for row in silent)
    judge("F18", "error beside the timeout", off_pct, at_most=10, unit="%", why=latencies(silent), timed=True)
    judge("F18", "answered by the next target", 100 * len(helped.ok) / len(helped), at_least=100, unit="%", why=str(helped.statuses()))
    left_s = [attempt.call.gone_at - attempt.row.end_t for attempt in attempts if attempt.call and attempt.call.gone_at and attempt.row]
    assert len(left_s) == len(attempts) == len(silent)
    judge("F18", "vendor's connection closed after the error", max(left_s), at_most=1, unit="s")


def judge_stall_midstream(judge: Judge, stalled: History, attempts: list[Attempt]) -> None:
    streams = stalled.where(lambda row: row.stream)
    events = streams.where(lambda row: row.status == 200 and row.code == "upstream_timeout" and row.tokens > 0)
    judge("F20", "error events", 100 * len(events) / len(streams), at_least=100, unit="%", why=str(streams.statuses()))
    judge("F20", "[DONE] after the error", sum(row.done for row in streams), equals=0)
    calls = sum(attempt.call is not None and attempt.row is not None and attempt.row.stream for attempt in attempts)
    judge("F20", "calls for each stream", calls / len(streams), equals=1)
    whole = stalled.where(lambda row: not row.stream)
    judge("F20", "504 where nothing was streamed", 100 * sum(row.status == 504 for row in whole) / len(whole), at_least=100, unit="%")
    judge("F20", "end of the wait", max(row.latency_s for row in stalled), at_most=LIMIT_S + 1, unit="s", why=latencies(stalled))


def judge_drip(judge: Judge, rows: History) -> None:
    off_s = max(abs(row.latency_s - TOTAL_S) for row in rows)
    judge("F26", "cut beside the deadline", off_s, at_most=1, unit="s", why=latencies(rows))
    judge("F26", "answers that seem whole", len(rows.ok) + len(rows.unknown), equals=0, why=str(rows.statuses()))


def judge_trickle(judge: Judge, rows: History) -> None:
    """Its deadline is minutes away; fewer bytes than LLM_MIN_PROGRESS_BYTES are silence all the same."""
    slowest_s = max(row.latency_s for row in rows)
    judge(
        "F26", "a byte now and then is given up after, limit of silence 2 s", slowest_s, at_most=LIMIT_S + 1, unit="s", why=latencies(rows)
    )
    judge("F26", "answers of a trickle that seem whole", len(rows.ok) + len(rows.unknown), equals=0, why=str(rows.statuses()))


def latencies(rows: Iterable[Row]) -> str:
    return str(sorted(round(row.latency_s, 2) for row in rows))


def test_f19_a_slow_answer_is_waited_for_and_disturbs_nobody(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(env={"LLM_SSE_KEEPALIVE_S": str(KEEPALIVE_S)})
    slow = stage.model(f"fault-slow-first-byte@s={SLOW_S},tokens=6", provider=stage.provider(max_concurrency=0))
    quick = stage.model(QUICK)
    stage.load(quick, SHARE).history()  # every worker has its connections
    rounds = [one_round(stage, quick, slow) for _ in range(ROUNDS)]

    waited = sum((each.waited for each in rounds), History())
    assert len(waited) == ROUNDS * IN_FLIGHT
    judge("F19", "answered", 100 * len(waited.ok) / len(waited), at_least=100, unit="%", why=str(waited.statuses()))
    raw = [answer for each in rounds for answer in each.raw]
    comments = [answer.body.partition(b"data:")[0].count(b"\n\n") for answer in raw]
    expected = int(SLOW_S / KEEPALIVE_S) - 1
    judge("F19", "keep-alive comments before the first byte", min(comments), at_least=expected, why=str(raw[0].body[:300]))
    longest_s = max(answer.longest_silence_s for answer in raw)
    judge("F19", "longest silence for the client", longest_s, at_most=KEEPALIVE_S * 1.5, unit="s")
    ratios = [iso(each.meanwhile, each.before) for each in rounds]
    judge("F19", "ISO, median of five windows", median(ratios), at_most=1.1, unit="×", why=str(ratios))
    judge("F19", "AMP", stage.check(waited).amp, equals=1)


class Round(NamedTuple):
    """`before` and `meanwhile` are of a load that has nothing to do with those who wait: `waited`, and `raw` as bytes."""

    before: History
    meanwhile: History
    waited: History
    raw: list[Raw]


def one_round(stage: Stage, quick: str, slow: str) -> Round:
    before = stage.load(quick, SHARE).history()
    waiting = stage.load(slow, LoadSize(IN_FLIGHT, 0.5, 0, 0), stream=True)
    until(lambda: stage.vendor.stats()["in_flight"] == IN_FLIGHT, "all are in flight")
    meanwhile = stage.load(quick, SHARE)
    raw = asyncio.run(impatient(stage, slow))
    return Round(before, meanwhile.history(), waiting.history(), raw)


async def impatient(stage: Stage, alias: str) -> list[Raw]:
    """Clients that give up after a silence much shorter than the vendor's."""
    return await asyncio.gather(*(read_raw(stage, alias, stream=True, idle_s=KEEPALIVE_S * 2) for _ in range(5)))
