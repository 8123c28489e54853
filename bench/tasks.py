"""`make bench-tasks`: ten thousand queued tasks against the vendor's stub, on an empty installation: the serving process works on them,
or processes of `manage.py worker` do.

What is measured and how: docs/benchmarks.md. Exit status: 0 = measured, 2 = the run could not give figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

from bench.load import JSON_C1
from bench.processes import BenchFailed, Process, cores, rss_mb
from bench.targets import ROOT, Target, start_gateway, start_stub, start_worker

VAR = ROOT / "var" / "bench"
_BATCH = 1000
_LIMIT_S = 1800.0
_LOOK_S = 0.5
_SHARES = {"urgent": 1, "high": 2, "normal": 5, "low": 2}
_LEVELS = ("urgent", "high", "normal", "low")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.tasks", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=200, help="tasks at once in each process that works on them")
    parser.add_argument("--database", default="", help="postgres://…: the distributed engine, on an empty database")
    parser.add_argument("--workers", type=int, default=0, help="so many `manage.py worker` instead of the serving process")
    options = parser.parse_args(argv)
    VAR.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            figures = _measured(stack, options)
    except BenchFailed as failed:
        print(f"no figures: {failed}", file=sys.stderr)
        return 2
    _print(figures)
    (ROOT / "var" / "bench-tasks.json").write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _measured(stack: ExitStack, options: argparse.Namespace) -> dict[str, Any]:
    gateway, workers = _started(stack, options)
    key = _key(gateway)
    busy = [worker.pid for worker in workers] or [gateway.process.listener(gateway.port)]
    with _memory(busy) as memory:
        idle_mb, began = memory[-1], time.monotonic()
        cpu_before_s = [process.cpu_s() for process in (gateway.process, *workers)]
        submitted_s = _submit(gateway, key, options.tasks)
        _wait(gateway, options)
        took_s = time.monotonic() - began
        cpu_s = [process.cpu_s() - before for process, before in zip((gateway.process, *workers), cpu_before_s, strict=True)]
    rows = _rows(gateway, options, "SELECT priority, created_at, started_at, status, attempts FROM tasks_task")
    done = [row for row in rows if row[3] == "completed"]
    if len(done) != options.tasks or any(row[4] != 1 for row in rows):
        again = sum(row[4] != 1 for row in rows)
        raise BenchFailed(f"{len(done)} of {options.tasks} tasks were completed, and {again} took more than one attempt")
    return {
        "engine": "procrastinate on PostgreSQL" if options.database else "embedded, SQLite",
        "tasks": options.tasks,
        "at_once": options.concurrency,
        "workers": options.workers,
        "took_s": round(took_s, 1),
        "submitted_s": round(submitted_s, 1),
        "tasks_per_s": round(options.tasks / took_s, 1),
        "cpu_ms_per_task": round(1000 * sum(cpu_s) / options.tasks, 2),
        "cpu_ms_per_task_of_workers": round(1000 * sum(cpu_s[1:]) / options.tasks, 2),
        "rss_mb_idle": round(idle_mb, 1),
        "rss_mb_peak": round(max(memory), 1),
        "delay_s": {level: _delays(done, number) for number, level in enumerate(_LEVELS)},
    }


def _started(stack: ExitStack, options: argparse.Namespace) -> tuple[Target, list[Process]]:
    """The server, and the workers where the server does not work on tasks itself: on its core and the other one, in turn."""
    core, other = cores()
    stub = start_stub(other, VAR)
    stack.callback(stub.process.stop)
    state = Path(tempfile.mkdtemp(prefix="tasks-", dir=VAR))
    stack.callback(shutil.rmtree, state, ignore_errors=True)
    print("starting the gateway on an empty state folder …", file=sys.stderr)
    served = 0 if options.workers else options.concurrency
    env = {"LLM_MAX_WORKERS": str(served), "LLM_MAX_QUEUE_SIZE": str(options.tasks)}
    if options.database:
        env["DATABASE_URL"] = options.database
    gateway = start_gateway(stub, [JSON_C1], core, VAR, state, env)
    stack.callback(gateway.process.stop)
    workers = []
    for number in range(options.workers):
        workers.append(start_worker(number + 1, stub, (core, other)[number % 2], VAR, state, options.concurrency, env))
        stack.callback(workers[-1].stop)
    return gateway, workers


def _key(gateway: Target) -> str:
    (team,) = [row for row in gateway.rest("GET", "/api/v1/llm/teams")["results"] if row["name"] == "bench"]
    return str(gateway.rest("POST", "/api/v1/llm/keys", {"name": "tasks", "team": team["id"], "scopes": ["tasks"]})["key"])


def _submit(gateway: Target, key: str, count: int) -> float:
    """Seconds that it took. The priorities are mixed in each batch."""
    dice, began = random.Random(7), time.monotonic()
    for first in range(0, count, _BATCH):
        levels = dice.choices(list(_SHARES), list(_SHARES.values()), k=min(_BATCH, count - first))
        config = {"model": JSON_C1.model}
        tasks = [{"type": "custom", "prompt": f"task {first + n}", "priority": level, "config": config} for n, level in enumerate(levels)]
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        sent = urllib.request.Request(f"{gateway.base_url}/api/v1/tasks/batch", json.dumps({"tasks": tasks}).encode(), headers)
        with urllib.request.urlopen(sent, timeout=120) as answer:
            if answer.status != 202:
                raise BenchFailed(f"a batch was answered {answer.status}")
    return time.monotonic() - began


def _wait(gateway: Target, options: argparse.Namespace) -> None:
    give_up_at = time.monotonic() + _LIMIT_S
    while True:
        ((left,),) = _rows(gateway, options, "SELECT count(*) FROM tasks_task WHERE status IN ('queued', 'running')")
        if not left:
            return
        if time.monotonic() > give_up_at:
            raise BenchFailed(f"{left} tasks have not ended after {_LIMIT_S:g} s")
        time.sleep(_LOOK_S)


def _rows(gateway: Target, options: argparse.Namespace, sql: str) -> list[tuple[Any, ...]]:
    if options.database:
        import psycopg

        with psycopg.connect(options.database) as connection:
            return connection.execute(sql.encode()).fetchall()
    with contextlib.closing(sqlite3.connect(f"file:{gateway.state / 'llmcontrol.sqlite3'}?mode=ro", uri=True, timeout=20)) as database:
        return database.execute(sql).fetchall()


def _delays(done: Sequence[tuple[Any, ...]], priority: int) -> dict[str, float]:
    """From submission to the beginning, of the tasks of one priority, in seconds."""
    waits = sorted(_seconds(started) - _seconds(created) for level, created, started, *_ in done if level == priority)
    if len(waits) < 2:
        return {}
    return {"p50": round(quantiles(waits, n=2)[0], 2), "p95": round(quantiles(waits, n=20)[-1], 2), "max": round(waits[-1], 2)}


def _seconds(moment: Any) -> float:
    return (datetime.fromisoformat(moment) if isinstance(moment, str) else moment).timestamp()


@contextlib.contextmanager
def _memory(pids: Sequence[int]) -> Iterator[list[float]]:
    """Of the largest of these processes, in 10^6 bytes, five times a second."""
    enough = threading.Event()
    seen = [max(map(rss_mb, pids))]

    def watch() -> None:
        while not enough.wait(0.2):
            seen.append(max(map(rss_mb, pids)))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield seen
    finally:
        enough.set()
        watching.join()


def _print(figures: dict[str, Any]) -> None:
    by = f"{figures['workers']} worker processes" if figures["workers"] else "the serving process"
    print(f"{figures['tasks']} tasks, {figures['at_once']} at once in {by}, {figures['engine']}")
    took = f"{figures['took_s']:.1f} s, of which submitting {figures['submitted_s']:.1f} s"
    print(f"  throughput         {figures['tasks_per_s']:8.1f} tasks/s ({took})")
    workers_ms = f", of which the workers {figures['cpu_ms_per_task_of_workers']:.2f}" if figures["workers"] else ""
    print(f"  CPU                {figures['cpu_ms_per_task']:8.2f} ms per task{workers_ms}")
    print(f"  memory             {figures['rss_mb_idle']:8.1f} MB idle, {figures['rss_mb_peak']:.1f} MB at most")
    print("  queue delay, s          p50      p95      max")
    for level, delay in figures["delay_s"].items():
        print(f"    {level:<12}  " + "".join(f"{delay.get(name, float('nan')):9.2f}" for name in ("p50", "p95", "max")))


if __name__ == "__main__":
    sys.exit(main())
