"""F13 and F14: Redis away, hanging, or back with nothing in it: limits hold nearly as before, and nobody else notices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from statistics import median

import pytest

from tests.faults.backends import ON_POSTGRES
from tests.faults.figures import recovery_s
from tests.faults.history import History
from tests.faults.judge import Judge
from tests.faults.loads import Load, LoadSize
from tests.faults.machine import Machine
from tests.faults.processes import until
from tests.faults.services import Redis
from tests.faults.stage import Stage

pytestmark = ON_POSTGRES

PER_MINUTE = 300
PER_S = PER_MINUTE / 60
PAUSE_S, CLIENTS = 0.05, 8
# How long the burst that a key may begin with takes at most, on a machine with other things to do.
USED_UP_S = 30.0
BEFORE_S, AFTER_S = 6.0, 9.0
# Redis is asked again, and beats, every second: by then everything is as it was.
SETTLED_S = 3.0
WINDOW_S = 1.0
NEWLY_S = 15.0


@contextmanager
def killed(redis: Redis) -> Iterator[None]:
    redis.kill()
    yield
    redis.start()


@contextmanager
def hanging(redis: Redis) -> Iterator[None]:
    redis.freeze()
    yield
    redis.thaw()


@pytest.mark.parametrize("outage", [killed, hanging])
def test_f13_redis_is_away(
    new_stage: Callable[..., Stage], size: LoadSize, judge: Judge, outage: Callable[[Redis], AbstractContextManager[None]]
) -> None:
    stage = new_stage(machines=2)
    how, away_s = " (killed)" if outage is killed else " (hanging)", max(8.0, size.fault_until_s - size.fault_at_s)
    limited, others = two_loads(stage, USED_UP_S + BEFORE_S + away_s + AFTER_S)
    wait_until_used_up(limited)
    time.sleep(BEFORE_S)
    with outage(redis_of(stage)):
        lost_at = time.time()
        time.sleep(away_s)
    back_at = time.time()
    time.sleep(AFTER_S)
    stop(limited, others)
    ours, theirs = limited.history(), others.history()
    figures = stage.check(ours + theirs)
    why = f"{figures.explain()}\nadmitted before {rate_of(ours, lost_at - BEFORE_S, lost_at):.1f} a second of {PER_S:g}"
    judge("F13", f"admitted of the limit{how}", rate_of(ours, lost_at, back_at) / PER_S, at_most=1.2, unit="×", why=why)
    if outage is hanging:  # a Redis that was killed comes back empty: that is F14
        again = rate_of(ours, back_at + SETTLED_S, max(row.invoke_t for row in ours)) / PER_S
        judge("F13", f"admitted of the limit, once it is back{how}", again, at_most=1.2, unit="×", why=why)
    baseline = p99s_s(theirs, lost_at - BEFORE_S, lost_at) + p99s_s(theirs, back_at + SETTLED_S, back_at + AFTER_S)
    iso = median(p99s_s(theirs, lost_at, back_at)) / median(baseline)
    judge("F13", f"ISO{how}", iso, at_most=1.3, unit="×", why=why)
    judge("F13", f"others' failures{how}", len(theirs) - len(theirs.ok), at_most=0, why=why)
    judge("F13", f"REC{how}", recovery_s(theirs, back_at), at_most=3, unit="s", why=why)
    judge("F13", f"REC of the limit that all share{how}", shared_again_s(stage, back_at), at_most=3, unit="s")
    judge("F13", f"ERRQ{how}", figures.errq_pct, at_least=100, unit="%", why=why)
    judge("F13", f"USE_LOST{how}", figures.use_lost, at_most=0, why=why)


def test_f14_redis_comes_back_empty(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(machines=2)
    revoked = stage.api_key()
    limited, others = two_loads(stage, USED_UP_S + 2 * NEWLY_S)
    wait_until_used_up(limited)
    stage.control.call("DELETE", f"/api/v1/llm/keys/{revoked['id']}")
    stage.apply()
    lost_at = time.time()
    redis_of(stage).restart(empty=True)
    time.sleep(NEWLY_S)
    stop(limited, others)
    took_s = time.time() - lost_at
    ours, theirs = limited.history(), others.history()
    alias = theirs[0].alias
    statuses = [stage.ask(alias, key=revoked["key"], machine=machine).status for machine in stage.machines for _ in range(4)]
    figures = stage.check(ours + theirs)
    why = figures.explain()
    newly = len(ours.ok.between(lost_at, lost_at + took_s))
    judge("F14", "admitted next ÷ one burst and what is refilled", newly / (PER_MINUTE + took_s * PER_S), at_most=1.05, unit="×", why=why)
    judge("F14", "admitted in the next window ÷ limit", newly / PER_MINUTE, at_most=2, unit="×", why=why)
    judge("F14", "revoked key accepted", sum(status != 401 for status in statuses), at_most=0, why=str(statuses))
    judge("F14", "others' failures", len(theirs) - len(theirs.ok), at_most=0, why=why)
    judge("F14", "USE_LOST", figures.use_lost, at_most=0, why=why)


def two_loads(stage: Stage, seconds: float) -> tuple[Load, Load]:
    """One that asks for much more than its key may, and one without a limit that does not ask for much; on every machine."""
    alias = stage.model("ok@tokens=5,ttfb=0.05")
    key = stage.api_key(rate_limit={"requests_per_minute": PER_MINUTE})["key"]
    size = LoadSize(CLIENTS, seconds, 0, 0)
    return stage.load(alias, size, key=key, pause_s=PAUSE_S), stage.load(alias, size, pause_s=PAUSE_S)


def wait_until_used_up(limited: Load) -> None:
    """The burst that its key may begin with."""
    until(lambda: any(row.status == 429 for row in limited.so_far()), "the key is limited", timeout_s=USED_UP_S, every_s=0.2)


def stop(*loads: Load) -> None:
    for load in loads:
        load.stop()


def redis_of(stage: Stage) -> Redis:
    assert stage.services.redis is not None
    return stage.services.redis


def rate_of(history: History, start: float, end: float) -> float:
    """Admitted in a second."""
    return len(history.ok.between(start, end)) / (end - start)


def p99s_s(history: History, start: float, end: float) -> list[float]:
    """Of each second: the machine may be busy with something else for a moment."""
    windows = (history.between(start + n * WINDOW_S, start + (n + 1) * WINDOW_S) for n in range(int((end - start) / WINDOW_S)))
    return [window.latency_s(0.99) for window in windows if window]


def shared_again_s(stage: Stage, back_at: float) -> float:
    """From `back_at` until every process has said in its log that Redis answers again."""
    said = [again for machine in stage.machines for again in heard_again(machine, back_at)]
    return max(said) - back_at


def heard_again(machine: Machine, back_at: float) -> list[float]:
    """When each of its workers first said so."""
    moments = [answered_at(line) for line in machine.log_text().splitlines() if "limits hold for all machines" in line]
    found = sorted(moment for moment in moments if moment > back_at - WINDOW_S)[: machine.workers_wanted]
    assert len(found) == machine.workers_wanted, "a worker has not found Redis again"
    return found


def answered_at(line: str) -> float:
    """The moment that begins a line of a log."""
    stamp, _, thousandths = line[:23].partition(",")
    return time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S")) + float(thousandths) / 1000
