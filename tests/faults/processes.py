"""What Linux knows of a process, and doing things to it by its id."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from tests.live import alive, children_of, environment

T = TypeVar("T")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY")
# Bytecode that may not be kept makes every start compile the product anew, which no installation does.
_NOT_HANDED_DOWN = ("REDIS_URL", "PROMETHEUS_MULTIPROC_DIR", "PYTHONDONTWRITEBYTECODE")


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's, without settings of the product and without proxies: a proxied call to loopback is real traffic."""
    kept = {name: value for name, value in environment().items() if name.upper() not in _PROXIES and name not in _NOT_HANDED_DOWN}
    return {**kept, "NO_PROXY": "*", "no_proxy": "*", **extra}


def bound(command: Sequence[str]) -> list[str]:
    """`command`, which the kernel kills when the thread that starts it ends: so however this process ends, it goes too."""
    return ["setpriv", "--pdeathsig", "KILL", *command]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(look: Callable[[], T], what: str, *, timeout_s: float = 60.0, every_s: float = 0.02) -> T:
    """The first true value of `look`; fails, saying `what` was waited for, after `timeout_s`."""
    give_up_at = time.monotonic() + timeout_s
    while not (value := look()):
        if time.monotonic() > give_up_at:
            raise AssertionError(f"{what}: not within {timeout_s:g} s; last seen {value!r}")
        time.sleep(every_s)
    return value


def signal_all(pids: Iterable[int], sig: int) -> None:
    """Those that have ended are left out."""
    for pid in pids:
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            pass


def tree_of(pid: int) -> list[int]:
    """`pid` first, then its children and theirs."""
    return [pid, *(below for child in children_of(pid) for below in tree_of(child))] if alive(pid) else []


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def rss_bytes(pid: int) -> int:
    """Resident memory; 0 of a process that has ended."""
    return _status(pid, "VmRSS:") * 1024


def thread_count(pid: int) -> int:
    return _status(pid, "Threads:")


def fd_count(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def cpu_s(pid: int) -> float:
    """Processor time used so far, in user and kernel mode."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def clients_of(pid: int) -> set[int]:
    """The ports of those on this machine that `pid` holds a TCP connection with."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue  # closed while we looked
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(fields[2].rpartition(":")[2], 16) for fields in lines if fields[9] in inodes}


def _status(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
