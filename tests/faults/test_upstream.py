"""F17, F21 and F22: another target answers for a vendor that cannot be reached, and one that breaks off is never passed on as whole."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest

from tests.faults.backends import ON_SQLITE
from tests.faults.history import History
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.processes import free_port
from tests.faults.stage import Stage

NEVER_OPENS = {"fail_max": 1000, "reset_timeout_s": 1}
BREAKING = ("fault-reset", "fault-reset-midstream@delay=0.03", "fault-eof-midstream@delay=0.03")
SPARE = "ok@tokens=6"
CLIENTS, SECONDS, ROUNDS = 6, 3.0, 5
STAYS_OPEN = {"fail_max": 5, "reset_timeout_s": 60}
WORKERS = 2  # the stage's
# Between two requests: four loads at once are far less than two workers can take, so that what is measured is the way and not the queue.
UNHURRIED_S, WINDOW_S = 0.2, 10


@pytest.mark.short
def test_f21_a_connection_that_breaks_is_an_error_to_the_client(stage: Stage, size: LoadSize, judge: Judge) -> None:
    history = under_load(stage, *(stage.model(name, provider=stage.provider(breaker=NEVER_OPENS)) for name in BREAKING))
    figures = stage.check(history)
    judge("F21", "answers that seem whole", len(history.ok), at_most=0, why=figures.explain())
    judge("F21", "client sees the error", share_pct(history.failed, history), at_least=100, unit="%", why=figures.explain())
    judge("F21", "ERRQ", figures.errq_pct, at_least=100, unit="%", why=figures.explain())
    judge("F21", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F21", "DUP", figures.dup, at_most=0, why=figures.explain())
    judge("F21", "DRIFT", figures.drift_pct, at_most=0.1, unit="%", why=figures.explain())


@pytest.mark.short
def test_f21_another_target_answers_unless_content_has_been_sent(stage: Stage, judge: Judge) -> None:
    aliases = []
    for name in BREAKING:
        alias = stage.model(name, provider=stage.provider(breaker=NEVER_OPENS))
        aliases.append(stage.model(SPARE, alias=alias, priority=2))
    history = under_load(stage, *aliases)
    figures = stage.check(history, expect_tokens=6)
    began = history.where(lambda row: row.stream and row.alias != aliases[0])
    judge(
        "F21",
        "answered by the next target",
        share_pct(history.ok, set_apart(history, began)),
        at_least=100,
        unit="%",
        why=figures.explain(),
    )
    judge("F21", "streams tried again after content", len(began.ok), at_most=0, why=figures.explain())
    judge("F21", "answers cut short", figures.short, at_most=0, why=figures.explain())
    judge("F21", "DRIFT with a next target", figures.drift_pct, at_most=0.1, unit="%", why=figures.explain())


@pytest.mark.short
def test_f22_a_stream_without_its_end_mark_is_no_success(stage: Stage, judge: Judge) -> None:
    history = under_load(stage, stage.model("fault-no-done@delay=0.03", provider=stage.provider(breaker=NEVER_OPENS)))
    figures = stage.check(history)
    judge("F22", "silent success", len(history.ok) + len(history.unknown), at_most=0, why=figures.explain())
    judge("F22", "invented finish_reason", sum(bool(row.finish_reason) for row in history), at_most=0, why=figures.explain())
    judge("F22", "ERRQ", figures.errq_pct, at_least=100, unit="%", why=figures.explain())
    # Of a whole answer nothing is passed on, and so nothing is charged, although the vendor counted it.
    streams = stage.check(history.where(lambda row: row.stream))
    judge("F22", "DRIFT of streams", streams.drift_pct, at_most=0.1, unit="%", why=streams.explain())


def under_load(stage: Stage, *aliases: str) -> History:
    """A few clients on each alias, all at once, half of them streaming."""
    loads = [stage.load(alias, LoadSize(CLIENTS, SECONDS, 0, 0)) for alias in aliases]
    history = sum((load.history() for load in loads), History())
    assert {(row.alias, row.stream) for row in history} == {(alias, stream) for alias in aliases for stream in (False, True)}
    return history


def set_apart(history: History, others: History) -> History:
    nonces = {row.nonce for row in others}
    return history.where(lambda row: row.nonce not in nonces)


def share_pct(part: History, whole: History) -> float:
    return 100 * len(part) / len(whole)


def nobody_there(stage: Stage, breaker: dict[str, int]) -> dict[str, Any]:
    return stage.provider(base_url=f"http://127.0.0.1:{free_port()}/v1", breaker=breaker)


@ON_SQLITE
def test_f17_another_target_answers_at_once(stage: Stage, judge: Judge) -> None:
    direct = stage.model(SPARE)
    failing = {
        "refused": stage.model(SPARE, provider=nobody_there(stage, NEVER_OPENS)),
        "500": stage.model("fault-500", provider=stage.provider(breaker=NEVER_OPENS)),
        "breaker open": stage.model(SPARE, provider=nobody_there(stage, STAYS_OPEN)),
    }
    for alias in failing.values():
        stage.model(SPARE, alias=alias, priority=2)
    added_ms: dict[str, list[float]] = {what: [] for what in failing}
    for _ in range(ROUNDS):  # a moment in which the machine was busy is in one of them
        loads = {alias: stage.load(alias, LoadSize(CLIENTS, WINDOW_S, 0, 0), pause_s=UNHURRIED_S) for alias in (direct, *failing.values())}
        rows = {alias: load.history() for alias, load in loads.items()}
        usual_s = rows[direct].latency_s(0.99)
        for what, alias in failing.items():
            assert len(rows[alias].ok) == len(rows[alias]) > 50, rows[alias].statuses()
            added_ms[what].append(1000 * (rows[alias].latency_s(0.99) - usual_s))
    for what, found in added_ms.items():
        judge("F17", f"added latency p99, {what} (G10)", median(found), at_most=50, unit="ms", why=str(found))
    for what in ("refused", "breaker open"):
        judge("F17", f"AMP, {what}", stage.check(rows[failing[what]]).amp, at_most=1.1)


@ON_SQLITE
def test_f17_the_breaker_opens_and_says_when_to_come_back(stage: Stage, judge: Judge) -> None:
    dead, helped_dead = nobody_there(stage, STAYS_OPEN), nobody_there(stage, STAYS_OPEN)
    lonely, helped = stage.model(SPARE, provider=dead), stage.model(SPARE, provider=helped_dead)
    stage.model(SPARE, alias=helped, priority=2)
    rows = History(stage.ask(alias, stream=number % 2 == 0) for number in range(40) for alias in (lonely, helped))
    alone = rows.where(lambda row: row.alias == lonely)
    figures = stage.check(rows)
    tried = [used for used in stage.database.usage() if used.provider_name in (dead["name"], helped_dead["name"])]
    most = max(sum(used.provider_name == provider["name"] for used in tried) for provider in (dead, helped_dead))
    judge("F17", "failures until every worker's breaker is open", most / WORKERS, at_most=STAYS_OPEN["fail_max"], why=str(alone.statuses()))
    paused = alone.where(lambda row: row.status == 503)
    assert len(paused) > len(alone) / 2, alone.statuses()
    assert alone.statuses().keys() <= {"502 upstream_unreachable", "503 upstream_paused"}, alone.statuses()
    told = paused.where(lambda row: 0 < int(row.headers.get("retry-after", 0)) <= STAYS_OPEN["reset_timeout_s"] * 1.1)
    judge("F17", "503 with Retry-After", 100 * len(told) / len(paused), at_least=100, unit="%", why=str(paused[0].headers))
    judge("F17", "ERRQ", figures.errq_pct, at_least=100, unit="%", why=figures.explain())
    judge("F17", "error latency p99, breaker open", 1000 * paused.latency_s(0.99), at_most=50, unit="ms")
