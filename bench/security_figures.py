"""The goals of security as figures: runs what measures each, and writes docs/security-figures.md.

    python -m bench.security_figures [--only G22,G28] [--quick]

What was measured is kept in var/security-figures.json, so that the slow ones can be run apart; the page shows the last of each.
`--quick` is for a look: fewer cases, and the page stays as it is. Ends with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NOTES, PAGE = ROOT / "var" / "security-figures.json", ROOT / "docs" / "security-figures.md"
FAULTS = "tests/faults/test_changes.py"
_HEADING = """\
# Security figures

Goals of security, each measured by a command. This page is written by `make security-figures`; do not edit it. On {cores} processor cores.
**Bold** is a goal that was missed; a goal without a line was not measured yet. What stands behind
each: [SECURITY.md](../SECURITY.md), `tests/security/README.md`.

| goal | what | goal value | measured | by |
|---|---|---|---|---|
"""


class Figure(NamedTuple):
    """`measured` is for people; `met` says whether it is the goal."""

    goal: str
    what: str
    wanted: str
    measured: str
    met: bool
    command: str


class Run(NamedTuple):
    """Of one call of pytest. `judged`: (fault, figure, goal, measured, met) of what fault tests have noted."""

    passed: int
    failed: int
    judged: list[tuple[str, str, str, str, bool]]
    command: str
    seconds: float

    @property
    def clean(self) -> bool:
        return self.passed > 0 and not self.failed


def pytest(*arguments: str, env: Mapping[str, str] | None = None) -> Run:
    """Skipped tests count for neither."""
    with tempfile.TemporaryDirectory() as folder:
        report, notes = Path(folder) / "report.xml", Path(folder) / "notes.jsonl"
        more = ["--fault-notes", str(notes)] if "tests/faults" in arguments[0] else []
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments, *more]
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout[-3000:], file=sys.stderr)
        suite = ElementTree.parse(report).getroot().find("testsuite")
        assert suite is not None
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        passed = int(suite.get("tests", 0)) - failed - int(suite.get("skipped", 0))
        lines = notes.read_text().splitlines() if notes.exists() else []
    judged = [tuple(result[:5]) for line in lines for result in json.loads(line)["results"]]
    spelled = " ".join([*(f"{name}={value}" for name, value in (env or {}).items()), "pytest", *arguments])
    return Run(passed, failed, judged, spelled, time.monotonic() - began)


def of_faults(goal: str, run: Run, names: Sequence[tuple[str, str]]) -> list[Figure]:
    """The figures of that run whose names begin so, under words for people; what follows in the name tells several apart."""
    found = []
    for begins, what in names:
        for _fault, name, wanted, measured, met in [each for each in run.judged if each[1].startswith(begins)]:
            more = name.removeprefix(begins).strip(" ,")
            found.append(Figure(goal, f"{what}: {more}" if more else what, wanted, measured, met and not run.failed, run.command))
    return found or [Figure(goal, names[0][1], "", "not measured", False, run.command)]


def revocation(quick: bool) -> list[Figure]:
    run = pytest(FAULTS, "-k", "revoked_key and sqlite")
    names = [
        ("revoked key refused everywhere after", "a revoked key is refused in every process after"),
        ("revoked key accepted after 2 s", "requests with it that were accepted later than 2 s"),
    ]
    return of_faults("G17", run, names)


def key_check(quick: bool) -> list[Figure]:
    run = pytest(FAULTS, "-k", "g18")
    names = [
        ("G18: key check of 10 000 keys ÷ of one", "the same among 10 000 keys ÷ among one"),
        ("G18: key check of an unknown key ÷ of a known one", "the same of an unknown key ÷ of a known one"),
    ]
    alone = run._replace(judged=[each for each in run.judged if each[1] == "G18: key check"])
    return of_faults("G18", alone, [("G18: key check", "authentication adds to a request")]) + of_faults("G18", run, names)


def addresses(quick: bool) -> list[Figure]:
    run = pytest("tests/security/test_a19_address_forms.py")
    measured = f"{run.failed} of {run.passed + run.failed} cases"
    return [Figure("G19", "addresses that are not allowed and were reached", "0", measured, run.clean, run.command)]


def canary(quick: bool) -> list[Figure]:
    run = pytest("tests/security/test_a24_canary.py", "tests/security/test_a28_leaks.py", "tests/security/test_a26_control_plane_leaks.py")
    measured = f"{run.failed} of {run.passed + run.failed} searches"
    return [Figure("G20", "searches that found a planted secret", "0", measured, run.clean, run.command)]


def authorisation(quick: bool) -> list[Figure]:
    run = pytest("tests/security/test_a12_authorisation_table.py")
    heading, *rows = (ROOT / "tests/security/authorisation_table.csv").read_text().splitlines()
    cells = len(rows) * (len(heading.split(",")) - 2)
    measured = f"{cells} of {cells} cells" if run.clean else f"{run.failed} tests failed"
    return [Figure("G21", "cells (URL, method, kind of caller) that are as the table says", "100 %", measured, run.clean, run.command)]


def tampering(quick: bool) -> list[Figure]:
    run = pytest("tests/security/test_a48_audit_tampering.py")
    measured = "5 000 of 5 000, and 1 000 of 1 000 re-chained" if run.clean else f"{run.failed} of {run.passed + run.failed} kinds missed"
    return [Figure("G22", "tamperings found at their first bad row, by both verifiers", "5 000 of 5 000", measured, run.clean, run.command)]


def audit_away(quick: bool) -> list[Figure]:
    run = pytest("tests/audit/test_not_writable.py")
    measured = f"0 in {run.passed} tests" if run.clean else f"{run.failed} tests failed"
    return [Figure("G23", "changes accepted while the trail cannot be written", "0", measured, run.clean, run.command)]


def rotation(quick: bool) -> list[Figure]:
    load = ["--fault-load", "short" if quick else "full"]
    run = pytest("tests/faults/test_rotation.py", "-k", "f48 and sqlite", *load)
    names = [
        ("secrets left on the old key", "secrets left on the old key"),
        ("secrets", "secrets sealed under another key, under load, killed in the middle"),
        ("failed requests", "requests that failed meanwhile"),
    ]
    figures = of_faults("G24", run, names[:1] + names[2:])
    return figures + of_faults("G24", run._replace(judged=[each for each in run.judged if each[1] == "secrets"]), names[1:2])


def strangers(quick: bool) -> list[Figure]:
    run = pytest("tests/faults/test_slow_clients.py", "-k", "g27 or stranger")
    return of_faults("G27", run, [("memory of a stranger's", "kept of a connection without a key")])


def fuzz(quick: bool) -> list[Figure]:
    found = []
    for what, file, cases in (
        ("requests to REST, drawn from its description, that were answered 5xx or not", "tests/security/test_g28_api_fuzz.py", 10_000),
        ("streams of vendors that led to another exception than the typed one", "tests/security/test_g28_stream_fuzz.py", 100_000),
    ):
        cases = cases // 50 if quick else cases
        run = pytest(file, env={"FUZZ_EXAMPLES": str(cases)})
        measured = f"0 of {cases:,}" if run.clean else f"{run.failed} tests failed"
        found.append(Figure("G28", what, "0", measured, run.clean, run.command))
    return found


def scans(quick: bool) -> list[Figure]:
    command = ["make", "scan", *(f"{name}={os.environ[name]}" for name in ("TOOLS",) if name in os.environ)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-2000:] + done.stderr[-2000:] if done.returncode else "", end="", file=sys.stderr)
    what = "findings of bandit and of our semgrep rules"
    found = [Figure("G29", what, "0", "0" if not done.returncode else "some", not done.returncode, "make scan")]
    for what, file in (
        ("warnings of `check --deploy` under the shipped settings", "tests/security/test_a35_deployment.py"),
        ("packages without a hash, or below a floor of known holes", "tests/security/test_a49_dependencies.py"),
    ):
        run = pytest(file)
        found.append(Figure("G29", what, "0", "0" if run.clean else f"{run.failed} tests failed", run.clean, run.command))
    return found


MEASURES: dict[str, Callable[[bool], list[Figure]]] = {
    "G17": revocation,
    "G18": key_check,
    "G19": addresses,
    "G20": canary,
    "G21": authorisation,
    "G22": tampering,
    "G23": audit_away,
    "G24": rotation,
    "G27": strangers,
    "G28": fuzz,
    "G29": scans,
}


def page(figures: Sequence[Figure]) -> str:
    lines = []
    for figure in figures:
        measured = figure.measured if figure.met else f"**{figure.measured}**"
        lines.append(f"| {figure.goal} | {figure.what} | {figure.wanted} | {measured} | `{figure.command}` |")
    return _HEADING.format(cores=os.cpu_count()) + "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(MEASURES), help="goals, separated by commas")
    parser.add_argument("--quick", action="store_true", help="fewer cases; nothing is written")
    options = parser.parse_args()
    goals = [goal for goal in re.split(r"[\s,]+", options.only) if goal]
    if unknown := set(goals) - MEASURES.keys():
        parser.error(f"no such goal: {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    known: dict[str, list[list[object]]] = json.loads(NOTES.read_text()) if NOTES.exists() else {}
    for goal in goals:
        figures = MEASURES[goal](options.quick)
        known[goal] = [list(figure) for figure in figures]
        for figure in figures:
            print(f"{goal} {figure.what}: {figure.measured} (goal {figure.wanted}){'' if figure.met else '  MISSED'}", flush=True)
        if not options.quick:
            NOTES.parent.mkdir(parents=True, exist_ok=True)
            NOTES.write_text(json.dumps(known))
            PAGE.write_text(page([Figure(*figure) for name in MEASURES for figure in known.get(name, [])]))  # type: ignore[arg-type]
    return 0 if all(figure[4] for goal in goals for figure in known[goal]) else 1


if __name__ == "__main__":
    sys.exit(main())
