"""The queue, as the database keeps it: claims, leases, endings. Every change of state is one conditional update.

A worker that was thought dead and is not finds its fence outdated: what it brings is dropped, so that no task ends twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.db import connection, transaction
from django.db.models import Count, F, Min, Q, QuerySet

from tasks import limits
from tasks.engine import Waiting, distributed, enqueue
from tasks.models import Task, TaskEvent
from tasks.signals import changed, ended
from tasks.states import ENDED, Status

NOT_RESUMED = "worker_lost"


class Claim(msgspec.Struct, frozen=True):
    """Who may write to a task: the holder of its latest fence."""

    task: Task
    fence: int


class Ending(msgspec.Struct, frozen=True):
    """What came of an attempt. `again_at` (wall seconds): it goes back into the queue, and where it was not `counted`, as if it had not
    been begun."""

    status: Status
    result: Mapping[str, Any] | None = None
    error_code: str = ""
    error_message: str = ""
    request_id: str = ""
    again_at: float | None = None
    counted: bool = True


def moment(wall_s: float) -> datetime:
    return datetime.fromtimestamp(wall_s, UTC)


def claim(worker: str, most: int, now: float, lease_s: float, *, only: Iterable[str] | None = None) -> list[Claim]:
    """Up to `most` tasks whose turn it is, now this worker's for `lease_s`. `only`: of these, by id."""
    with transaction.atomic():
        due = Task.objects.filter(status=Status.QUEUED, run_after__lte=now)
        if only is not None:
            due = due.filter(pk__in=list(only))
        rows = limits.admitted(_locked(due.order_by("rank")), most)
        if not rows:
            return []
        values = {"status": Status.RUNNING, "worker": worker, "lease_until": now + lease_s, "started_at": moment(now)}
        Task.objects.filter(pk__in=[row.pk for row in rows]).update(fence=F("fence") + 1, attempts=F("attempts") + 1, **values)
        for row in rows:
            row.fence, row.attempts = row.fence + 1, row.attempts + 1
            _set(row, values)
        _note(rows, now)
    return [Claim(row, row.fence) for row in rows]


def renew(claims: Sequence[Claim], now: float, lease_s: float) -> list[Claim]:
    """Those that are still this worker's; the others were cancelled, or given to another worker. What was put back because its lease
    had run out, and nobody has begun, is this worker's again: it is at work on it."""
    with transaction.atomic():
        rows = Task.objects.filter(pk__in=[each.task.pk for each in claims], status__in=(Status.RUNNING, Status.QUEUED))
        found = {pk: state for pk, *state in _locked(rows).values_list("pk", "status", "fence", "run_after")}
        held = [each for each in claims if found.get(each.task.pk, ())[:2] == [Status.RUNNING, each.fence]]
        # `reap` alone raises the fence and leaves the rest as it was; whoever ends an attempt says when the next one may begin.
        reaped = [each for each in claims if found.get(each.task.pk) == [Status.QUEUED, each.fence + 1, each.task.run_after]]
        if held:
            Task.objects.filter(pk__in=[each.task.pk for each in held]).update(lease_until=now + lease_s)
        if reaped:
            values = {"status": Status.RUNNING, "worker": reaped[0].task.worker, "lease_until": now + lease_s}
            Task.objects.filter(pk__in=[each.task.pk for each in reaped]).update(fence=F("fence") - 1, **values)
            _note([each.task for each in reaped], now)
    return [*held, *reaped]


def end(claimed: Claim, outcome: Ending, now: float) -> bool:
    """Writes what came of it. False: the task is no longer this worker's, and nothing was written."""
    return bool(end_all({claimed: outcome}, now))


def end_all(outcomes: Mapping[Claim, Ending], now: float) -> list[Task]:
    """As `end`, of several in one transaction, which costs more than what is in it. Returns those that were written, as they are now."""
    with transaction.atomic():
        rows = [row for claimed, outcome in outcomes.items() if (row := _ended(claimed, _values(claimed, outcome, now)))]
        _moved(rows, now)
    return rows


def _ended(claimed: Claim, values: Mapping[str, Any]) -> Task | None:
    """The claim's own row stays as it was: what is not committed is written again from it."""
    if not Task.objects.filter(pk=claimed.task.pk, fence=claimed.fence, status=Status.RUNNING).update(**values):
        return None
    row = copy(claimed.task)
    _set(row, values)
    return row


def _values(claimed: Claim, outcome: Ending, now: float) -> dict[str, Any]:
    again = outcome.again_at is not None
    return {
        "status": Status.QUEUED if again else outcome.status,
        "result": outcome.result,
        "error_code": outcome.error_code,
        "error_message": outcome.error_message[:2000],
        "request_id": outcome.request_id,
        "lease_until": 0,
        "worker": "",
        **({"run_after": outcome.again_at} if again else {"finished_at": moment(now)}),
        **({} if outcome.counted else {"attempts": claimed.task.attempts - 1}),
    }


def cancel(task_id: Any, now: float) -> bool:
    """Of a task that waits or runs; its worker notices at its next renewal. False: it has ended already."""
    with transaction.atomic():
        waiting = Task.objects.filter(pk=task_id, status__in=(Status.QUEUED, Status.RUNNING))
        if not waiting.update(status=Status.CANCELLED, fence=F("fence") + 1, lease_until=0, worker="", finished_at=moment(now)):
            return False
        _moved(list(Task.objects.filter(pk=task_id)), now)
    return True


def reap(now: float, most: int = 500) -> tuple[int, int]:
    """(tasks put back whose lease has run out, tasks that nobody began in time). What was tried too often has failed."""
    with transaction.atomic():
        lost = list(_locked(Task.objects.filter(status=Status.RUNNING, lease_until__lt=now).order_by("rank"))[:most])
        for row in lost:
            spent = row.attempts >= row.max_attempts
            row.status, row.fence, row.lease_until, row.worker = (Status.FAILED if spent else Status.QUEUED), row.fence + 1, 0, ""
            if spent:
                row.error_code, row.finished_at = NOT_RESUMED, moment(now)
                row.error_message = f"Its worker was lost in each of {row.attempts} attempts."
        fields = ["status", "fence", "lease_until", "worker", "error_code", "error_message", "finished_at"]
        Task.objects.bulk_update(lost, fields)
        late = list(_locked(Task.objects.filter(status=Status.QUEUED, deadline__lt=now))[:most])
        for row in late:
            row.status, row.error_code, row.finished_at = Status.EXPIRED, "deadline_passed", moment(now)
            row.error_message = "Nobody could begin it before its deadline."
        Task.objects.bulk_update(late, fields)
        _moved([*lost, *late], now)
    return len(lost), len(late)


def length() -> int:
    """How many wait, those that are to be tried again later among them."""
    return Task.objects.filter(status=Status.QUEUED).count()


def standing(now: float) -> tuple[int, float]:
    """(how many are due and wait, for how many seconds the one that has waited longest)."""
    due = Task.objects.filter(status=Status.QUEUED, run_after__lte=now)
    found = due.aggregate(
        waiting=Count("pk"), submitted=Min("created_at", filter=Q(run_after=0)), again=Min("run_after", filter=Q(run_after__gt=0))
    )
    since = [found["submitted"].timestamp()] if found["submitted"] else []
    since += [found["again"]] if found["again"] else []
    return found["waiting"], max(0.0, now - min(since, default=now))


def put(rows: Sequence[Task], now: float) -> None:
    """New tasks into the queue, in the transaction of whoever submits them."""
    Task.objects.bulk_create(rows)
    _note(rows, now)
    _enqueue(rows)


def tell_again(task_ids: Sequence[str]) -> None:
    """Of tasks that a worker was told of and did not begin: another is told."""
    with transaction.atomic():
        _enqueue(Task.objects.filter(pk__in=task_ids, status=Status.QUEUED))


def _moved(rows: Sequence[Task], now: float) -> None:
    """Every way out of a worker's hands, and every end of a task, comes through here, in the transaction that makes it so."""
    _note(rows, now)
    _enqueue([row for row in rows if row.status == Status.QUEUED])
    if distributed():
        _enqueue(limits.next_in_line(rows))
    if done := [row for row in rows if row.status in ENDED]:
        transaction.on_commit(lambda: ended.send_robust(Task, tasks=done))


def _enqueue(rows: Iterable[Task]) -> None:
    enqueue([Waiting(str(row.pk), row.rank, row.run_after) for row in rows])


def _locked(rows: QuerySet[Task]) -> QuerySet[Task]:
    """SQLite locks the whole file instead."""
    return rows.select_for_update(skip_locked=True) if connection.features.has_select_for_update_skip_locked else rows


def _set(row: Task, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(row, name, value)


def _note(rows: Sequence[Task], now: float) -> None:
    at = moment(now)
    TaskEvent.objects.bulk_create(
        TaskEvent(task=row, status=row.status, attempt=row.attempts, note=row.error_message[:500], at=at) for row in rows
    )
    if rows:
        changed.send(Task, tasks=list(rows))
