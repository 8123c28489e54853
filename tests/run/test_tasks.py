"""Workers of tasks in processes of their own, on both engines: one with twenty tasks in hand is killed, one is told to end."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import Control, unique, until
from tests.e2e.vendor import Vendor
from tests.engines import TaskWorker, postgres_database
from tests.faults.processes import free_port
from tests.live import LiveServer

pytestmark = pytest.mark.process
TASKS = 20
LEASE_S = 4.0
WITHIN_S = 90.0  # of a machine with much else to do; tests/faults measures


class Installation:
    """A server that works on no tasks, workers that do, and a vendor that can be told to hold every answer back."""

    def __init__(self, state_dir: Path, vendor: Vendor, live: LiveServer, env: dict[str, str]) -> None:
        self.vendor = vendor
        self.control = Control(live.base_url, live.admin_token or "", live.api_key or "")
        self.key: str = self.control.new_key(scopes=["tasks"])["key"]
        self.alias: str = self.control.model(self.control.provider(vendor.base_url), "ok@tokens=3")["alias"]
        self.control.apply()
        self._state_dir, self._env, self._token = state_dir, env, live.admin_token
        self._workers: list[TaskWorker] = []

    def worker(self, **env: str) -> TaskWorker:
        self._workers.append(TaskWorker(self._state_dir, concurrency=TASKS, env={**self._env, **env}))
        return self._workers[-1]

    def hold(self, held: bool) -> None:
        """What a call meets that begins from now on."""
        fail = {"ok": "fault-stall"} if held else {}
        wire.call(self.vendor.base_url.removesuffix("/v1"), "POST", "/_control", body={"fail": fail})

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = wire.call(self.control.base_url, method, path, body=body, headers={"Authorization": f"Bearer {self.key}"})
        assert answer.status in (200, 202), answer.body
        return answer.json

    def submit(self, prompts: list[str]) -> list[str]:
        tasks = [{"type": "custom", "prompt": prompt, "config": {"model": self.alias}} for prompt in prompts]
        return [task["task_id"] for task in self.call("POST", "/api/v1/tasks/batch", {"tasks": tasks})["tasks"]]

    def states(self, task_ids: list[str]) -> list[str]:
        return [self.call("GET", f"/api/v1/tasks/{task_id}")["status"] for task_id in task_ids]

    def events(self, task_id: str) -> list[str]:
        return [event["status"] for event in self.call("GET", f"/api/v1/tasks/{task_id}/events")]

    def metric(self, url: str, name: str) -> float:
        headers = {"Authorization": f"Token {self._token}"}
        (value,) = re.findall(rf"^{name} (\S+)$", wire.call(url, "GET", "/metrics", headers=headers).body.decode(), re.MULTILINE)
        return float(value)

    def close(self) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.kill()


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    vendor = Vendor()
    yield vendor
    vendor.close()


@pytest.fixture(scope="module", params=["embedded", "distributed"])
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    state_dir = tmp_path_factory.mktemp("workers")
    settings = {
        "LLM_STATE_DIR": str(state_dir),
        "OUTBOUND_ALLOW": "127.0.0.0/8:*",
        "LLM_CONFIG_POLL_S": "0.1",
        "LLM_TASK_LEASE_S": f"{LEASE_S:g}",
        "LLM_TASK_POLL_S": "0.2",
        "LLM_SHUTDOWN_GRACE_S": "60",
    }
    if request.param == "embedded":
        yield settings
        return
    with postgres_database("workers", state_dir) as url:
        yield {**settings, "DATABASE_URL": url}


@pytest.fixture(scope="module")
def served(environment: dict[str, str], vendor: Vendor) -> Iterator[Callable[[], Installation]]:
    state_dir = Path(environment["LLM_STATE_DIR"])
    with LiveServer(state_dir, env={**environment, "LLM_MAX_WORKERS": "0"}) as live:
        yield lambda: Installation(state_dir, vendor, live, environment)


@pytest.fixture
def installation(served: Callable[[], Installation]) -> Iterator[Installation]:
    made = served()
    yield made
    made.hold(False)
    made.close()


def test_tasks_outlive_their_worker(installation: Installation) -> None:
    vendor, prompts = installation.vendor, [unique("kill") for _ in range(TASKS)]
    killed = installation.worker()
    installation.hold(True)
    task_ids = installation.submit(prompts)
    until(lambda: all(vendor.calls(prompt) for prompt in prompts), "twenty calls of the vendor", timeout_s=WITHIN_S)
    assert installation.states(task_ids) == ["running"] * TASKS
    installation.worker()
    killed.kill()
    installation.hold(False)
    until(lambda: set(installation.states(task_ids)) == {"completed"}, "every task done", timeout_s=WITHIN_S)
    assert {tuple(installation.events(task_id)) for task_id in task_ids} == {("queued", "running", "queued", "running", "completed")}
    assert {len(vendor.calls(prompt)) for prompt in prompts} == {2}


def test_a_worker_that_is_told_to_end_finishes_what_it_has_in_hand(installation: Installation) -> None:
    prompts = [unique("end") for _ in range(TASKS)]
    installation.alias = installation.control.model(installation.control.provider(installation.vendor.base_url), "ok@tokens=3,ttfb=2")[
        "alias"
    ]
    installation.control.apply()
    worker = installation.worker()
    task_ids = installation.submit(prompts)
    until(lambda: "queued" not in installation.states(task_ids), "all begun", timeout_s=WITHIN_S)
    assert worker.end() == 0
    assert set(installation.states(task_ids)) == {"completed"}
    assert {len(installation.vendor.calls(prompt)) for prompt in prompts} == {1}


def test_a_second_signal_hands_them_to_another(installation: Installation) -> None:
    prompts = [unique("hurry") for _ in range(TASKS)]
    worker = installation.worker()
    installation.hold(True)
    task_ids = installation.submit(prompts)
    until(lambda: all(installation.vendor.calls(prompt) for prompt in prompts), "twenty calls of the vendor", timeout_s=WITHIN_S)
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: "takes no more tasks" in worker.log.read_text(), "the first signal is taken", timeout_s=WITHIN_S)
    assert worker.end() == 0
    assert set(installation.states(task_ids)) == {"queued"}
    installation.hold(False)
    installation.worker()
    until(lambda: set(installation.states(task_ids)) == {"completed"}, "every task done", timeout_s=WITHIN_S)


def test_a_worker_tells_how_it_and_the_queue_fare(installation: Installation) -> None:
    port, prompts = free_port(), [unique("told") for _ in range(TASKS + 5)]
    worker, url = installation.worker(LLM_WORKER_PORT=str(port)), f"http://127.0.0.1:{port}"
    assert [wire.call(url, "GET", path).status for path in ("/health", "/ready", "/metrics", "/api/info", "/v1/models")] == [
        *(200, 200, 401),
        *(404, 404),
    ]
    installation.hold(True)
    installation.submit(prompts)
    until(lambda: installation.metric(url, "llm_queue_oldest_seconds"), "the worker looks at the queue", timeout_s=WITHIN_S)
    assert [installation.metric(url, name) for name in ("llm_active_tasks", "llm_queue_length")] == [TASKS, 5]
    assert installation.metric(url, "llm_journal_failing_seconds") == 0
    served = installation.control.base_url  # works on no tasks, and so says nothing of them
    assert [installation.metric(served, name) for name in ("llm_active_tasks", "llm_queue_length", "llm_queue_oldest_seconds")] == [0, 0, 0]
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: wire.call(url, "GET", "/ready").status == 503, "it says that it ends", timeout_s=WITHIN_S)
    assert wire.call(url, "GET", "/health").status == 200
    installation.hold(False)
    assert worker.end() == 0
