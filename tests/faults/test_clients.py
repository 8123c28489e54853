"""F34 and F35: clients that leave cost what they were sent, and nothing more is done for them; G12: those that stay are served."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.faults.figures import Attempt, Figures
from tests.faults.history import History, quantile_of
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.processes import until
from tests.faults.stage import Stage

LEAVERS, LEAVES = 25, 500
BYTES_PER_TOKEN = 4  # of a stream that was cut, as the product counts
TOKENS, DELAY_S = 40, 0.02
MODEL = f"ok@tokens={TOKENS},delay={DELAY_S}"
LEFT_AT_LEAST = 10
NEVER_OPENS = {"fail_max": 1000, "reset_timeout_s": 1}
BREAKING = ("fault-reset-midstream@delay=0.03", "fault-eof-midstream@delay=0.03", "fault-error-midstream@delay=0.03")
# A call that set out before the client had left may reach the vendor after it; on loopback that takes less than this.
ON_ITS_WAY_S = 0.02


@pytest.mark.short
def test_f34_clients_leave_in_mid_stream_500_times(stage: Stage, judge: Judge) -> None:
    load = stage.load(stage.model(MODEL), LoadSize(LEAVERS, 60, 0, 0), stream=True, abandon=lambda dice: dice.randrange(1, TOKENS - 2))
    until(lambda: len(load.so_far()) >= LEAVES, "500 clients have left", timeout_s=60)
    load.stop()
    history = load.history()
    figures = stage.check(history)
    assert all(row.abandoned for row in history), figures.explain()
    usage = [attempt.usage for attempt in figures.attempts if attempt.usage]
    judge("F34", "clients that left", len(history), at_least=LEAVES)
    judge("F34", "cancel p99 (G13)", quantile_of(cancel_s(history, figures), 0.99), at_most=1, unit="s", why=figures.explain())
    judge("F34", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F34", "DUP", figures.dup, at_most=0, why=figures.explain())
    judge("F34", "records of another status", sum(used.status != "client_closed" for used in usage), at_most=0, why=figures.explain())
    judge("F34", "records without a prompt", sum(not used.input_tokens for used in usage), at_most=0, why=figures.explain())
    called = [attempt for attempt in figures.attempts if attempt.call]
    beside = max(map(beside_both, called))
    judge("F34", "charged less than its client has, or more than the vendor sent", beside, at_most=1, unit="tokens", why=figures.explain())
    worst = max(abs(attempt.charged - attempt.sent) for attempt in called)  # what a vendor sends until it notices
    judge("F34", "DRIFT of a single one", worst, at_most=1, unit="tokens", why=figures.explain(), timed=True)


def beside_both(attempt: Attempt) -> int:
    """Tokens. Between the client's last look and its leaving, and the vendor's last token and its noticing, the truth is in between."""
    assert attempt.row is not None
    has = -(-len(attempt.row.text) // BYTES_PER_TOKEN)
    return max(has - attempt.charged, attempt.charged - attempt.sent, 0)


def test_f34_accounts_are_right_where_clients_leave_and_streams_break(stage: Stage, size: LoadSize, judge: Judge) -> None:
    """G4: a third stay, a third leave, a third meet a vendor that breaks off."""
    whole = stage.model(MODEL)
    broken = [stage.model(name, provider=stage.provider(breaker=NEVER_OPENS)) for name in BREAKING]
    part = size._replace(clients=max(2, size.clients // 3))
    loads = [
        stage.load(whole, part),
        stage.load(whole, part, stream=True, abandon=lambda dice: dice.randrange(1, TOKENS - 2)),
        *(stage.load(alias, part._replace(clients=2), stream=True) for alias in broken),
    ]
    history = sum((load.history() for load in loads), History())
    figures = stage.check(history)
    judge("F34", "DRIFT with disconnects and broken streams (G4)", figures.drift_pct, at_most=0.1, unit="%", why=figures.explain())
    judge("F34", "USE_LOST with broken streams", figures.use_lost, at_most=0, why=figures.explain())
    judge("F34", "DUP with broken streams", figures.dup, at_most=0, why=figures.explain())


def test_f35_clients_leave_before_the_first_byte(stage: Stage, judge: Judge) -> None:
    """The next target would answer, were it asked."""
    patient = stage.provider(breaker=NEVER_OPENS)
    alias = stage.model("fault-stall", provider=patient)
    stage.model("ok", alias=alias, priority=2)
    figures, history = left_early(stage, alias, after_s=0.3)
    judge("F35", "cancel p99", quantile_of(cancel_s(history, figures), 0.99), at_most=1, unit="s", why=figures.explain())
    judge("F35", "upstream calls after the client left", called_after(figures), at_most=0, why=figures.explain())
    judge("F35", "AMP", figures.amp, at_most=1, unit="×", why=figures.explain())
    judge("F35", "records of another status", other_statuses(figures), at_most=0, why=figures.explain())
    judge("F35", "DUP", figures.dup, at_most=0, why=figures.explain())


def test_f35_clients_leave_during_a_retry(stage: Stage, judge: Judge) -> None:
    """The first target fails at once, and is tried again after a wait (where the budget for retries lets it); or the vendor times
    out, and the next target is slow."""
    failing = stage.model("fault-503@ttfb=0.05", provider=stage.provider(breaker=NEVER_OPENS))
    stalling = stage.model("fault-stall", provider=stage.provider(breaker=NEVER_OPENS, timeouts={"first_byte_s": 0.2}))
    stage.model("ok@ttfb=10", alias=stalling, priority=2)
    for name, alias, after_s in (("a wait", failing, 0.15), ("the next target's answer", stalling, 0.3)):
        figures, history = left_early(stage, alias, after_s)
        judge("F35", f"upstream calls after leaving during {name}", called_after(figures), at_most=0, why=figures.explain())
        judge("F35", f"DUP, leaving during {name}", figures.dup, at_most=0, why=figures.explain())
        gone_s = quantile_of(cancel_s(history, figures), 0.99)
        judge("F35", f"cancel p99, leaving during {name}", gone_s, at_most=1, unit="s", why=figures.explain())


def test_g12_streams_are_finished_in_a_rolling_restart(stage: Stage, judge: Judge) -> None:
    """Every worker is replaced while twenty streams of 3 s are under way, and new ones come."""
    old = set(stage.machine.workers())
    load = stage.load(stage.model("ok@tokens=60,delay=0.05"), LoadSize(20, 6, 0, 0), stream=True, reconnect_every=1)
    load.wait_until(1)
    os.kill(stage.machine.pid, signal.SIGHUP)
    until(lambda: not old & set(stage.machine.workers()), "every worker is replaced", timeout_s=40)
    history = load.history()
    figures = stage.check(history, expect_tokens=60)
    judge("F06", "streams finished (G12)", 100 * len(history.ok) / len(history), at_least=100, unit="%", why=figures.explain())
    judge("F06", "streams cut short (G12)", figures.short, at_most=0, why=figures.explain())
    judge("F06", "USE_LOST (G12)", figures.use_lost, at_most=0, why=figures.explain())


def left_early(stage: Stage, alias: str, after_s: float) -> tuple[Figures, History]:
    """Clients of both kinds ask and leave `after_s` later, for three seconds."""
    history = stage.load(alias, LoadSize(10, 3, 0, 0), timeout_s=after_s).history()
    time.sleep(1.5)  # what would still be asked of the vendor comes now
    figures = stage.check(history)
    assert len([row for row in history if row.reason == "timeout"]) >= LEFT_AT_LEAST, figures.explain()
    return figures, history


def cancel_s(history: History, figures: Figures) -> list[float]:
    """From a client's leaving to the end of the vendor's call, for calls that were then under way."""
    left = {row.nonce: row.end_t for row in history}
    calls = [attempt.call for attempt in figures.attempts if attempt.call]
    return [(call.ended or float("inf")) - left[call.nonce] for call in calls if (call.ended or float("inf")) > left[call.nonce]]


def called_after(figures: Figures) -> int:
    return sum(attempt.call.started > attempt.row.end_t + ON_ITS_WAY_S for attempt in figures.attempts if attempt.call and attempt.row)


def other_statuses(figures: Figures) -> int:
    return sum(attempt.usage.status != "client_closed" for attempt in figures.attempts if attempt.usage)
