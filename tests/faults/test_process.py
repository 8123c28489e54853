"""F01 to F03: processes that die lose nothing of what was answered, and nothing is counted twice."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import pytest

from tests.faults.figures import Attempt, Figures, recovery_s
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.machine import Death, Machine
from tests.faults.stage import Stage

KILLS, KILL_EVERY_S = 10, 4.0
LONGEST_S = 20.0  # that a busy machine may take to replace one, the load beside it
KILLS_IN_REPLAY = 20
READY_S = 5.0
TOKENS = 40
PERIOD_S = TOKENS * 0.02
MODEL = f"ok@tokens={TOKENS},delay=0.02"
NOTED_WITHIN_S = 0.1  # 0.02 and the writing are the product's; the rest is what a busy machine lets a process wait for its turn
BYTES_PER_TOKEN = 4  # how the product counts what no vendor counted


@pytest.mark.short
def test_f01_one_of_two_workers_killed_ten_times_under_load(stage: Stage, size: LoadSize, judge: Judge) -> None:
    """Each time the one that has served longest, when the one before was replaced: otherwise it would be an outage."""
    alias = stage.model(MODEL)
    load = stage.load(alias, size._replace(seconds=KILLS * LONGEST_S), spread_s=PERIOD_S, reconnect_every=2)
    by_age = stage.machine.workers()
    load.wait_until(1)
    replaced_s: list[float] = []
    for _ in range(KILLS):
        began = time.monotonic()
        killed = stage.machine.kill_worker(by_age.pop(0))
        stage.machine.wait_replaced(killed, timeout_s=60)
        replaced_s.append(time.monotonic() - began)
        assert by_age[0] in stage.machine.workers(), "a kill took the other worker along"
        by_age += [pid for pid in stage.machine.workers() if pid not in by_age]
        time.sleep(max(0.0, began + KILL_EVERY_S - time.monotonic()))
    load.stop()
    history = load.history()
    figures = stage.check(history, expect_tokens=TOKENS)
    assert len(history.unknown) >= KILLS, "the kills met nobody: this proves nothing"
    slowest_s = max(recovery_s(history, death.at) for death in stage.deaths)
    judge("F01", "LOST", figures.lost, at_most=0, why=figures.explain())
    judge("F01", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F01", "DUP", figures.dup, at_most=0, why=figures.explain())
    judge("F01", "failed requests", len(history.failed), at_most=0, why=figures.explain())
    judge("F01", "short answers", figures.short, at_most=0, why=figures.explain())
    _judge_drift(judge, "F01", figures, stage.deaths)
    judge("F01", "REC", slowest_s, at_most=3, unit="s", why=figures.explain())
    judge("F01", "another worker serves in its place after, median", median(replaced_s), at_most=3, unit="s", why=str(replaced_s))


@pytest.mark.short("both")
def test_f02_everything_killed_under_load_and_started_again(stage: Stage, size: LoadSize, judge: Judge) -> None:
    """What was on its way when everything died has a record, with the tokens forwarded until a moment before."""
    alias = stage.model(MODEL)
    load = stage.load(alias, size, spread_s=PERIOD_S)
    load.wait_until(size.fault_at_s)
    stage.machine.kill()
    began = time.monotonic()
    stage.machine.start()
    ready_s = time.monotonic() - began
    load.wait_until(size.fault_at_s + ready_s + 3)
    load.stop()
    history = load.history()
    figures = stage.check(history, expect_tokens=TOKENS)
    assert history.unknown, "the kill met nobody: this proves nothing"
    judge("F02", "LOST", figures.lost, at_most=0, why=figures.explain())
    judge("F02", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F02", "DUP", figures.dup, at_most=0, why=figures.explain())
    judge("F02", "short answers", figures.short, at_most=0, why=figures.explain())
    judge("F02", "time to ready", ready_s, at_most=READY_S, unit="s", why=str(stage.machine.first_start_s))
    _judge_drift(judge, "F02", figures, stage.deaths)


def _judge_drift(judge: Judge, fault: str, figures: Figures, deaths: Sequence[Death]) -> None:
    """The kernel takes 10 to 60 ms to close what a killed process held, in which the vendor goes on sending to nobody. So a stream
    that was cut is compared with what its client had been given, and when: how much comes in the last moment depends on the machine."""
    pairs = [attempt for attempt in figures.attempts if attempt.call and attempt.call.how != "running"]
    cut = [attempt for attempt in pairs if attempt.usage and attempt.usage.status == "interrupted" and attempt.row and attempt.row.tokens]
    whole = [attempt for attempt in pairs if attempt.usage and attempt.usage.status != "interrupted"]
    explained = f"{[(attempt.row and attempt.row.arrivals, attempt.charged) for attempt in cut]}; {figures.explain()}"
    assert cut, f"no stream was cut with tokens in it: this proves nothing\n{explained}"
    uncharged_s = max(_uncharged_s(attempt, deaths) for attempt in cut)
    judge(fault, "tokens forwarded and not charged, how old", uncharged_s, at_most=NOTED_WITHIN_S, unit="s", why=explained)
    sent = sum(attempt.sent for attempt in whole)
    drift = abs(sum(attempt.charged - attempt.sent for attempt in whole))
    judge(fault, "DRIFT of what was not cut", 100 * drift / sent, at_most=0.1, unit="%", why=explained)


def _uncharged_s(attempt: Attempt, deaths: Sequence[Death]) -> float:
    """How long before the kill its client had the first token that the record does not charge; 0 where it charges all."""
    assert attempt.row is not None
    uncharged = [at for at, length in attempt.row.arrivals if -(-length // BYTES_PER_TOKEN) > attempt.charged]
    killed_at = max((death.at for death in deaths if attempt.row.invoke_t < death.at <= attempt.row.end_t), default=attempt.row.end_t)
    return max(0.0, killed_at - uncharged[0]) if uncharged else 0.0


def test_f03_killed_during_replay_again_and_again(new_stage: Callable[..., Stage], size: LoadSize, judge: Judge, tmp_path: Path) -> None:
    """Before each start the whole journal is laid back, as if nothing had been noted of the replay before."""
    stage = new_stage(workers=1, env={"LLM_DRAIN_INTERVAL_S": "60"})
    load = stage.load(stage.model("ok@tokens=2"), size._replace(seconds=6))
    history = load.history()
    stage.machine.kill()
    aside = tmp_path / "journal"
    shutil.copytree(stage.machine.state_dir / "journal", aside)
    assert not stage.database.usage(), "something was drained: too little is left to replay"
    dice = random.Random(3)
    met = sum(kill_in_replay(stage.machine, aside, dice.uniform(0, 0.3)) for _ in range(KILLS_IN_REPLAY))
    stage.machine.start()
    stage.machine.terminate()
    assert stage.machine.wait() == 0
    figures = stage.check(history)
    assert met >= KILLS_IN_REPLAY / 4, f"only {met} kills met a replay"
    judge("F03", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F03", "DUP", figures.dup, at_most=0, why=figures.explain())
    judge("F03", "DRIFT of answered requests", figures.answered_drift_pct, at_most=0.1, unit="%", why=figures.explain())


def kill_in_replay(machine: Machine, aside: Path, after_s: float) -> bool:
    """Starts, and kills `after_s` after it was up. Returns whether the replay was still going on."""
    shutil.copytree(aside, machine.state_dir / "journal", dirs_exist_ok=True)
    machine.start(wait=False)
    machine.wait_until_started()
    time.sleep(after_s)
    machine.kill()
    left = {path.name for path in aside.iterdir()} & {path.name for path in (machine.state_dir / "journal").iterdir()}
    return bool(left)
