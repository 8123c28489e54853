"""The goals that the figures of the faults answer, and the two that no single test can: double charges, and recovery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.faults.judge import Result
from tests.faults.notes import Note

MOST_RECOVERY_S = 5.0


class Goal(NamedTuple):
    """`figures`: (fault, how the figure's name begins) of each that answers it."""

    what: str
    figures: tuple[tuple[str, str], ...]


GOALS = {
    "G1": Goal("usage lost in 50 ends of a worker, by SIGTERM and kill -9", (("G1", ""),)),
    "G2": Goal("double charges over all faults", (("G2", "DUP"),)),
    "G4": Goal("drift of accounts where clients leave and streams break", (("F34", "DRIFT with disconnects"),)),
    "G5": Goal("`/v1` while the database is away", (("G5", ""),)),
    "G6": Goal("limits while Redis is away", (("F13", "admitted of the limit"), ("F13", "ISO"))),
    "G7": Goal("one limit over four workers, without Redis", (("F39", "admitted ÷ limit, 4 workers without Redis"),)),
    "G8": Goal("vendor's calls per request with every vendor dead", (("F29", "AMP"),)),
    "G9": Goal("trial calls of a half-open breaker, 500 clients at once", (("F28", "trial calls per half-open"),)),
    "G10": Goal("latency that a fallback adds", (("F17", "added latency p99"),)),
    "G11": Goal("latency of the error where breakers are open", (("F17", "error latency p99"), ("F29", "p99 error latency"))),
    "G12": Goal("streams finished on a rolling restart", (("G12", ""), ("F06", "streams cut short (G12)"))),
    "G13": Goal("vendor's call cancelled after its client has left", (("F34", "cancel p99"),)),
    "G14": Goal("memory of 50 clients that do not read 100 MB each", (("F36", "RSS"),)),
    "G15": Goal("malformed answers that became errors, of 21", (("F23", "malformed answers"),)),
    "G16": Goal("longest recovery after any fault", (("G16", "REC"),)),
    "G17": Goal("revoked key refused everywhere", (("F46", "revoked key refused"),)),
    "G18": Goal("key check", (("F46", "G18"),)),
    "G25": Goal("accepted tasks lost, or finished twice, over kills of workers", (("F42", "tasks lost"), ("F42", "finished twice"))),
    "G26": Goal("webhook events lost while targets fail, ids of one event", (("F44", "events lost"), ("F44", "most webhook-ids"))),
    "G27": Goal("bytes that are kept of a connection without a key", (("F37", "memory of a stranger"),)),
    "G30": Goal("ten minutes of random faults", (("F51", "RSS slope"), *(("F51", name) for name in ("fds", "threads", "tasks")))),
}


def all_double_charges(notes: Iterable[Note]) -> list[Result]:
    """On all stages that there were, of each backend."""
    requests: Counter[str] = Counter()
    doubled: Counter[str] = Counter()
    for note in notes:
        requests[note.backend] += sum(asked for asked, _ in note.charged)
        doubled[note.backend] += sum(twice for _, twice in note.charged)
    return [
        Result("G2", "DUP", "≤ 0", f"{doubled[backend]} in {asked} requests", not doubled[backend], backend, doubled[backend])
        for backend, asked in requests.items()
        if asked
    ]


def slowest_recoveries(results: Sequence[Result]) -> list[Result]:
    """Of every REC that was judged, the longest on each backend."""
    found = []
    for backend in sorted({result.backend for result in results}):
        recoveries = [result for result in results if result.backend == backend and result.figure.split()[0] == "REC"]
        if recoveries:
            slowest = max(recoveries, key=lambda result: result.value)
            measured, met = f"{slowest.measured}, at {slowest.fault}", slowest.value <= MOST_RECOVERY_S
            found.append(Result("G16", "REC", f"≤ {MOST_RECOVERY_S:g} s", measured, met, backend, slowest.value))
    return found


def answering(goal: Goal, results: Iterable[Result]) -> list[Result]:
    return [result for result in results if any(result.fault == fault and result.figure.startswith(name) for fault, name in goal.figures)]
