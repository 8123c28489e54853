"""One machine: `manage.py serve --workers N` on a state folder of its own, and everything that can befall its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.e2e import wire
from tests.faults import processes
from tests.faults.processes import bound, clean_environment, free_port, signal_all, until
from tests.live import ROOT, alive, children_of

READY_IN_A_ROW = 10


class Death(NamedTuple):
    """`at`: wall seconds. `ports`: of the clients whose connections the process held; None = everybody's at `server_port`,
    also of those that the kernel took in for it until it was gone, at `gone_at`."""

    at: float
    server_port: int
    ports: frozenset[int] | None
    gone_at: float


class Machine:
    def __init__(self, state_dir: Path, env: Mapping[str, str], workers: int, deaths: list[Death]) -> None:
        self.state_dir = state_dir
        self.env = {**env, "LLM_STATE_DIR": str(state_dir)}
        self.workers_wanted = workers
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log = state_dir.parent / f"{state_dir.name}.log"
        # How long the first start took that was waited for: what this machine needs for it, busy as it is.
        self.first_start_s = 0.0
        self._deaths = deaths
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the machine was not started"
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The supervisor's, or with one worker the server's own."""
        return self.process.pid

    def start(self, *, wait: bool = True) -> None:
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                bound([sys.executable, "manage.py", "serve", "--port", str(self.port), "--workers", str(self.workers_wanted)]),
                cwd=ROOT,
                env=clean_environment(**self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.wait_until_ready()
            self.first_start_s = self.first_start_s or time.monotonic() - began

    def wait_until_ready(self, timeout_s: float = 90.0) -> None:
        """Every worker has started, and whoever takes a connection says that it is ready."""
        try:
            self.wait_until_started(timeout_s)
            until(lambda: all(self.is_ready() for _ in range(READY_IN_A_ROW)), "the machine is ready", timeout_s=timeout_s)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.log_tail()}") from None

    def wait_until_started(self, timeout_s: float = 90.0) -> None:
        """Every worker is there; what dead processes left may not be replayed yet, nor the configuration loaded."""
        until(self._started, "every worker has started", timeout_s=timeout_s)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log_tail()}"
        try:
            return wire.call(self.base_url, "GET", "/ready", timeout_s=2).status == 200
        except OSError:
            return False

    def workers(self) -> list[int]:
        if self.workers_wanted == 1:
            return [self.pid] if alive(self.pid) else []
        return sorted(pid for pid in children_of(self.pid) if "spawn_main" in processes.command_of(pid) and alive(pid))

    def pids(self) -> list[int]:
        return processes.tree_of(self.pid) if self._process is not None else []

    # What can befall it -----------------------------------------------------------------------------------------------

    def kill_worker(self, pid: int | None = None) -> int:
        """SIGKILL for one worker, the oldest unless told. Returns its id."""
        pid = self.workers()[0] if pid is None else pid
        os.kill(pid, signal.SIGSTOP)  # what it holds now is what dies with it: it takes no further connection
        held_at = time.time()
        self._deaths.append(Death(held_at, self.port, frozenset(processes.clients_of(pid)), held_at))
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_replaced(self, pid: int, timeout_s: float = 60.0) -> None:
        """Until `pid` is gone and as many workers serve as are wanted."""

        def replaced() -> bool:
            return pid not in self.workers() and self._started()

        until(replaced, "the worker is replaced", timeout_s=timeout_s)
        until(lambda: all(self.is_ready() for _ in range(READY_IN_A_ROW)), "the machine is ready again", timeout_s=timeout_s)

    def kill(self) -> None:
        """SIGKILL for the supervisor and every worker."""
        pids, killed_at = self.pids(), time.time()
        signal_all(pids, signal.SIGKILL)
        self.process.wait(10)
        until(lambda: not any(map(alive, pids)), "all processes are gone")
        self._deaths.append(Death(killed_at, self.port, None, time.time()))

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = 40.0) -> int:
        """The exit status."""
        return self.process.wait(timeout_s)

    def restart(self) -> None:
        self.terminate()
        self.wait()
        self.start()

    def freeze(self, pid: int) -> None:
        processes.freeze(pid)

    def thaw(self, pid: int) -> None:
        processes.thaw(pid)

    def close(self) -> None:
        """Whatever has happened, nothing of it goes on."""
        if self._process is not None:
            signal_all(self.pids(), signal.SIGKILL)
            self._process.wait(10)

    # What can be seen of it -------------------------------------------------------------------------------------------

    def fds(self) -> int:
        return sum(map(processes.fd_count, self.workers()))

    def threads(self) -> int:
        return sum(map(processes.thread_count, self.workers()))

    def cpu_s(self) -> float:
        return sum(map(processes.cpu_s, self.workers()))

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self) -> str:
        return self.log_text()[-3000:]

    def _started(self) -> bool:
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log_tail()}"
        workers = self.workers()
        return len(workers) == self.workers_wanted and self._serving(workers)

    def _serving(self, workers: list[int]) -> bool:
        """A worker has its journal open from the moment it can serve."""
        return all(any("/journal/" in name for name in _open_files(pid)) for pid in workers)


def _open_files(pid: int) -> list[str]:
    found = []
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            found.append(os.readlink(entry))
    except OSError:
        return []  # it ended, or closed one, while we looked: the next look sees more
    return found
