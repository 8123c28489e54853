"""F15: the wall clock jumps by an hour, there and back, under load. Whatever waits or counts goes by another clock."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.history import History
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.processes import until
from tests.faults.stage import Stage

HOUR_S = 3600
DEAD, PAUSED = "fault-503", "upstream_paused"
STAYS_OPEN = {"fail_max": 5, "reset_timeout_s": 3000, "max_reset_timeout_s": 3000}
REQUESTS_PER_MINUTE = 120
LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"
MODEL, SHORTEST_S = "ok@tokens=20,delay=0.02", 0.3  # the vendor takes longer than that
# With this library, every time.sleep of Python fails: it takes the end of a sleep on the monotonic clock for a wall clock's.
SLEEP_OTHERWISE = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


class Clock:
    """The wall clock of every process that has `env`."""

    def __init__(self, folder: Path) -> None:
        found = sorted(Path("/").glob(LIBRARY.removeprefix("/")))
        if not found:
            reason = "not installed: faketime (Debian's package of that name)"
            pytest.fail(reason) if os.environ.get("REQUIRE_SERVICES") == "1" else pytest.skip(reason)
        self._file = folder / "clock"
        self.jump(0)
        (folder / "sitecustomize.py").write_text(SLEEP_OTHERWISE)
        self.env = {
            "PYTHONPATH": str(folder),
            "LD_PRELOAD": str(found[-1]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
        }

    def jump(self, to_s: int) -> None:
        """So many seconds from the true time, in a second at the latest."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{to_s:+d}s\n")
        new.replace(self._file)


def test_f15_the_clock_jumps_by_an_hour_and_back(new_stage: Callable[..., Stage], size: LoadSize, judge: Judge, tmp_path: Path) -> None:
    """Beside the load: a key with a limit that is always asked for more, and a vendor whose breakers are open."""
    clock = Clock(tmp_path)
    stage = new_stage(env=clock.env)
    alias = stage.model(MODEL)
    quick, dead = stage.model("ok@tokens=1"), stage.model(DEAD, provider=stage.provider(breaker=STAYS_OPEN))
    limited = stage.api_key(rate_limit={"requests_per_minute": REQUESTS_PER_MINUTE})
    until(lambda: {stage.ask(dead).code for _ in range(20)} == {PAUSED}, "every worker's breaker is open")
    before = calls_of(stage, DEAD)
    load = stage.load(alias, size)
    greedy = stage.load(quick, size._replace(clients=4), key=limited["key"], reconnect_every=20)
    refused = stage.load(dead, size._replace(clients=2), reconnect_every=5)
    load.wait_until(size.seconds * 0.25)
    for share, to_s in ((0.25, HOUR_S), (0.5, -HOUR_S), (0.75, 0)):
        load.wait_until(size.seconds * share)
        clock.jump(to_s)
    history, admitted, paused = load.history(), greedy.history(), refused.history()
    figures = stage.check(history)
    assert hours_off(stage, history) == {-1, 0, 1}, "the clock did not jump"
    wrong = wrong_durations(stage, history)
    judge("F15", "failed requests", len(history.failed) + figures.lost, at_most=0, why=figures.explain())
    judge("F15", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F15", "DUP", figures.dup, at_most=0, why=figures.explain())
    judge("F15", "admitted beyond the limit", extra_admissions(admitted), at_most=0, why=str(admitted.statuses()))
    judge("F15", "durations that no client saw", len(wrong), at_most=0, why="\n".join(wrong[:10]))
    judge("F15", "calls past an open breaker", calls_of(stage, DEAD) - before, at_most=0, why=str(paused.statuses()))


def calls_of(stage: Stage, model_id: str) -> int:
    return sum(call.model == model_id for call in stage.vendor.ledger())


def hours_off(stage: Stage, history: History) -> set[int]:
    """By which the moments on record differ from the clients'."""
    asked = {row.request_id: row.invoke_t for row in history}
    return {round((used.started_at - asked[used.request_id]) / HOUR_S) for used in stage.database.usage() if used.request_id in asked}


def extra_admissions(history: History) -> int:
    """Beyond a full bucket and what flows into it meanwhile."""
    seconds = max(row.end_t for row in history) - min(row.invoke_t for row in history)
    return max(0, len(history.ok) - int(REQUESTS_PER_MINUTE * (1 + seconds / 60)) - 1)


def wrong_durations(stage: Stage, history: History) -> list[str]:
    """What is on record and is not within the client's own time, a sentence each. A negative one would be kept as 0."""
    found = []
    for table in ("usagerecord", "requestlog"):
        recorded = dict(stage.database.rows(f"SELECT request_id, duration_ms FROM monitoring_{table}"))
        for row in history.ok:
            lasted_s = recorded[row.request_id] / 1000
            if not SHORTEST_S <= lasted_s <= row.latency_s + 0.01:
                found.append(f"{table}: {lasted_s} s of {row.request_id}, which took its client {row.latency_s:.3f} s")
    return found
