"""Where the suite's processor time goes: `make test ARGS="-p tests.cpu_meter"` ends with a table of its files, dearest first.

Seconds of a test process and of all that it started (PostgreSQL, started elsewhere, is not in it), with what fixtures took.
A machine with much else to do stretches the time that a test waits much, and these seconds little.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_ROWS = 60
_BEGAN = pytest.StashKey["Spent"]()


class Spent(NamedTuple):
    """Seconds: of this process, of its children, and on the clock."""

    own_s: float
    children_s: float
    wall_s: float

    @classmethod
    def so_far(cls) -> Spent:
        times = os.times()
        ended_s = times.children_user + times.children_system
        return cls(times.user + times.system, ended_s + sum(map(_spent_s, _started_by(os.getpid()))), time.monotonic())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    item.stash[_BEGAN] = Spent.so_far()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    finally:
        spent = tuple(after - before for after, before in zip(Spent.so_far(), item.stash[_BEGAN], strict=True))
        item.user_properties.append(("cpu", spent))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    by_file: dict[str, list[Spent]] = defaultdict(list)
    for report in terminalreporter.stats.get("", ()):
        if getattr(report, "when", "") == "teardown":
            by_file[report.nodeid.partition("::")[0]] += [Spent(*value) for name, value in report.user_properties if name == "cpu"]
    sums = {name: Spent(*map(sum, zip(*spent, strict=True))) for name, spent in by_file.items() if spent}
    terminalreporter.section("processor seconds: own, children's; seconds on the clock; tests")
    dearest = sorted(sums.items(), key=lambda pair: -(pair[1].own_s + pair[1].children_s))
    for name, spent in dearest[:_ROWS]:
        terminalreporter.write_line("{:8.1f} {:8.1f} {:8.1f}".format(*spent) + f"{len(by_file[name]):7d}  {name}")
    everything = [sum(seconds) for seconds in zip(*sums.values(), strict=True)] or [0, 0, 0]
    terminalreporter.write_line("{:8.1f} {:8.1f} {:8.1f}".format(*everything) + f"{sum(map(len, by_file.values())):7d}  all")


def _started_by(pid: int) -> Iterator[int]:
    """The ids of its children, their children, and so on."""
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in thread.read_text().split()]
        except OSError:
            continue  # it ended while we looked
        for child in children:
            yield child
            yield from _started_by(child)


def _spent_s(pid: int) -> float:
    """What it and its children that have ended took."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS_PER_S
