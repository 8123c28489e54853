"""`manage.py serve`: one process or several, and what happens when one of them dies."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.live import ROOT, LiveServer, alive, children_of, environment, gone_within, manage

pytestmark = pytest.mark.process


class Served:
    def __init__(self, state_dir: Path, port: int, *options: str) -> None:
        self.port = port
        command = [sys.executable, str(ROOT / "manage.py"), "serve", "--port", str(port), *options]
        self.log = state_dir / "serve.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment({"LLM_STATE_DIR": str(state_dir)}), stdout=log, stderr=log)

    def get(self, path: str, **headers: str) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            try:
                connection.request("GET", path, headers=headers)
                return connection.getresponse().status
            except OSError:
                return 0

    def workers(self) -> set[int]:
        """Children that serve; Python's own resource tracker is a child too."""
        found = set()
        for pid in children_of(self.process.pid):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:
                continue
            if "spawn_main" in command:
                found.add(pid)
        return found

    def end(self) -> None:
        """Whatever has happened: the process and what it started, each by its id."""
        for pid in [self.process.pid, *children_of(self.process.pid)]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> LiveServer:
    """A quickstart that has made its folder and ended."""
    with LiveServer(tmp_path_factory.mktemp("serve")) as server:
        pass
    return server


@pytest.fixture(scope="module")
def state_dir(set_up: LiveServer) -> Path:
    return set_up.state_dir


@pytest.fixture
def serve(state_dir: Path, unused_tcp_port_factory: Callable[[], int]) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*options: str) -> Served:
        started.append(Served(state_dir, unused_tcp_port_factory(), *options))
        until(lambda: started[-1].get("/ready") == 200, started[-1])
        return started[-1]

    yield start
    for served in started:
        served.end()


def until(look: Callable[[], bool], served: Served, timeout_s: float = 30.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not look():
        assert served.process.poll() is None, served.log.read_text()[-2000:]
        assert time.monotonic() < give_up_at, served.log.read_text()[-2000:]
        time.sleep(0.05)


def test_sigterm_ends_it_with_0(serve: Callable[..., Served]):
    served = serve()
    served.process.terminate()
    assert served.process.wait(20) == 0
    assert "Traceback" not in served.log.read_text()


def test_a_worker_that_is_killed_is_replaced(serve: Callable[..., Served]):
    served = serve("--workers", "2")
    before = served.workers()
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in served.workers() and len(served.workers()) == 2, served)
    until(lambda: served.get("/ready") == 200, served)
    served.process.terminate()
    assert served.process.wait(20) == 0
    assert gone_within(sorted(before), 2.0)


def test_workers_do_not_outlive_their_supervisor(serve: Callable[..., Served]):
    served = serve("--workers", "2")
    workers = sorted(served.workers())
    assert len(workers) == 2
    served.process.kill()
    served.process.wait()
    assert gone_within(workers, 5.0)


def test_several_workers_begin_with_empty_metrics(serve: Callable[..., Served], set_up: LiveServer):
    (set_up.state_dir / "metrics").mkdir(exist_ok=True)
    stale = set_up.state_dir / "metrics" / "counter_1.db"
    stale.write_bytes(b"")
    served = serve("--workers", "2")
    assert not stale.exists()
    assert served.get("/metrics", Authorization=f"Token {set_up.admin_token}") == 200


def test_a_host_that_is_none_is_told_in_one_line(state_dir: Path):
    done = manage("serve", "--host", "999.1.1.1", "--port", "0", env={"LLM_STATE_DIR": str(state_dir)})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "999.1.1.1" in line
