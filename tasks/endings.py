"""Waiting for tasks to end, on an event loop: those that end in this process are told at once, the others are asked for together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from django.db import DatabaseError

from monitoring.threads import DatabaseThread, in_one_line
from tasks.models import Task
from tasks.signals import ended
from tasks.states import ENDED

_POLL_S = 0.25
_log = logging.getLogger(__name__)


class Endings:
    """One per process. Costs nothing while nobody waits."""

    def __init__(self) -> None:
        self._database = DatabaseThread("endings")
        self._waiting: dict[str, asyncio.Event] = {}
        self._waiters: dict[str, int] = {}
        self._poll: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def of(self, task_id: str) -> None:
        """Returns once the task has ended, or is gone."""
        self._begin()
        event = self._waiting.setdefault(task_id, asyncio.Event())
        self._waiters[task_id] = self._waiters.get(task_id, 0) + 1
        try:
            await event.wait()
        finally:
            self._waiters[task_id] -= 1
            if not self._waiters[task_id]:
                del self._waiters[task_id], self._waiting[task_id]

    async def stop(self) -> None:
        ended.disconnect(self._told)
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.gather(self._poll, return_exceptions=True)
            await self._database.disconnect()

    def _begin(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            ended.connect(self._told)
        if self._poll is None or self._poll.done():
            self._poll = asyncio.create_task(self._look())

    def _told(self, tasks: Iterable[Task], **signal: Any) -> None:
        """In the thread of whoever wrote the ending."""
        ids = [str(task.pk) for task in tasks]
        with suppress(RuntimeError):  # the loop has ended
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._set, ids)

    def _set(self, ids: Iterable[str]) -> None:
        for each in ids:
            if (event := self._waiting.get(each)) is not None:
                event.set()

    async def _look(self) -> None:
        await asyncio.sleep(_POLL_S)
        while self._waiting:
            ids = list(self._waiting)
            try:
                going = await self._database.run(partial(_going, ids))
                self._set(set(ids) - going)
            except DatabaseError as exc:
                _log.warning("whether tasks have ended cannot be read (%s); trying again", in_one_line(exc))
            await asyncio.sleep(_POLL_S)


def _going(ids: list[str]) -> set[str]:
    rows = Task.objects.filter(pk__in=ids).exclude(status__in=ENDED)
    return {str(pk) for pk in rows.values_list("pk", flat=True)}
