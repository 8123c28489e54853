"""A Redis of its own for tests: on a free port, without a disk, ended by its process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_START_S = 10.0


class RedisServer:
    """`start` also starts it again, on the same port and with an empty memory."""

    def __init__(self, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *self._options, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + _START_S
        while not self._listens():
            assert self._process.poll() is None, "redis-server did not start"
            assert time.monotonic() < until, "redis-server does not listen"
            time.sleep(0.01)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def cli(self, *command: str) -> str:
        """What redis-cli answers."""
        done = subprocess.run(["redis-cli", "-p", str(self.port), *command], capture_output=True, errors="replace", timeout=10, check=True)
        return done.stdout.strip()

    def _end(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(with_signal)
            process.send_signal(signal.SIGCONT)
            process.wait(10)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def require_redis() -> None:
    """Skips, in one visible line; fails instead where REQUIRE_SERVICES=1."""
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("redis-server is not installed, and REQUIRE_SERVICES=1")
        pytest.skip("redis-server is not installed")


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    require_redis()
    server = RedisServer(*options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
