"""F28 and F29: a vendor that fails is left alone, tried by one call at a time over all processes, and taken back at once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

import pytest

from tests.faults.backends import ON_POSTGRES, ON_SQLITE
from tests.faults.figures import recovery_s
from tests.faults.history import History
from tests.faults.judge import Judge
from tests.faults.loads import Load, LoadSize
from tests.faults.stage import Stage
from tests.faults.vendor import Call

# So many at once that each trial, which takes its time, has hundreds of others beside it.
CROWD, GROUPS, CROWD_PAUSE_S = 500, 5, 1.5
RESET_S, LONGEST_S, TRIAL_S, JITTER = 0.6, 2.4, 0.3, 0.1
GROWING = {"reset_timeout_s": RESET_S, "max_reset_timeout_s": LONGEST_S, "keep_last": False}
FAILING, FAILING_SLOWLY = "fault-503", f"fault-500@ttfb={TRIAL_S}"
# From the first refusal: what was on its way to the vendor before is there by then, and no trial is due yet.
OPENED_S = 0.3
BREAKERS_OPEN_S = 1.0
DEAD_S, WINDOW_S = 60.0, 1.0


@pytest.mark.short
@ON_SQLITE
def test_f28_one_call_at_a_time_tries_a_vendor_that_fails(stage: Stage, size: LoadSize, judge: Judge) -> None:
    crowd_meets_an_outage(stage, size, judge, "")


@ON_POSTGRES
def test_f28_one_call_at_a_time_over_two_machines(new_stage: Callable[..., Stage], size: LoadSize, judge: Judge) -> None:
    crowd_meets_an_outage(new_stage(machines=2), size, judge, " over two machines")


def crowd_meets_an_outage(stage: Stage, size: LoadSize, judge: Judge, where: str) -> None:
    alias = stage.model("ok", provider=stage.provider(breaker=GROWING))
    loads = [crowd_of(stage, alias, max(size.seconds, 15), number) for number in range(GROUPS)]
    load = loads[0]
    load.wait_until(3.5)
    stage.vendor.control(fail={"ok": FAILING_SLOWLY})
    broken_at = time.time()
    load.wait_until(max(size.fault_until_s, 11))
    stage.vendor.control(fail={})
    history = sum((load.history() for load in loads), History())
    figures = stage.check(history)
    opened_at = min(row.end_t for row in history if row.status == 503)
    calls = [call for call in stage.vendor.ledger() if call.started > opened_at + OPENED_S]
    tried = [call for call in calls if call.status == 500]
    waits_s = [later.started - earlier.ended for earlier, later in pairwise(tried) if earlier.ended]
    back = next(call for call in calls if call.status == 200)
    waits_s.append(back.started - (tried[-1].ended or back.started))
    began_s = [round(call.started - broken_at, 2) for call in stage.vendor.ledger() if call.status == 500]
    why = f"{figures.explain()}\nwaits {[round(wait, 2) for wait in waits_s]}; began {began_s[-20:]}"
    assert len(tried) >= 2, f"the outage was tried too seldom to say anything: {why}"
    judge("F28", f"trial calls per half-open{where}", most_at_once(tried), equals=1, why=why)
    judge("F28", f"shortest wait between trials{where}", min(waits_s), at_least=RESET_S * (1 - JITTER), unit="s", why=why)
    judge("F28", f"longest wait between trials{where}", max(waits_s), at_most=LONGEST_S * (1 + JITTER) + 0.5, unit="s", why=why)
    judge("F28", f"REC after the open time{where}", recovery_s(history, back.started), at_most=1, unit="s", why=why)
    judge("F28", f"AMP{where}", figures.amp, at_most=1.1, unit="×", why=why)
    judge("F28", f"ERRQ{where}", figures.errq_pct, at_least=100, unit="%", why=why)
    judge("F28", f"LOST{where}", figures.lost, at_most=0, why=why)


@pytest.mark.short
@ON_SQLITE
def test_f28_a_vendor_that_flaps_costs_no_more_calls_than_requests(stage: Stage, size: LoadSize, judge: Judge) -> None:
    """Twenty calls fail and twenty are answered, by turns: another target answers what the breaker keeps away."""
    alias = stage.model("fault-500-flap@bad=20,good=20,tokens=5", provider=stage.provider(breaker={"reset_timeout_s": 0.5}))
    stage.model("ok@tokens=5", alias=alias, priority=2)
    figures = stage.check(stage.load(alias, size, pause_s=0.02).history(), expect_tokens=5)
    judge(
        "F28", "requests that fail beside a target that works", figures.requests - figures.statuses["200"], at_most=0, why=figures.explain()
    )
    judge("F28", "AMP of a flapping vendor", figures.amp, at_most=1.1, unit="×", why=figures.explain())
    judge("F28", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())


@pytest.mark.short
@ON_SQLITE
def test_f29_every_vendor_dead(stage: Stage, size: LoadSize, judge: Judge) -> None:
    """Clients ask as often as before the outage, so that what a request costs can be compared."""
    alias = stage.model(*(f"ok-{number}@tokens=20" for number in range(3)))
    stage.vendor.control(fail={"ok-": "ok@tokens=20"})
    dead_s = DEAD_S if size.seconds >= DEAD_S else 6.0
    load = stage.load(alias, LoadSize(max(size.clients, 30), 5 + dead_s, 0, 0), pause_s=0.2)
    load.wait_until(1)
    cpu_before = cpu_share(stage, load, until_s=4)
    stage.vendor.control(fail={"ok-": FAILING})
    dead_at = time.time()
    load.wait_until(5)
    cpu_dead = cpu_share(stage, load, until_s=4 + dead_s)
    history = load.history()
    outage = history.between(dead_at, float("inf"))
    once_open = outage.between(dead_at + BREAKERS_OPEN_S, float("inf"))
    figures = stage.check(outage)
    assert not once_open.ok
    judge("F29", "p99 error latency once open", 1000 * usual_p99_s(once_open), at_most=50, unit="ms", why=figures.explain())
    judge("F29", "AMP", figures.amp, at_most=1.10, unit="×", why=figures.explain())
    judge(
        "F29",
        "AMP of the second before they open",
        amp_of(outage.between(dead_at, dead_at + BREAKERS_OPEN_S), stage),
        at_most=1.10,
        unit="×",
    )
    if dead_s == DEAD_S:  # over a few seconds it is noise
        judge("F29", "CPU during ÷ before", cpu_dead / cpu_before, at_most=1, unit="×", why=figures.explain(), timed=True)
    judge(
        "F29",
        "refused at once, with Retry-After",
        told_when(once_open.where(lambda row: row.status == 503)),
        at_least=100,
        unit="%",
        why=figures.explain(),
    )
    judge("F29", "ERRQ", figures.errq_pct, at_least=100, unit="%", why=figures.explain())
    judge("F29", "LOST", figures.lost, at_most=0, why=figures.explain())


def crowd_of(stage: Stage, alias: str, seconds: float, number: int) -> Load:
    """A part of the crowd, a while after the one before: all at once would ask in waves, and a trial waits for who asks."""
    time.sleep(CROWD_PAUSE_S / GROUPS if number else 0)
    return stage.load(alias, LoadSize(CROWD // GROUPS, seconds, 0, 0), pause_s=CROWD_PAUSE_S)


def usual_p99_s(history: History) -> float:
    """The median of its seconds: a moment in which the machine was busy with something else does not count."""
    began = min(row.invoke_t for row in history)
    seconds = defaultdict(History)
    for row in history:
        seconds[int((row.invoke_t - began) / WINDOW_S)].append(row)
    return median(second.latency_s(0.99) for second in seconds.values())


def most_at_once(calls: Sequence[Call]) -> int:
    """In flight together, those included that began within the wait after another one."""
    return max(sum(other.started <= call.started < (other.ended or float("inf")) + RESET_S / 2 for other in calls) for call in calls)


def cpu_share(stage: Stage, load: Load, until_s: float) -> float:
    """Processor seconds of the workers in a second, from now on."""
    began_s, used_s = time.monotonic(), stage.machine.cpu_s()
    load.wait_until(until_s)
    return (stage.machine.cpu_s() - used_s) / (time.monotonic() - began_s)


def amp_of(history: History, stage: Stage) -> float:
    nonces = {row.nonce for row in history}
    return sum(call.nonce in nonces for call in stage.vendor.ledger()) / len(history)


def told_when(history: History) -> float:
    """Percent of these refusals that say after how many seconds to come back."""
    return 100 * sum(row.headers.get("retry-after", "").isdigit() for row in history) / len(history)
