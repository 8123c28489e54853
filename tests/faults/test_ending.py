"""F04 to F06: ends in good order lose nothing, and a rolling restart refuses nobody."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.faults.backends import ON_SQLITE
from tests.faults.history import History
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.processes import until
from tests.faults.stage import Stage

ENDS, END_EVERY_S = 50, 2.0
GRACE_S = 10  # 30 as delivered; fifty streams of 3 s take longer than 5 s where the machine is busy
THREE_SECONDS = "ok@tokens=30,delay=0.1"
LONGER_THAN_GRACE = "ok@tokens=300,delay=0.1"


@pytest.mark.short
@ON_SQLITE
def test_f04_sigterm_under_load_with_streams_of_three_seconds(new_stage: Callable[..., Stage], size: LoadSize, judge: Judge) -> None:
    """Everything that was accepted is answered in full; the first refusal comes after the last acceptance."""
    stage = new_stage(env={"LLM_SHUTDOWN_GRACE_S": str(GRACE_S)})
    alias = stage.model(THREE_SECONDS)
    load = stage.load(alias, size._replace(seconds=size.fault_at_s + GRACE_S + 5), stream=True)
    load.wait_until(size.fault_at_s)
    told_at, told_s = time.time(), time.monotonic()
    stage.machine.terminate()
    status = stage.machine.wait(GRACE_S + 10)
    ended_s = time.monotonic() - told_s
    load.stop()
    history = load.history()
    figures = stage.check(history, expect_tokens=30)
    under_way = history.where(lambda row: row.invoke_t < told_at < row.end_t)
    refused = history.where(lambda row: row.reason == "refused")
    others = History(row for row in history.failed if row.reason != "refused")
    assert len(under_way) >= size.clients / 2, "hardly a stream was under way: this proves nothing"
    assert refused, "nobody asked after the listener had closed"
    early = [row for row in history.ok if row.invoke_t > min(other.end_t for other in refused)]
    judge("F04", "streams completed", 100 * len(under_way.ok) / len(under_way), equals=100.0, unit="%", why=figures.explain())
    judge("F04", "failed other than by refusal", len(others), at_most=0, why=figures.explain())
    judge("F04", "accepted after the first refusal", len(early), at_most=0)
    judge("F04", "LOST", figures.lost, at_most=0, why=figures.explain())
    judge("F04", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F04", "short answers", figures.short, at_most=0, why=figures.explain())
    judge("F04", "exit", ended_s, at_most=GRACE_S, unit="s")
    judge("F04", "exit status", status, equals=0)


@pytest.mark.short
@ON_SQLITE
@pytest.mark.parametrize("hurried", [False, True], ids=["grace-exceeded", "second-signal"])
def test_f05_streams_that_outlast_the_grace_are_cut_and_charged(
    new_stage: Callable[..., Stage], size: LoadSize, judge: Judge, hurried: bool
) -> None:
    grace_s = 30.0 if hurried else 2.0
    stage = new_stage(env={"LLM_SHUTDOWN_GRACE_S": f"{grace_s:.0f}"})
    load = stage.load(stage.model(LONGER_THAN_GRACE), size, stream=True)
    load.wait_until(2)
    stage.machine.terminate()
    began = time.monotonic()
    if hurried:
        time.sleep(1)
        began = time.monotonic()
        stage.machine.terminate()
    stage.machine.wait(60)
    over_s = time.monotonic() - began - (0.0 if hurried else grace_s)
    load.stop()
    history = load.history()
    figures = stage.check(history)
    cut = history.where(lambda row: row.status == 200)
    told = [row for row in cut if row.error is not None and not row.done]
    assert len(cut) >= size.clients, "hardly a stream was cut: this proves nothing"
    judge("F05", "cut streams with an error event", 100 * len(told) / len(cut), equals=100.0, unit="%", why=figures.explain())
    judge("F05", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F05", "DUP", figures.dup, at_most=0, why=figures.explain())
    judge("F05", "ERRQ", figures.errq_pct, at_least=100.0, unit="%", why=figures.explain())
    charged = [attempt for attempt in figures.attempts if attempt.call and attempt.usage]
    off = max(abs(attempt.charged - attempt.sent) for attempt in charged)
    judge("F05", "charged beside what was sent, tokens per stream", off, at_most=2, why=figures.explain())
    judge("F05", "exit after the second signal" if hurried else "exit after the grace", over_s, at_most=2, unit="s")


@ON_SQLITE
def test_f06_rolling_restart_under_load(new_stage: Callable[..., Stage], size: LoadSize, judge: Judge) -> None:
    """SIGHUP: the workers go one by one. Half of the clients keep their connections, half take new ones. The grace is the
    product's own: on a busy machine streams of three seconds take longer than the stage's."""
    stage = new_stage(env={"LLM_SHUTDOWN_GRACE_S": "30"})
    alias = stage.model("ok@tokens=40,delay=0.02", THREE_SECONDS)
    streams = stage.model(THREE_SECONDS)
    half = size._replace(clients=size.clients // 2, seconds=60)
    loads = [stage.load(alias, half), stage.load(alias, half, reconnect_every=1), stage.load(streams, half, stream=True, reconnect_every=2)]
    loads[0].wait_until(2)
    before = set(stage.machine.workers())
    began = time.time()
    stage.machine.process.send_signal(signal.SIGHUP)
    until(lambda: not before & set(stage.machine.workers()), "all workers are replaced", timeout_s=120)
    stage.machine.wait_until_started()
    took_s = time.time() - began
    time.sleep(1.5)
    for load in loads:
        load.stop()
    history = History(row for load in loads for row in load.history())
    figures = stage.check(history)
    long = loads[2].history().where(lambda row: row.invoke_t < began + took_s and row.end_t > began)
    judge("F06", "LOST", figures.lost, at_most=0, why=figures.explain())
    judge("F06", "failed requests", len(history.failed), at_most=0, why=figures.explain())
    judge("F06", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F06", "streams completed", 100 * len(long.ok) / len(long), equals=100.0, unit="%", why=figures.explain())
    judge("G12", "streams finished on a rolling restart", 100 * len(long.ok) / len(long), equals=100.0, unit="%")


@ON_SQLITE
def test_g1_fifty_workers_ended_under_load(stage: Stage, size: LoadSize, judge: Judge) -> None:
    """By turns without warning and in good order, the one that has served longest first."""
    load = stage.load(stage.model("ok@tokens=20,delay=0.02"), size._replace(seconds=240), reconnect_every=2)
    by_age = stage.machine.workers()
    load.wait_until(1)
    for number in range(ENDS):
        began, leaving = time.monotonic(), by_age.pop(0)
        if number % 2:
            os.kill(leaving, signal.SIGTERM)
        else:
            stage.machine.kill_worker(leaving)
        stage.machine.wait_replaced(leaving)
        by_age += [pid for pid in stage.machine.workers() if pid not in by_age]
        time.sleep(max(0.0, began + END_EVERY_S - time.monotonic()))
    load.stop()
    history = load.history()
    figures = stage.check(history)
    assert len(history.unknown) >= ENDS / 4, "the kills met nobody: this proves nothing"
    judge("G1", f"usage lost in {ENDS} ends of a worker", figures.use_lost, at_most=0, why=figures.explain())
    judge("G1", "DUP", figures.dup, at_most=0, why=figures.explain())
    judge("G1", "LOST", figures.lost, at_most=0, why=figures.explain())
