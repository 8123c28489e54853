"""Queued work against live servers: the same tests on the engine within a server, and on the one with workers of their own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.conftest import QUICK
from tests.e2e.control import Control, unique, until
from tests.e2e.vendor import Vendor
from tests.engines import TaskWorker, postgres_database
from tests.live import LiveServer

pytestmark = pytest.mark.process
TASKS = "/api/v1/tasks"


@pytest.fixture(scope="module", params=["embedded", "distributed"])
def control(request: pytest.FixtureRequest, control: Control, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    if request.param == "embedded":
        yield control
        return
    state_dir = tmp_path_factory.mktemp("distributed")
    with postgres_database("tasks", state_dir) as url:
        env = {**QUICK, "DATABASE_URL": url}
        with LiveServer(state_dir, env={**env, "LLM_MAX_WORKERS": "0"}) as live:
            worker = TaskWorker(state_dir, concurrency=200, env=env)
            try:
                yield Control(live.base_url, live.admin_token or "", live.api_key or "")
            finally:
                assert worker.end() == 0, worker.log.read_text()[-3000:]


@pytest.fixture(scope="module")
def key(control: Control) -> str:
    made: str = control.new_key(scopes=["tasks"])["key"]
    return made


def call(control: Control, method: str, path: str, key: str, body: Any = None, **headers: str) -> wire.Answer:
    return wire.call(control.base_url, method, path, body=body, headers={"Authorization": f"Bearer {key}", **headers})


def submit(control: Control, key: str, **body: Any) -> str:
    answer = call(control, "POST", TASKS, key, {"type": "custom", "prompt": "hi", **body})
    assert answer.status == 202, answer.body
    assert answer.json["status"] == "queued"
    task_id: str = answer.json["task_id"]
    assert task_id.startswith("task_")
    return task_id


def ended(control: Control, key: str, task_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        task: dict[str, Any] = call(control, "GET", f"{TASKS}/{task_id}", key).json
        return task if task["status"] not in ("queued", "running") else None

    return until(look, f"the end of {task_id}", timeout_s=20)


def test_a_task_is_answered_and_accounted_for(control: Control, vendor: Vendor, key: str) -> None:
    alias = control.model(control.provider(vendor.base_url), "ok@tokens=3")["alias"]
    control.apply()
    task = ended(control, key, submit(control, key, config={"model": alias}))
    assert (task["status"], task["attempts"], task["error"]) == ("completed", 1, None)
    assert task["result"]["text"]
    assert control.request(task["request_id"])["status_code"] == 200
    events = call(control, "GET", f"{TASKS}/{task['task_id']}/events", key).json
    assert [event["status"] for event in events] == ["queued", "running", "completed"]
    later = call(control, "GET", f"{TASKS}/{task['task_id']}/events?after={events[0]['seq']}", key).json
    assert later == events[1:]


def test_hundreds_wait_at_once_and_a_batch_is_answered_whole(control: Control, vendor: Vendor, key: str) -> None:
    alias = control.model(control.provider(vendor.base_url), "ok@tokens=2,ttfb=0.5")["alias"]
    control.apply()
    body = {"tasks": [{"type": "custom", "prompt": f"hi {number}", "config": {"model": alias}} for number in range(100)]}
    answer = call(control, "POST", f"{TASKS}/batch", key, body, **{"Idempotency-Key": unique("once")})
    assert answer.status == 202
    tasks = [ended(control, key, task["task_id"]) for task in answer.json["tasks"]]
    assert [task["status"] for task in tasks] == ["completed"] * 100


def test_a_template_and_the_cache_serve_tasks_too(control: Control, vendor: Vendor, key: str) -> None:
    alias = control.model(control.provider(vendor.base_url), "ok@tokens=3", cache_ttl_s=600)["alias"]
    name, mark = unique("prompt"), unique("mark")
    control.call(
        "POST",
        "/api/v1/llm/prompts",
        {"name": name, "messages": [{"role": "user", "content": "Say {{word}}."}], "variables": [{"name": "word"}]},
    )
    prompt = {"id": name, "variables": {"word": mark}}
    first = ended(control, key, submit(control, key, prompt=prompt, config={"model": alias}))
    again = ended(control, key, submit(control, key, prompt=prompt, config={"model": alias}))
    anew = ended(control, key, submit(control, key, prompt=prompt, config={"model": alias, "cache_enabled": False}))
    assert first["status"] == again["status"] == anew["status"] == "completed"
    assert first["result"] == again["result"]
    logged = [control.request(task["request_id"]) for task in (first, again, anew)]
    assert [(row["prompt"], row["prompt_version"]) for row in logged] == [(name, 1)] * 3
    assert [row["cache"] for row in logged] == ["miss", "hit", ""]
    assert len(vendor.calls(f"Say {mark}.")) == 2
    refused = call(control, "POST", TASKS, key, {"type": "custom", "prompt": {"id": name, "words": {}}})
    assert (refused.status, refused.json["errors"][0]["attr"]) == (400, "prompt")


def test_a_type_that_was_added_is_used_at_once_and_waited_for(control: Control, vendor: Vendor, key: str) -> None:
    alias = control.model(control.provider(vendor.base_url), "ok@tokens=3")["alias"]
    name, mark = unique("prompt"), unique("mark")
    said = [{"role": "user", "content": "Say {{word}}."}]
    control.call("POST", "/api/v1/llm/prompts", {"name": name, "messages": said, "variables": [{"name": "word"}]})
    kind = unique("type")
    control.call("POST", "/api/v1/llm/task-types", {"name": kind, "prompt": name, "model": alias, "timeout_s": 15})
    body = {"type": kind, "data": {"word": mark}}
    waited = call(control, "POST", "/api/v1/process/sync", key, body)
    assert (waited.status, waited.json["status"], waited.json["type"]) == (200, "completed", kind), waited.body
    row = control.request(waited.json["request_id"])
    assert (row["model"], row["prompt"], row["task_type"]) == (alias, name, kind)
    assert len(vendor.calls(f"Say {mark}.")) == 1
    refused = call(control, "POST", TASKS, key, {**body, "type": unique("nobody")})
    assert (refused.status, refused.json["errors"][0]["attr"]) == (400, "type")


def test_a_failing_vendor_is_tried_again_and_then_told_of(control: Control, vendor: Vendor, key: str) -> None:
    alias = control.model(control.provider(vendor.base_url), "fault-500")["alias"]
    control.apply()
    task = ended(control, key, submit(control, key, config={"model": alias, "max_attempts": 2}))
    assert (task["status"], task["attempts"], task["result"]) == ("failed", 2, None)
    assert task["error"]["code"] == "upstream_error"


def test_a_running_task_is_cancelled_and_the_vendor_is_left(control: Control, vendor: Vendor, key: str) -> None:
    alias = control.model(control.provider(vendor.base_url), "fault-stall")["alias"]
    control.apply()
    mark = unique("mark")
    task_id = submit(control, key, prompt=mark, config={"model": alias})
    until(lambda: vendor.calls(mark), "the vendor's call")
    cancelled = call(control, "POST", f"{TASKS}/{task_id}/cancel", key)
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    until(lambda: vendor.calls(mark)[0].get("gone_at") or vendor.calls(mark)[0].get("how") == "client_gone", "the end of the vendor's call")
    again = call(control, "POST", f"{TASKS}/{task_id}/cancel", key)
    assert (again.status, again.json["errors"][0]["code"]) == (409, "task_ended")


def test_tasks_are_seen_by_their_key_alone(control: Control, key: str) -> None:
    task_id = submit(control, key)
    other = control.new_key(scopes=["tasks"])["key"]
    for method, path in (("GET", f"{TASKS}/{task_id}"), ("POST", f"{TASKS}/{task_id}/cancel"), ("GET", f"{TASKS}/{task_id}/events")):
        hidden = call(control, method, path, other)
        unknown = call(control, method, path.replace(task_id, "task_00000000-0000-0000-0000-000000000000"), other)
        assert (hidden.status, hidden.body) == (404, unknown.body), path
    assert call(control, "GET", TASKS, other).json["results"] == []
    chat_only = control.new_key(scopes=["chat"])["key"]
    assert call(control, "POST", TASKS, chat_only, {"type": "custom", "prompt": "hi"}).status == 403
    assert call(control, "POST", TASKS, "sk-llmc-wrong", {"type": "custom", "prompt": "hi"}).status == 401
    assert control.call("GET", f"{TASKS}/{task_id}")["task_id"] == task_id


def process(control: Control, key: str, **body: Any) -> wire.Answer:
    headers = body.pop("headers", {})
    return call(control, "POST", "/api/v1/process/sync", key, {"type": "custom", "prompt": "hi", **body}, **headers)


def test_a_client_that_waits_is_answered_when_it_is_done(control: Control, vendor: Vendor, key: str) -> None:
    provider = control.provider(vendor.base_url)
    alias, dead = (control.model(provider, name)["alias"] for name in ("ok@tokens=3,ttfb=0.3", "fault-500"))
    control.apply()
    done = process(control, key, config={"model": alias})
    assert (done.status, done.json["status"], done.json["attempts"]) == (200, "completed", 1)
    assert call(control, "GET", f"{TASKS}/{done.json['task_id']}", key).json["result"] == done.json["result"]
    failed = process(control, key, config={"model": dead, "max_attempts": 1})
    assert (failed.status, failed.json["status"], failed.json["error"]["code"]) == (502, "failed", "upstream_error")
    for refused, status in ((process(control, key, type="poetry"), 400), (process(control, "sk-llmc-wrong"), 401)):
        assert (refused.status, len(refused.json["errors"])) == (status, 1)
    assert wire.call(control.base_url, "GET", "/api/v1/process/sync").status == 405


def test_a_client_whose_time_is_up_or_who_leaves_cancels(control: Control, vendor: Vendor) -> None:
    key = control.new_key(scopes=["tasks"])["key"]
    alias = control.model(control.provider(vendor.base_url), "fault-stall")["alias"]
    control.apply()
    answer = process(control, key, config={"model": alias, "timeout": 2})
    assert (answer.status, answer.json["errors"][0]["code"]) == (504, "timeout")
    body, headers = {"type": "custom", "prompt": "hi", "config": {"model": alias}}, {"Authorization": f"Bearer {key}"}
    with pytest.raises(TimeoutError):
        wire.call(control.base_url, "POST", "/api/v1/process/sync", body=body, headers=headers, timeout_s=1)

    def states() -> list[str]:
        return [task["status"] for task in call(control, "GET", TASKS, key).json["results"]]

    until(lambda: states() == ["cancelled"] * 2, "both are cancelled", timeout_s=60)


def test_waiting_clients_with_one_key_get_one_answer(control: Control, vendor: Vendor, key: str) -> None:
    alias = control.model(control.provider(vendor.base_url), "ok@tokens=3,ttfb=0.5")["alias"]
    control.apply()
    mark, once = unique("mark"), {"Idempotency-Key": unique("once")}
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: process(control, key, prompt=mark, config={"model": alias}, headers=once), range(50)))
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert len(vendor.calls(mark)) == 1


@pytest.mark.parametrize(
    ("body", "attr"),
    [
        ({"type": "poetry"}, "type"),
        ({"type": "custom", "prompt": "x", "priority": "asap"}, "priority"),
        ({"type": "translation", "data": {}}, "data"),
        ([], "non_field_errors"),
    ],
)
def test_bad_input_is_named(control: Control, key: str, body: Any, attr: str) -> None:
    answer = call(control, "POST", TASKS, key, body)
    assert (answer.status, answer.json["errors"][0]["attr"]) == (400, attr)


def test_a_body_beyond_the_limit_is_refused(control: Control, key: str) -> None:
    body = {"type": "custom", "prompt": "x" * (4 * 2**20)}
    for path in (TASKS, f"{TASKS}/batch", "/api/v1/process/sync"):
        assert call(control, "POST", path, key, body).status == 413, path
    long = call(control, "POST", TASKS, key, {"type": "custom", "prompt": "x" * 1_000_001})
    assert (long.status, long.json["errors"][0]["attr"]) == (400, "prompt")


def test_a_batch_of_too_many_is_refused(control: Control, key: str) -> None:
    answer = call(control, "POST", f"{TASKS}/batch", key, {"tasks": [{"type": "custom", "prompt": "x"}] * 1001})
    assert (answer.status, answer.json["errors"][0]["attr"]) == (400, "tasks")
    one_bad = call(control, "POST", f"{TASKS}/batch", key, {"tasks": [{"type": "custom", "prompt": "x"}, {"type": "nonsense"}]})
    assert (one_bad.status, one_bad.json["errors"][0]["attr"]) == (400, "tasks.1.type")


def test_fifty_at_once_with_one_key_are_one_task(control: Control, vendor: Vendor, key: str) -> None:
    alias = control.model(control.provider(vendor.base_url), "ok@tokens=3")["alias"]
    control.apply()
    mark, once = unique("mark"), unique("once")
    body = {"type": "custom", "prompt": mark, "config": {"model": alias}}
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: call(control, "POST", TASKS, key, body, **{"Idempotency-Key": once}), range(50)))
    assert {answer.status for answer in answers} == {202}
    (task_id,) = {answer.json["task_id"] for answer in answers}
    assert ended(control, key, task_id)["status"] == "completed"
    assert len(vendor.calls(mark)) == 1
    other = call(control, "POST", TASKS, key, {**body, "prompt": "else"}, **{"Idempotency-Key": once})
    assert (other.status, other.json["errors"][0]["code"]) == (422, "idempotency_key_reused")
