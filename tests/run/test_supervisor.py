"""Whom the supervisor starts, kills and replaces, and when. No processes: workers here do what the test says."""

from __future__ import annotations

import errno
import itertools
import signal
from typing import Any

import pytest

from llmcontrol.supervisor import DRAINING, READY, SERVING, Bounds, Supervisor

BOUNDS = Bounds(start_s=60, silence_s=15, end_s=30)


class Worker:
    numbers = itertools.count(100)

    def __init__(self) -> None:
        self.pid = next(self.numbers)
        self.exit_status: int | None = None
        self.says = b""
        self.signals: list[int] = []

    def heard(self) -> bytes:
        said, self.says = self.says, b""
        return said

    def send_signal(self, sig: int) -> None:
        self.signals.append(sig)
        if sig == signal.SIGKILL:
            self.exit_status = -signal.SIGKILL

    def wakes(self) -> list[Any]:
        return []


class Stage:
    def __init__(self, count: int = 2, *, no_room: bool = False) -> None:
        self.now = 100.0
        self.no_room = no_room
        self.workers: list[Worker] = []
        self.ended: list[int] = []
        self.released = 0
        self.supervisor = Supervisor(self._spawn, count, BOUNDS, lambda: self.now, self.ended.append, self._release)
        self.supervisor.step()

    def _spawn(self) -> Worker:
        if self.no_room:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.workers.append(Worker())
        return self.workers[-1]

    def _release(self) -> None:
        self.released += 1

    @property
    def running(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.exit_status is None]

    def pass_time(self, seconds: float, says: bytes = READY, silent: Worker | None = None) -> bool:
        """Second by second; everybody but `silent` says so each time."""
        goes_on = True
        for _ in range(int(seconds)):
            self.now += 1
            for worker in self.running:
                if worker is not silent:
                    worker.says = says
            goes_on = self.supervisor.step()
        return goes_on

    def dies(self, worker: Worker, status: int = -signal.SIGKILL) -> None:
        worker.exit_status = status
        self.supervisor.step()


def test_whoever_dies_is_replaced_at_once():
    stage = Stage()
    stage.pass_time(60)
    stage.dies(stage.workers[0])
    assert len(stage.workers) == 3
    assert stage.ended == [stage.workers[0].pid]


def test_who_dies_at_once_again_and_again_is_waited_with():
    stage = Stage(1)
    stage.pass_time(60)
    waits = []
    for _ in range(9):
        stage.dies(stage.workers[-1])
        before, count = stage.now, len(stage.workers)
        while stage.running == []:
            stage.now += 0.25
            stage.supervisor.step()
        assert len(stage.workers) <= count + 1
        waits.append(stage.now - before)
    assert waits == [0, 0, 0.5, 1, 2, 4, 8, 16, 30]
    stage.pass_time(10)
    stage.dies(stage.workers[-1])
    assert stage.running, "a worker that served for a while was killed by chance"


@pytest.mark.parametrize("status", [1, 3])
def test_where_nobody_ever_started_it_gives_up(status: int):
    stage = Stage()
    stage.dies(stage.workers[0], status)
    assert stage.workers[1].signals == [signal.SIGTERM]
    stage.workers[1].exit_status = -signal.SIGTERM
    assert not stage.supervisor.step()
    assert (stage.supervisor.status, len(stage.workers)) == (3, 2)


def test_who_is_silent_is_killed_and_who_is_busy_is_not():
    stage = Stage()
    stage.pass_time(20)
    frozen, busy = stage.workers
    for _ in range(3):
        stage.pass_time(14, silent=busy)  # a second short of the bound
        stage.pass_time(1)
    assert stage.running == [frozen, busy]
    stage.pass_time(15, silent=frozen)
    assert frozen.signals == []
    stage.pass_time(1, silent=frozen)
    assert frozen.signals == [signal.SIGKILL]
    stage.pass_time(1)
    assert len(stage.running) == 2


def test_a_supervisor_that_was_held_up_blames_nobody():
    stage = Stage()
    stage.pass_time(20)
    stage.now += 3600
    for worker in stage.workers:
        worker.says = READY * 100
    stage.supervisor.step()
    assert [worker.signals for worker in stage.workers] == [[], []]


def test_a_rolling_restart_takes_one_after_the_other_and_waits_for_ready():
    stage = Stage()
    stage.pass_time(20)
    first, second = stage.workers
    stage.supervisor.obey(signal.SIGHUP)
    stage.supervisor.step()
    third = stage.workers[2]
    third.says = SERVING  # accepts, but has no configuration yet
    stage.supervisor.step()
    assert (first.signals, second.signals) == ([], [])
    third.says = READY
    stage.supervisor.step()
    assert (first.signals, second.signals, len(stage.workers)) == ([signal.SIGTERM], [], 4)
    stage.pass_time(3)
    assert second.signals == [signal.SIGTERM]
    first.exit_status = second.exit_status = 0
    stage.pass_time(10)
    assert len(stage.workers) == 4
    assert stage.supervisor.status == 0


def test_rolling_restarts_in_a_row_do_not_pile_up_processes():
    stage = Stage()
    stage.pass_time(20)
    for _ in range(4):
        stage.supervisor.obey(signal.SIGHUP)
        stage.pass_time(5)
    assert len(stage.running) == 2 * 2 + 1
    for worker in stage.running:
        if worker.signals:
            worker.exit_status = 0
    stage.pass_time(5)
    assert [bool(worker.signals) for worker in stage.workers[-2:]] == [False, False]


def test_a_rolling_restart_gives_up_where_the_new_one_does_not_start():
    stage = Stage()
    stage.pass_time(20)
    stage.supervisor.obey(signal.SIGHUP)
    stage.supervisor.step()
    stage.dies(stage.workers[2], 3)
    stage.pass_time(20)
    assert len(stage.workers) == 3
    assert [worker.signals for worker in stage.workers[:2]] == [[], []]


def test_who_was_told_to_go_by_somebody_else_is_replaced_while_it_drains():
    stage = Stage()
    stage.pass_time(20)
    leaving = stage.workers[0]
    leaving.says = DRAINING
    stage.supervisor.step()
    assert len(stage.workers) == 3
    leaving.exit_status = 0
    stage.pass_time(5)
    assert len(stage.workers) == 3


def test_the_end_is_asked_for_then_demanded_then_forced():
    stage = Stage()
    stage.pass_time(20)
    stage.supervisor.obey(signal.SIGTERM)
    assert stage.released == 1
    stage.supervisor.obey(signal.SIGINT)
    assert [worker.signals for worker in stage.workers] == [[signal.SIGTERM, signal.SIGQUIT]] * 2
    assert stage.pass_time(30, says=DRAINING)
    assert not stage.pass_time(3, says=DRAINING)
    assert [worker.signals[-1] for worker in stage.workers] == [signal.SIGKILL] * 2
    assert stage.supervisor.status == 0


def test_a_machine_that_has_no_room_for_a_process_is_asked_again_and_the_others_go_on():
    stage = Stage()
    stage.pass_time(60)
    stage.no_room = True
    stage.dies(stage.workers[0])
    assert len(stage.running) == 1
    stage.no_room = False
    stage.pass_time(1)
    assert len(stage.running) == 2
    assert stage.workers[1].signals == []


def test_a_first_start_without_room_for_a_process_is_tried_again_too():
    stage = Stage(1, no_room=True)
    stage.no_room = False
    stage.now += 1
    stage.supervisor.step()
    assert len(stage.running) == 1
