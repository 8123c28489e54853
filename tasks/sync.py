"""POST /api/v1/process/sync: a task's body, answered once the task has ended. No thread waits for it, only a coroutine.

It is submitted as POST /api/v1/tasks does it, by asking that: who may, what is wrong with the body, and whether there is room are its
answers. A client that leaves, or whose time is up, cancels the task, unless it has sent an Idempotency-Key: with that it may come back.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from django.conf import settings
from django.db import DatabaseError

from gateway.doors.answer import JSON, Send, respond
from gateway.doors.body import Receive, Scope
from monitoring.threads import in_thread
from tasks import queue
from tasks.endings import Endings
from tasks.kinds import KINDS
from tasks.models import PREFIX, Task
from tasks.service import shown
from tasks.states import Status

PATH, _SUBMIT = "/api/v1/process/sync", "/api/v1/tasks"
# A task that has ended badly is not a success, whatever else its body says.
_STATUSES = {Status.COMPLETED: 200, Status.FAILED: 502, Status.CANCELLED: 409, Status.EXPIRED: 504}
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class ProcessSync:
    """Answers its one path, and hands `site`, which answers POST /api/v1/tasks, every other. Bodies come whole (`BodyLimit`)."""

    def __init__(self, site: Asgi, endings: Endings) -> None:
        self._site = site
        self._endings = endings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            await self._site(scope, receive, send)
            return
        if scope["method"] != "POST":
            await respond(send, 405, [JSON, (b"allow", b"POST")], _error("method_not_allowed", f"Use POST for {PATH}."))
            return
        body = (await receive()).get("body", b"")
        status, headers, said = await self._submitted(scope, body)
        if status != 202:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": said})
            return
        task_id = str(json.loads(said)["task_id"]).removeprefix(PREFIX)
        kept = any(name == b"idempotency-key" for name, _ in scope["headers"])
        await self._answer(receive, send, task_id, await _timeout_s(body, task_id), kept)

    async def _submitted(self, scope: Scope, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """(status, headers, body) of POST /api/v1/tasks."""
        unread: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
        started: dict[str, Any] = {}
        said = bytearray()

        async def given() -> MutableMapping[str, Any]:
            if unread:
                return unread.pop()
            await asyncio.Event().wait()  # who has left is noticed while the task is waited for
            raise AssertionError

        async def taken(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                started.update(message)
            said.extend(message.get("body", b""))

        await self._site({**scope, "path": _SUBMIT, "raw_path": _SUBMIT.encode()}, given, taken)
        return started["status"], list(started["headers"]), bytes(said)

    async def _answer(self, receive: Receive, send: Send, task_id: str, timeout_s: float, kept: bool) -> None:
        done, gone = asyncio.create_task(self._endings.of(task_id)), asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({done, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            over, left = done.done(), gone.done()
        finally:
            done.cancel()
            gone.cancel()
        try:
            if over or not kept:
                task = await in_thread(lambda: _ended(task_id, cancel=not over))
                over = over or task.status in (Status.COMPLETED, Status.FAILED)
        except DatabaseError:
            await respond(send, 503, [JSON], _error("database_unavailable", f"The database is away: ask {_SUBMIT}/{PREFIX}{task_id}."))
            return
        if left and not over:
            return
        if not over:
            way = f"it goes on; ask {_SUBMIT}/{PREFIX}{task_id}" if kept else "it was cancelled"
            await respond(send, 504, [JSON], _error("timeout", f"The task did not end within {timeout_s:g} s: {way}."))
            return
        await respond(send, _STATUSES[Status(task.status)], [JSON], msgspec.json.encode(shown(task)))


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _ended(task_id: str, *, cancel: bool) -> Task:
    """As it is in the end. `cancel`: nobody waits for it any more."""
    if cancel:
        queue.cancel(task_id, time.time())
    return Task.objects.get(pk=task_id)


async def _timeout_s(body: bytes, task_id: str) -> float:
    """What has been accepted is well-formed. A type that was added may have a time of its own, which the task has taken over."""
    asked = json.loads(body)
    given = (asked.get("config") or {}).get("timeout")
    if given or asked.get("type") in KINDS:
        return float(given or settings.TASK_TIMEOUT_S)
    try:
        return await in_thread(lambda: Task.objects.values_list("timeout_s", flat=True).get(pk=task_id))
    except (DatabaseError, Task.DoesNotExist):
        return float(settings.TASK_TIMEOUT_S)


def _error(code: str, detail: str) -> bytes:
    """As every REST error."""
    kind = "client_error" if code == "method_not_allowed" else "server_error"
    return json.dumps({"type": kind, "errors": [{"code": code, "detail": detail, "attr": None}]}).encode()
