"""The processes of a run: started on one core, measured through /proc, ended by their id."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_STOP_TIMEOUT_S = 15


class BenchFailed(Exception):
    """The run cannot give a figure. The message says which part, and what to do."""


@dataclass
class Process:
    """One started program with all its descendants. `log` is where its stderr went."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    _lost_cpu_s: dict[int, float] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def line(self, timeout_s: float) -> str:
        """The next line of its stdout. Raises BenchFailed if it ends or stays silent for `timeout_s`."""
        assert self.popen.stdout is not None
        deadline, line = time.monotonic() + timeout_s, b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.popen.stdout], [], [], max(0.0, deadline - time.monotonic()))
            byte = os.read(self.popen.stdout.fileno(), 1) if ready else b""
            if not byte:
                what = "ended before it was ready" if ready else f"was not ready within {timeout_s:g} s"
                raise BenchFailed(f"{self.name} {what}. The end of {self.log}:\n{self.log_tail()}")
            line += byte
        return line.decode().strip()

    def log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def tree(self) -> list[int]:
        """Its pid and those of its living descendants."""
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and (stat := _stat(int(entry))):
                children.setdefault(int(stat[1]), []).append(int(entry))
        pids = [self.pid]
        for pid in pids:
            pids.extend(children.get(pid, ()))
        return pids

    def cpu_s(self) -> float:
        """User + system seconds of the tree so far, to one clock tick (10 ms). Those of ended descendants stay in."""
        for pid in self.tree():
            if stat := _stat(pid):
                self._lost_cpu_s[pid] = (int(stat[11]) + int(stat[12])) * _TICK_S
        return sum(self._lost_cpu_s.values())

    def listener(self, port: int) -> int:
        """Of the processes that hold the listening socket, the one that worked most: a supervisor only keeps it open."""
        holders = [pid for pid in self.tree() if _holds(pid, _listening_inodes(port))]
        if not holders:
            raise BenchFailed(f"{self.name}: no process of its tree listens on port {port}")
        self.cpu_s()
        return max(holders, key=lambda pid: self._lost_cpu_s.get(pid, 0.0))

    def stop(self) -> None:
        """SIGTERM to it, then SIGKILL to whatever of its tree is left."""
        pids = self.tree()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                pids = self.tree()
                self.popen.kill()
                self.popen.wait()
        for pid in pids[1:]:
            if (stat := _stat(pid)) and int(stat[3]) == self.pid:  # its session: the id was not given to another since
                os.kill(pid, signal.SIGKILL)


def start(name: str, command: Sequence[str], core: int, folder: Path, environ: Mapping[str, str] | None = None) -> Process:
    """Starts `command` on `core`, in a session of its own; its stderr goes to `folder`/`name`.log."""
    log = folder / f"{name}.log"
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # a child inherits it before its first instruction
    try:
        with log.open("wb") as stderr:
            popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environ, start_new_session=True)
    finally:
        os.sched_setaffinity(0, allowed)
    return Process(name, popen, log)


def cores() -> tuple[int, int]:
    """(for the target, for the stub and the load tool)."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[min(1, len(allowed) - 1)]


def rss_mb(pid: int) -> float:
    """Resident memory in units of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise BenchFailed(f"process {pid} has ended: its memory cannot be read")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat behind the name: 0 state, 1 parent, 3 session, 11 user and 12 system ticks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _listening_inodes(port: int) -> set[str]:
    rows = [line.split() for table in ("tcp", "tcp6") for line in _lines(Path(f"/proc/net/{table}"))[1:]]
    return {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _holds(pid: int, sockets: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(_link(f"{folder}/{fd}") in sockets for fd in os.listdir(folder))
    except OSError:
        return False


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
