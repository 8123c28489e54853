"""Four workers, no Redis: a limit is one limit."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e import wire
from tests.e2e.control import ECHO, Control, until
from tests.live import LiveServer, alive, children_of

pytestmark = pytest.mark.process
WORKERS = 4
LIMIT = 60


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("shared"), options=["--workers", str(WORKERS)], env={"LLM_CONFIG_POLL_S": "0.1"}) as server:
        # One that joins later may answer for a moment as of before the test's key.
        until(lambda: len(re.findall(r"worker \d+ serves", server.log_tail())) == WORKERS, "all workers serve")
        yield server


@pytest.fixture
def control(live: LiveServer) -> Control:
    return Control(live.base_url, live.admin_token or "", live.api_key or "")


def ask(live: LiveServer, key: str) -> wire.Answer:
    return wire.call(live.base_url, "POST", "/v1/chat/completions", key=key, body={"model": ECHO, "messages": wire.HELLO})


def a_key(live: LiveServer, control: Control, **rate_limit: int) -> str:
    """In force in every worker: each answers who it is not, until it knows it."""
    key = control.new_key(rate_limit=rate_limit)["key"]
    with ThreadPoolExecutor(16) as pool:
        until(
            lambda: all(
                answer.status == 200 for answer in pool.map(lambda _: wire.call(live.base_url, "GET", "/v1/models", key=key), range(64))
            ),
            "every worker knows the key",
        )
    return key


def test_a_limit_of_requests_holds_for_all_workers_together(live: LiveServer, control: Control):
    key = a_key(live, control, requests_per_minute=LIMIT)
    began = time.monotonic()
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: ask(live, key), range(4 * LIMIT)))
    refilled = (time.monotonic() - began) * LIMIT / 60
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 429}, statuses
    assert LIMIT - 3 <= statuses[200] <= LIMIT + 3 + refilled, statuses
    for answer in answers:
        if answer.status == 429:
            assert re.search(r"has used (\d+) of 60 requests per minute; try again in \d+\.\d{3} s", answer.error["message"])
            assert 0 < int(answer.headers["retry-after"]) <= 60


def mapped_limits(pid: int) -> set[Path]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {Path(line.split()[-1]) for line in lines if line.endswith("/limits")}


def test_the_folder_is_in_use_and_gone_at_the_end_although_a_worker_was_killed(tmp_path: Path):
    with LiveServer(tmp_path, options=["--workers", "2"]) as live:
        workers = [pid for pid in children_of(live.pid) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        (region,) = until(lambda: mapped_limits(workers[0]), "the worker, which may be the later one, has its share")
        assert region.is_file()
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: not alive(workers[0]), "the worker is gone")
        until(lambda: wire.call(live.base_url, "GET", "/ready").status == 200, "a worker serves")
    assert not region.parent.exists()
    assert "share" not in live.log_tail()
