"""F51: minutes of load, a random fault beside it every five seconds, and at the end the processes are as they were."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tests.faults import processes
from tests.faults.backends import ON_POSTGRES
from tests.faults.judge import Judge
from tests.faults.loads import FULL, Load, LoadSize
from tests.faults.stage import Stage

FAULT_EVERY_S = 5.0
LOOK_EVERY_S = 1.0
FLOOR_LOOKS = 30
QUIET_LOOKS, QUIET_S = 5, 20.0  # by then connections that nobody uses are closed
SECONDS, WARM_S = {True: 600.0, False: 60.0}, {True: 120.0, False: 20.0}
QUICK = {"timeouts": {"first_byte_s": 2, "idle_s": 2, "total_s": 3}, "breaker": {"fail_max": 1000, "reset_timeout_s": 1}}
# F17 to F34 by what the vendor does; `closed`, `tls` and `leave` are of another kind.
FAULTS = (
    *("closed", "fault-stall", "fault-slow-first-byte@s=1.5", "fault-stall-midstream"),
    *("fault-reset", "fault-reset-midstream", "fault-eof-midstream", "fault-no-done"),
    *("fault-garbage-json", "fault-html-200", "fault-wrong-shape", "fault-huge-header"),
    *("fault-garbage-sse", "fault-split", "fault-bad-utf8"),
    *("fault-huge@mb=40", "fault-huge-line@mb=4", "fault-gzip-bomb@mb=64", "fault-drip"),
    *("fault-429@retry_after=3", "fault-500-flap", "fault-503", "fault-error-in-200", "fault-error-midstream"),
    *("tls", "fault-no-usage", "fault-bad-usage", "ok@cap=8,ttfb=0.2", "leave"),
)
BESIDE = LoadSize(4, FAULT_EVERY_S - 1, 0, 0)
# Imported by every Python process that has its folder on the path: asyncio does not say from outside how many tasks there are.
PROBE = """
import os, threading, time

def watch():
    import asyncio.tasks
    tasks = getattr(asyncio.tasks, "_scheduled_tasks", None) or asyncio.tasks._all_tasks
    path = os.path.join({folder!r}, str(os.getpid()))
    while True:
        time.sleep(0.5)
        try:
            count = sum(not task.done() for task in list(tasks))
        except RuntimeError:
            continue  # one came or went while we counted
        with open(path + ".new", "w") as file:
            file.write(str(count))
        os.replace(path + ".new", path)

if os.environ.get("LLM_STATE_DIR"):
    threading.Thread(target=watch, daemon=True).start()
"""


class Look(NamedTuple):
    """At one worker: `rss` in megabytes."""

    at_s: float
    rss: float
    fds: int
    threads: int
    tasks: int


class Watch:
    """Looks at every worker once a second, in a thread of its own."""

    def __init__(self, stage: Stage, probe: Path) -> None:
        self.looks: dict[int, list[Look]] = defaultdict(list)
        self._stage, self._probe = stage, probe
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def quiet_tasks(self) -> dict[int, int]:
        """Of each worker in the next seconds, in which nobody asks: while there is load, their number is that of the requests."""
        before = {pid: len(found) for pid, found in self.looks.items()}
        time.sleep((QUIET_LOOKS + 1) * LOOK_EVERY_S)
        return {pid: min(look.tasks for look in found[before.get(pid, 0) :]) for pid, found in self.looks.items()}

    def _watch(self) -> None:
        at_s = 0.0
        while not self._stopped.wait(LOOK_EVERY_S):
            at_s += LOOK_EVERY_S
            for pid in self._stage.machine.workers():
                rss, tasks = processes.rss_bytes(pid) / 2**20, int((self._probe / str(pid)).read_text())
                self.looks[pid].append(Look(at_s, rss, processes.fd_count(pid), processes.thread_count(pid), tasks))


@ON_POSTGRES
def test_f51_a_soak_with_a_random_fault_every_five_seconds(
    new_stage: Callable[..., Stage], size: LoadSize, judge: Judge, tmp_path: Path
) -> None:
    full = size == FULL
    (tmp_path / "sitecustomize.py").write_text(PROBE.format(folder=str(tmp_path)))
    stage = new_stage(env={"PYTHONPATH": str(tmp_path)})
    aliases = {fault: stage.model(vendor_model(fault), provider=provider(stage, fault)) for fault in FAULTS}
    alias = stage.model("ok@tokens=40,delay=0.02")
    watch = Watch(stage, tmp_path)
    tasks_before = watch.quiet_tasks()
    load = stage.load(alias, size._replace(seconds=SECONDS[full]))
    faults = besiege(stage, load, aliases)
    history = load.history()
    under_load = {pid: list(found) for pid, found in watch.looks.items()}
    for other in faults:
        other.history()
    time.sleep(QUIET_S)
    tasks_after = watch.quiet_tasks()
    watch.stop()
    figures = stage.check(sum((other.history() for other in faults), history), drain_s=40)
    looks = [[look for look in found if look.at_s >= WARM_S[full]] for found in under_load.values()]
    assert len(looks) == stage.machine.workers_wanted, f"workers came and went: {list(watch.looks)}"
    judge("F51", "faults", len(faults), at_least=int(SECONDS[full] / FAULT_EVERY_S) - 1)
    judge("F51", "failed requests of the load beside", len(history.failed) + len(history.unknown), at_most=0, why=figures.explain())
    judge("F51", "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge("F51", "DUP", figures.dup, at_most=0, why=figures.explain())
    left = max(tasks_after[pid] - tasks_before[pid] for pid in tasks_after)
    judge("F51", "tasks more at the end, worst worker", left, at_most=2, why=f"{tasks_before} {tasks_after}")
    for name in ("fds", "threads"):
        judge(
            "F51", f"{name} more at the end, worst worker", max(growth(found, name) for found in looks), at_most=2, why=shown(looks, name)
        )
    if full:  # in a minute nothing has settled
        slope = max(map(mb_per_min, looks))
        judge("F51", "RSS slope, worst worker", slope, at_most=1, unit="MB/min", why=shown(looks, "rss"))


def vendor_model(fault: str) -> str:
    return fault if fault.startswith(("fault", "ok")) else "ok@tokens=30,delay=0.02"


def provider(stage: Stage, fault: str) -> dict[str, Any]:
    elsewhere = {
        "closed": lambda: f"http://127.0.0.1:{processes.free_port()}/v1",
        "tls": lambda: stage.tls_vendor().tls["self-signed"],
    }
    return stage.provider(base_url=elsewhere[fault]() if fault in elsewhere else None, **QUICK)


def besiege(stage: Stage, load: Load, aliases: dict[str, str]) -> list[Load]:
    """One fault after the other, until the load beside them is through."""
    dice, faults = random.Random(51), []
    while (at_s := (len(faults) + 1) * FAULT_EVERY_S) < load.size.seconds:
        load.wait_until(at_s - FAULT_EVERY_S)
        fault = dice.choice(FAULTS)
        faults.append(stage.load(aliases[fault], BESIDE, **options(fault)))
    return faults


def options(fault: str) -> dict[str, Any]:
    if fault == "leave":
        return {"stream": True, "abandon": lambda dice: dice.randint(1, 20)}
    return {"stream": False} if fault.startswith("fault-huge@") else {}  # its streams would fill our own memory


def growth(looks: Sequence[Look], name: str) -> int:
    """Of the lowest value, from the first quarter to the last: what is in use comes and goes, what has leaked stays."""
    values = [getattr(look, name) for look in looks]
    quarter = len(values) // 4
    return min(values[-quarter:]) - min(values[:quarter])


def mb_per_min(looks: Sequence[Look]) -> float:
    """The median slope between any two of the lowest looks of each half minute: a huge answer that is being read comes and goes, what
    the allocator keeps of it once is a step, and a leak raises the lowest too."""
    lowest = [min(looks[at : at + FLOOR_LOOKS], key=lambda look: look.rss) for at in range(0, len(looks) - FLOOR_LOOKS + 1, FLOOR_LOOKS)]
    return median((later.rss - look.rss) / (later.at_s - look.at_s) * 60 for look, later in combinations(lowest, 2))


def shown(looks: Sequence[Sequence[Look]], name: str) -> str:
    return "\n".join(" ".join(f"{getattr(look, name):.4g}" for look in found[:: max(1, len(found) // 40)]) for found in looks)
