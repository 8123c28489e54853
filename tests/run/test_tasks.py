"""A worker with twenty tasks in hand is killed: another takes them up, and none is done twice."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.e2e import wire
from tests.run.serving import Prepared, Served

pytestmark = pytest.mark.process
TASKS = 20


def test_tasks_outlive_their_worker(serve: Callable[..., Served], prepared: Prepared) -> None:
    """`slow` answers after 2 s: long enough to be killed in, short against the lease."""
    served = serve("--workers", "2", LLM_TASK_LEASE_S="4", LLM_TASK_POLL_S="0.2", LLM_MAX_WORKERS="20")
    token = {"Authorization": f"Token {prepared.admin_token}"}
    base = f"http://127.0.0.1:{served.port}"
    body = {"tasks": [{"type": "custom", "prompt": f"hi {number}", "config": {"model": "slow"}} for number in range(TASKS)]}
    answer = wire.call(base, "POST", "/api/v1/tasks/batch", body=body, headers=token)
    assert answer.status == 202, answer.body

    def rows(sql: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(prepared.state_dir / "llmcontrol.sqlite3", timeout=10)) as database:
            return database.execute(sql, [answer.json["batch_id"].replace("-", "")]).fetchall()

    served.until(lambda: len(rows("SELECT id FROM tasks_task WHERE batch = ? AND status = 'running'")) == TASKS)
    os.kill(min(served.workers()), signal.SIGKILL)
    served.until(lambda: len(rows("SELECT id FROM tasks_task WHERE batch = ? AND status = 'completed'")) == TASKS, timeout_s=30)
    finished = "SELECT count(*) FROM tasks_taskevent e JOIN tasks_task t ON t.id = e.task_id WHERE t.batch = ? AND e.status = 'completed'"
    assert rows(finished) == [(TASKS,)]
    attempts = [count for (count,) in rows("SELECT attempts FROM tasks_task WHERE batch = ?")]
    assert set(attempts) <= {1, 2}
    assert 2 in attempts, "the worker that was killed had none of them: this proves nothing"
