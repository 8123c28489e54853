"""F41, F42 and the tasks of F43: a queue that is full, workers that are killed with twenty tasks in hand, one key fifty times at once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import unique
from tests.faults.judge import Judge
from tests.faults.loads import LoadSize
from tests.faults.processes import until
from tests.faults.stage import Stage

DEPTH, SUBMITTED, BATCH = 1000, 10_000, 50
IN_HAND, RESUMED_WITHIN_S = 20, 30.0
KILLS_IN_FULL = 20
ENDED_WITHIN_S = 600.0


def submit(stage: Stage, key: str, tasks: list[dict[str, Any]], **headers: str) -> wire.Answer:
    headers = {"Authorization": f"Bearer {key}", **headers}
    return wire.call(stage.machine.base_url, "POST", "/api/v1/tasks/batch", body={"tasks": tasks}, headers=headers, timeout_s=60)


def task(alias: str, prompt: str, **config: Any) -> dict[str, Any]:
    return {"type": "custom", "prompt": prompt, "config": {"model": alias, **config}}


def by_status(stage: Stage) -> Counter[str]:
    return Counter(dict(stage.database.rows("SELECT status, COUNT(*) FROM tasks_task GROUP BY status")))


def begun_anew(stage: Stage) -> int:
    ((count,),) = stage.database.rows("SELECT COUNT(*) FROM tasks_task WHERE attempts > 1")
    return int(count)


def ends(stage: Stage) -> int:
    """How often a task has ended, as its events tell it."""
    ((count,),) = stage.database.rows(
        "SELECT COUNT(*) FROM tasks_taskevent WHERE status IN ('completed', 'failed', 'cancelled', 'expired')"
    )
    return int(count)


@pytest.mark.short
def test_f41_a_full_queue(new_stage: Callable[..., Stage], judge: Judge, size: LoadSize) -> None:
    """Of what was accepted nothing is lost, whatever was refused beside it; a batch is taken whole or not at all."""
    stage = new_stage(env={"LLM_MAX_QUEUE_SIZE": str(DEPTH), "LLM_MAX_WORKERS": "50"})
    alias, key = stage.model("ok@tokens=2,ttfb=0.2"), stage.api_key(scopes=["tasks"])["key"]
    count = SUBMITTED if size.seconds > 30 else SUBMITTED // 5
    batches = [[task(alias, f"hi {number}") for number in range(first, first + BATCH)] for first in range(0, count, BATCH)]
    deepest, enough = 0, threading.Event()

    def watch() -> None:
        nonlocal deepest
        while not enough.wait(0.05):
            deepest = max(deepest, by_status(stage)["queued"])

    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda tasks: submit(stage, key, tasks), batches))
    enough.set()
    watching.join()
    accepted = sum(len(answer.json["tasks"]) for answer in answers if answer.status == 202)
    refused = [answer for answer in answers if answer.status != 202]
    assert {(answer.status, answer.json["errors"][0]["code"]) for answer in refused} <= {(429, "queue_full")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    until(lambda: not {"queued", "running"} & set(by_status(stage)), "every task has ended", timeout_s=ENDED_WITHIN_S, every_s=0.2)
    found = by_status(stage)
    judge("F41", "batches refused", len(refused), at_least=1)
    judge("F41", "deepest queue", deepest, at_most=DEPTH)
    judge("F41", "accepted beside completed", accepted - found["completed"], equals=0)
    judge("F41", "rows beside accepted", sum(found.values()) - accepted, equals=0)
    judge("F41", "ends beside accepted", ends(stage) - accepted, equals=0)


@pytest.mark.short("both")
def test_f42_workers_are_killed_with_twenty_tasks_in_hand(new_stage: Callable[..., Stage], judge: Judge, size: LoadSize) -> None:
    """The vendor thinks for longer than a worker needs to fill its hands. Under a short load leases are shorter than delivered."""
    full = size.seconds > 30
    stage = new_stage(env={"LLM_MAX_WORKERS": str(IN_HAND), **({} if full else {"LLM_TASK_LEASE_S": "10"})})
    alias, key = stage.model("ok@tokens=3,ttfb=15"), stage.api_key(scopes=["tasks"])["key"]
    kills, slowest_s, submitted = (KILLS_IN_FULL if full else 1), 0.0, 0
    for number in range(1, kills + 1):
        prompts = [f"nonce:{unique('task')} hello" for _ in range(2 * IN_HAND)]
        answer = submit(stage, key, [task(alias, prompt) for prompt in prompts])
        assert answer.status == 202, answer.body
        submitted += len(prompts)
        until(lambda: by_status(stage)["running"] == 2 * IN_HAND, "both workers have their hands full", timeout_s=60)
        killed, killed_at = stage.machine.kill_worker(), time.monotonic()
        until(lambda wanted=number * IN_HAND: begun_anew(stage) == wanted, "twenty are begun anew", timeout_s=120)
        slowest_s = max(slowest_s, time.monotonic() - killed_at)
        until(lambda wanted=submitted: by_status(stage)["completed"] == wanted, "all are completed", timeout_s=180)
        stage.machine.wait_replaced(killed)
    calls = Counter(call.nonce for call in stage.vendor.ledger() if call.nonce)
    judge("F42", "slowest to be begun anew after kill -9", slowest_s, at_most=RESUMED_WITHIN_S, unit="s")
    judge("F42", f"tasks lost, {kills} kills of 20", submitted - by_status(stage)["completed"], equals=0)
    judge("F42", f"finished twice, {kills} kills of 20", ends(stage) - submitted, equals=0)
    judge("F42", f"upstream calls repeated, of {kills * IN_HAND} tasks", sum(calls.values()) - submitted, at_most=kills * IN_HAND)
    judge("F42", "upstream calls of one task", max(calls.values()), at_most=2)


@pytest.mark.short("both")
def test_f43_one_key_fifty_times_is_one_task(stage: Stage, judge: Judge) -> None:
    alias, key = stage.model("ok@tokens=5,ttfb=0.3"), stage.api_key(scopes=["tasks"])["key"]
    once = {"Idempotency-Key": unique("once")}
    tasks = [task(alias, "one"), task(alias, "two")]
    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda _: submit(stage, key, tasks, **once), range(50)))
    judge("F43", "different answers, batch of tasks", len({(answer.status, answer.body) for answer in answers}), equals=1)
    until(lambda: by_status(stage)["completed"] == 2, "both are completed", timeout_s=60)
    judge("F43", "upstream calls, batch of two tasks", stage.vendor.stats()["total"], equals=2)
    other = submit(stage, key, tasks[:1], **once)
    judge("F43", "status of another body, tasks", other.status, equals=422)
