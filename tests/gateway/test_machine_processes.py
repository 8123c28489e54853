"""Real processes on one region: exact together, and not held up by one that is killed or frozen."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.config import LimitSpec
from core.errors import CallerLimited
from gateway.limits import Gate
from gateway.sharing.machine import Machine
from gateway.sharing.machine_region import Region, create

pytestmark = pytest.mark.process
NOW = time.monotonic()  # one for all: what is refilled meanwhile would not be exact
ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., "Hammer"]


class Hammer:
    def __init__(self, region: Path, what: str, limit: int, tries: int) -> None:
        command = [sys.executable, "-m", "tests.gateway.machine_hammer", str(region), what, str(limit), str(tries), str(NOW)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def region(tmp_path: Path) -> Path:
    create(tmp_path / "limits", 2**18, 12)
    return tmp_path / "limits"


@pytest.fixture
def start(region: Path) -> Iterator[Start]:
    """Returns when the process is ready to begin."""
    started: list[Hammer] = []

    def one(what: str, limit: int, tries: int) -> Hammer:
        started.append(Hammer(region, what, limit, tries))
        return started[-1]

    yield one
    for hammer in started:
        hammer.kill()


@pytest.mark.parametrize(
    ("what", "limit", "tries"),
    [("gate", 4000, 3000), ("bucket", 4000, 3000), ("window", 2000, 1500), ("flight", 4000, 3000), ("slots", 4000, 3000)],
)
def test_four_processes_let_in_exactly_the_limit(start: Start, what: str, limit: int, tries: int) -> None:
    hammers = [start(what, limit, tries) for _ in range(4)]
    assert [hammer.line() for hammer in hammers] == ["ready"] * 4
    for hammer in hammers:
        hammer.go()
    said = [[int(number) for number in hammer.line().split()] for hammer in hammers]
    assert sum(unlocked for _, unlocked in said) == 0
    assert sum(let_in for let_in, _ in said) == limit


def a_gate(region: Path, limits: LimitSpec) -> tuple[Gate, Region]:
    opened = Region(region)
    opened.take_column()
    return Machine(opened, 4).gate("k", "This key", limits, CallerLimited, 0.0, 1), opened


def test_calls_of_a_killed_process_are_freed(start: Start, region: Path) -> None:
    hammer = start("hold", 3, 3)
    assert hammer.line() == "ready"
    hammer.go()
    assert hammer.line() == "3 0"
    gate, opened = a_gate(region, LimitSpec(max_concurrency=3))
    with pytest.raises(CallerLimited, match="3 of 3 concurrent"):
        gate.enter(1, 0.0)
    hammer.kill()
    gate.enter(1, 0.0)
    assert gate.in_flight == 1
    opened.close()


def test_a_frozen_holder_of_a_lock_stops_nobody_and_its_death_frees_the_lock(start: Start, region: Path) -> None:
    hammer = start("freeze", 3, 0)
    assert hammer.line() == "ready"
    hammer.process.send_signal(signal.SIGSTOP)
    gate, opened = a_gate(region, LimitSpec(requests_per_minute=3))
    gate.enter(1, time.monotonic())
    went_on = opened.unlocked
    assert went_on > 0
    hammer.kill()
    gate.enter(1, time.monotonic())
    assert opened.unlocked == went_on
    opened.close()
