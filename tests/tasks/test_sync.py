"""A client that waits for its task, before a site and a queue that the test holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from tasks import sync
from tasks.models import Task
from tasks.states import Status
from tasks.sync import PATH, ProcessSync

ID = uuid4()


class Endings:
    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def of(self, task_id: str) -> None:
        await self.over.wait()


async def site(scope: Any, receive: Any, send: Any) -> None:
    status = 202 if scope["path"] == "/api/v1/tasks" else 404
    said = {"task_id": f"task_{ID}", "path": scope["path"], "got": (await receive())["body"].decode()}
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The answer (status, body; None where there was none), and whether the task was cancelled."""
    cancelled: list[bool] = []

    async def here(work: Callable[[], Any]) -> Any:
        return work()

    def ended(status: Status) -> Callable[..., Task]:
        def look(task_id: str, *, cancel: bool) -> Task:
            cancelled.append(cancel)
            now = datetime.now(UTC)
            found = Status.CANCELLED if cancel else status
            return Task(id=ID, kind="custom", status=found, result={"text": "x"}, created_at=now, max_attempts=3, timeout_s=1)

        return look

    async def ask(
        status: Status = Status.COMPLETED, *, over: bool = True, leaves: bool = False, path: str = PATH, once: bool = False
    ) -> tuple[Any, Any]:
        monkeypatch.setattr(sync, "in_thread", here)
        monkeypatch.setattr(sync, "_ended", ended(status))
        endings, sent = Endings(), []
        if over:
            endings.over.set()
        timeout_s = 30 if over or leaves else 0.01
        messages = [{"type": "http.request", "body": json.dumps({"config": {"timeout": timeout_s}}).encode()}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            if not leaves:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"idempotency-key", b"k")] if once else []
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        await asyncio.wait_for(ProcessSync(site, endings)(scope, receive, send), 30)  # type: ignore[arg-type]
        answer = (sent[0]["status"], json.loads(sent[1]["body"])) if sent else None
        return answer, cancelled == [True]

    return ask


@pytest.mark.parametrize(
    ("status", "code"), [(Status.COMPLETED, 200), (Status.FAILED, 502), (Status.CANCELLED, 409), (Status.EXPIRED, 504)]
)
async def test_how_a_task_ended_is_the_status(asked: Any, status: Status, code: int) -> None:
    (answered, body), cancelled = await asked(status)
    assert (answered, body["status"], body["task_id"], cancelled) == (code, status, f"task_{ID}", False)


async def test_a_client_whose_time_is_up_cancels_unless_it_may_come_back(asked: Any) -> None:
    (status, body), cancelled = await asked(over=False)
    assert (status, body["errors"][0]["code"], cancelled) == (504, "timeout", True)


async def test_with_a_key_the_task_goes_on(asked: Any) -> None:
    (status, body), cancelled = await asked(over=False, once=True)
    assert (status, "it goes on" in body["errors"][0]["detail"], cancelled) == (504, True, False)


async def test_a_client_that_leaves_gets_nothing_and_cancels(asked: Any) -> None:
    assert await asked(over=False, leaves=True) == (None, True)


async def test_what_is_refused_and_every_other_path_is_the_sites(asked: Any) -> None:
    (status, body), _ = await asked(path="/api/v1/else")
    assert (status, body["path"]) == (404, "/api/v1/else")
