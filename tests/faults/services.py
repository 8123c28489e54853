"""PostgreSQL and Redis of a stage's own, from Debian's binaries, in folders and on ports of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.faults import processes
from tests.faults.processes import bound, clean_environment, free_port, until

DATABASE = "llmcontrol"


def postgres_folder() -> Path | None:
    """Where the newest PostgreSQL's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    named = shutil.which("initdb")
    return found[-1].parent if found else Path(named).parent if named else None


def require_services() -> None:
    """Skips with a line where a program is missing; fails instead with REQUIRE_SERVICES=1."""
    missing = [name for name, found in (("postgresql", postgres_folder()), ("redis-server", shutil.which("redis-server"))) if not found]
    if missing:
        reason = f"not installed: {' and '.join(missing)} (Debian's packages of these names)"
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


class Service:
    """A server that can be ended, frozen and started again on its port."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL
    user: str | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pids(self) -> list[int]:
        return processes.tree_of(self._process.pid) if self._process is not None and self.running else []

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        assert not self.running
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                bound(self.command()), cwd="/", env=clean_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self.user
            )
        until(self._started, f"{type(self).__name__} answers", timeout_s=20)

    def stop(self) -> None:
        """In order: what is being done is done first."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """At once."""
        self._end(self.kill_signal)

    def restart(self, *, empty: bool = False) -> None:
        if self.running:
            self.stop()
        if empty:
            self.forget()
        self.start()

    def forget(self) -> None:
        """Everything it had kept."""

    def freeze(self) -> None:
        processes.signal_all(self.pids, signal.SIGSTOP)

    def thaw(self) -> None:
        processes.signal_all(self.pids, signal.SIGCONT)

    def close(self) -> None:
        self.thaw()
        if self.running:
            self.kill()

    def _started(self) -> bool:
        assert self.running, f"{type(self).__name__} ended:\n{self.log.read_text()[-2000:]}"
        return self.answers()

    def _end(self, sig: int) -> None:
        assert self._process is not None
        self.thaw()
        if self.running:
            self._process.send_signal(sig)
        self._process.wait(20)


class Redis(Service):
    """Nothing of it is on disk: a start is always empty."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        return ["redis-server", *options]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(64).startswith(b"+PONG")
        except OSError:
            return False


class Postgres(Service):
    """Without fsync: what it loses in a power cut, no test can see. As root it runs as the user `postgres`, as it demands."""

    stop_signal = signal.SIGINT  # "fast": connections are ended
    kill_signal = signal.SIGQUIT  # "immediate"

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.user = "postgres" if os.getuid() == 0 else None
        self._settings = {"fsync": "off", "listen_addresses": "127.0.0.1", "unix_socket_directories": "", **(settings or {})}

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/{DATABASE}"

    def initialize(self) -> None:
        """An empty cluster with the database in it; it runs then."""
        if self.user:
            shutil.chown(self.folder, self.user)
        command = [str(_postgres() / "initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(command, cwd="/", env=clean_environment(), user=self.user, check=True, capture_output=True, timeout=60)
        self.start()
        create = [str(_postgres() / "createdb"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", DATABASE]
        subprocess.run(create, cwd="/", env=clean_environment(), check=True, capture_output=True, timeout=30)

    def copy_of(self, other: Postgres) -> None:
        """Takes over the whole of another, stopped one."""
        if self.user:
            shutil.chown(self.folder, self.user)
        subprocess.run(["cp", "-a", str(other.folder / "data"), str(self.folder / "data")], check=True, timeout=60)

    def command(self) -> list[str]:
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        return [str(_postgres() / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *settings]

    def answers(self) -> bool:
        command = [str(_postgres() / "pg_isready"), "-q", "-U", "postgres", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, env=clean_environment(), check=False, timeout=10).returncode == 0


def _postgres() -> Path:
    folder = postgres_folder()
    assert folder is not None
    return folder
