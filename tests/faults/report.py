"""docs/reliability.md: what was measured, fault by fault and goal by goal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tests.faults.backends import POSTGRES, SQLITE
from tests.faults.goals import GOALS, answering, slowest_recoveries
from tests.faults.judge import Result
from tests.faults.loads import FULL, SHORT

FAULTS = {
    "F01": "kill -9 of one of two workers, ten times under load",
    "F02": "kill -9 of every process under load, then a start",
    "F03": "kill -9 during replay, twenty times",
    "F04": "SIGTERM under load with streams of 3 s",
    "F05": "SIGTERM, and streams that outlast the grace",
    "F06": "rolling restart under load",
    "F07": "SQLite locked by another process",
    "F08": "database gone for 20 s",
    "F09": "database hanging for 20 s",
    "F10": "more concurrent calls than database connections",
    "F11": "disk full",
    "F12": "torn journal",
    "F13": "Redis killed, or hanging, for 20 s",
    "F14": "Redis restarted empty",
    "F15": "clock jumps by an hour",
    "F16": "migration while serving",
    "F17": "vendor refuses connections",
    "F18": "vendor accepts and says nothing",
    "F19": "vendor slow to its first byte",
    "F20": "vendor silent in mid-stream",
    "F21": "vendor resets or ends the connection, before or in the middle of an answer",
    "F22": "vendor's stream without its end mark",
    "F23": "vendor answers garbage, HTML, another shape, a huge header",
    "F24": "vendor's stream with garbage, cut into pieces, or in broken UTF-8",
    "F25": "vendor's answer huge, with a huge line, or a gzip bomb",
    "F26": "vendor drips bytes for ever",
    "F27": "vendor limits with Retry-After",
    "F28": "vendor fails 20 calls, answers 20, and so on",
    "F29": "every vendor dead",
    "F30": "vendor's error inside a 200, or in mid-stream",
    "F31": "vendor's certificate self-signed, for another name, or expired",
    "F32": "vendor reports no usage, or nonsense",
    "F33": "vendor takes eight calls at once, 64 clients",
    "F34": "clients leave in mid-stream, 500 times",
    "F35": "clients leave before the first byte, or during a retry",
    "F36": "50 clients that do not read 100 MB each",
    "F37": "500 connections with slow headers or bodies",
    "F38": "burst of ten times a key's limit",
    "F39": "the same over four workers",
    "F40": "200 concurrent requests on a budget for ten",
    "F41": "task queue full",
    "F42": "kill -9 of a worker with 20 tasks running",
    "F43": "one Idempotency-Key fifty times at once",
    "F44": "webhook target fails, hangs, flaps, refuses",
    "F45": "webhook target redirects elsewhere",
    "F46": "a configuration change a second under load",
    "F47": "vendor's key rotated under load",
    "F48": "key encryption key rotated under load",
    "F49": "500 identical cacheable requests at once",
    "F50": "1 000 WebSockets, 20 of them not reading",
    "F51": "ten minutes of load with a random fault every 5 s",
}
_HEADING = """\
# Reliability

What the system does when things break. Every figure is measured on real processes under load, with a vendor that misbehaves on
demand; what each figure means, and how it is measured, is in `tests/faults/README.md`.

This page is written by `{command}`; do not edit it. A fault that was measured again by itself has the figures of then.
{load} On {cores} processor cores; backends: {backends}.
**Bold** is a goal that was missed, with the reason where it is known.
"""
_FAULTS_HEADING = """
## Faults

| fault | what happens | figure | goal | on SQLite | on PostgreSQL + Redis |
|---|---|---|---|---|---|
"""
_GOALS_HEADING = """
## Goals

| goal | what | figure | goal value | on SQLite | on PostgreSQL + Redis | test of |
|---|---|---|---|---|---|---|
"""
_LOADS = {
    "full": ("make faults", f"Full load: {FULL.clients} clients for {FULL.seconds:g} s."),
    "short": ('make faults ARGS="--fault-load short"', f"**Short load**: {SHORT.clients} clients for {SHORT.seconds:g} s."),
}
_NAMES = {SQLITE: "SQLite", POSTGRES: "PostgreSQL + Redis"}


def page(results: Sequence[Result], load: str) -> str:
    """The same for the same results, in whatever order they came."""
    command, clients = _LOADS[load]
    seen = {result.backend for result in results}
    backends = " and ".join(name for backend, name in _NAMES.items() if backend in seen) or "none"
    heading = _HEADING.format(command=command, load=clients, cores=os.cpu_count(), backends=backends)
    return heading + _FAULTS_HEADING + "\n".join(_fault_lines(results)) + "\n" + _GOALS_HEADING + "\n".join(_goal_lines(results)) + "\n"


def _fault_lines(results: Sequence[Result]) -> Iterator[str]:
    for fault, what in FAULTS.items():
        found = [result for result in results if result.fault == fault]
        if not found:
            yield f"| {fault} | {what} | | | not run | not run |"
        for figure in _figures(found):
            yield f"| {fault} | {what} | {figure.name} | {figure.goal} | {figure.cells} |"


def _goal_lines(results: Sequence[Result]) -> Iterator[str]:
    results = [*results, *slowest_recoveries(results)]
    for number, goal in GOALS.items():
        figures = _figures(answering(goal, results))
        if not figures:
            yield f"| {number} | {goal.what} | | | not run | not run | |"
        for figure in figures:
            test = "its own" if figure.fault == number else figure.fault
            yield f"| {number} | {goal.what} | {figure.name} | {figure.goal} | {figure.cells} | {test} |"


class _Figure(NamedTuple):
    """`cells`: of both backends, for a table."""

    fault: str
    name: str
    goal: str
    cells: str


def _figures(results: Sequence[Result]) -> list[_Figure]:
    """A figure that was measured more than once has all that was measured in one cell."""
    figures = []
    for fault, name, goal in sorted({(result.fault, result.figure, result.goal) for result in results}):
        found = [result for result in results if (result.fault, result.figure, result.goal) == (fault, name, goal)]
        cells = " | ".join(_cell(result for result in found if result.backend == backend) for backend in _NAMES)
        figures.append(_Figure(fault, name, goal, cells))
    return figures


def _cell(results: Iterable[Result]) -> str:
    return ", ".join(sorted({_shown(result) for result in results})) or "not run"


def _shown(result: Result) -> str:
    reason = f" ({result.misses})" if result.misses else ""
    return result.measured if result.met else f"**{result.measured}**{reason}"
