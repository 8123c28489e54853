"""`manage.py serve`: one process or several, and what happens when one of them dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live import gone_within, manage
from tests.run.serving import Prepared, Served

pytestmark = pytest.mark.process


def test_sigterm_ends_it_with_0(serve: Callable[..., Served]):
    served = serve()
    served.process.terminate()
    assert served.process.wait(60) == 0
    assert "Traceback" not in served.log.read_text()


def test_a_worker_that_is_killed_is_replaced(serve: Callable[..., Served]):
    served = serve("--workers", "2")
    before = served.workers()
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    served.until(lambda: victim not in served.workers() and len(served.workers()) == 2)
    served.until(lambda: served.get("/ready") == 200)
    served.process.terminate()
    assert served.process.wait(60) == 0
    assert gone_within(sorted(before))


def test_workers_do_not_outlive_their_supervisor(serve: Callable[..., Served]):
    served = serve("--workers", "2")
    workers = sorted(served.workers())
    assert len(workers) == 2
    served.process.kill()
    served.process.wait()
    assert gone_within(workers)


def test_several_workers_map_nothing_that_a_full_disk_could_lack_room_for(serve: Callable[..., Served], prepared: Prepared):
    served = serve("--workers", "2")
    assert served.get("/metrics", Authorization=f"Token {prepared.admin_token}") == 200
    mapped = {line.split()[-1] for pid in served.workers() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()}
    counted = {Path(name) for name in mapped if "/metrics/" in name}
    assert counted
    assert not [name for name in counted if name.is_relative_to(prepared.state_dir)]


def test_a_host_that_is_none_is_told_in_one_line(prepared: Prepared):
    done = manage("serve", "--host", "999.1.1.1", "--port", "0", env={"LLM_STATE_DIR": str(prepared.state_dir)})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "999.1.1.1" in line
