"""Submitting and cancelling tasks: what REST, the shell and other code share."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from django.conf import settings
from django.db import transaction
from django.db.models import Min, QuerySet

from access.models import ApiKey
from core.errors import CallerLimited, InvalidRequest
from core.shapes import known
from gateway import prompting
from gateway.doors.fields import OutputTokens, Temperature
from gateway.idempotency import KeyReused
from tasks import limits, queue
from tasks.added import Types, options_of, template_of
from tasks.models import PREFIX, Task, TaskType
from tasks.signals import submitted, submitting
from tasks.states import PRIORITIES, Status

MAX_BATCH = 1000
_RECENT_S = 60.0


class QueueFull(CallerLimited):
    """As many tasks wait as LLM_MAX_QUEUE_SIZE allows."""

    code = "queue_full"


class TooLate(CallerLimited):
    """What waits already takes longer than the caller's deadline."""

    code = "deadline_unreachable"


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """`timeout` and `deadline` in seconds: of one attempt, and until the task must have begun. None = the settings' defaults.

    `cache_enabled` False: neither given from the gateway's cache nor kept there; True = as the model's or route's row says.
    """

    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None
    deadline: Annotated[float, msgspec.Meta(gt=0, le=30 * 86_400)] | None = None
    model: Annotated[str, msgspec.Meta(max_length=300)] = ""
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    temperature: Temperature | None = None
    max_tokens: OutputTokens | None = None
    cache_enabled: bool = True

    def options(self) -> dict[str, Any]:
        """Of the chat call, where they are not its defaults."""
        said = {"temperature": self.temperature, "max_tokens": self.max_tokens, "cache": None if self.cache_enabled else {"enabled": False}}
        return {name: value for name, value in said.items() if value is not None}


class Submission(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /api/v1/tasks. `prompt`: a text, or {id, version, variables} of a template (`gateway.prompting`)."""

    type: str
    prompt: Annotated[str, msgspec.Meta(max_length=1_000_000)] | dict[str, Any] = ""
    data: dict[str, Any] = {}
    priority: str = "normal"
    config: Config = msgspec.field(default_factory=Config)
    callback_url: Annotated[str, msgspec.Meta(max_length=2000)] = ""

    def check(self, types: Types) -> None:
        """Raises InvalidRequest with the field in `param`."""
        types.row(self.type)
        if self.priority not in PRIORITIES:
            raise InvalidRequest(f"Unknown priority {self.priority[:60]!r}; use low, normal, high or urgent.", param="priority")
        longest = settings.MAX_TASK_TIMEOUT_S
        if self.config.timeout is not None and self.config.timeout > longest:
            raise InvalidRequest(f"A task may take {longest:g} s at most.", param="config.timeout")
        if isinstance(self.prompt, dict):
            prompting.check(self.prompt)
        types.check(self.type, self.prompt, self.data)


known(Submission)


class Submitter(msgspec.Struct, frozen=True):
    """On whose behalf: an API key, whose limits and budgets count, or a person."""

    key: ApiKey | None = None
    user: Any = None


def read(body: Any, *, where: str = "", types: Types | None = None) -> Submission:
    """A submission of decoded JSON, checked. `where` is put before the field's name; `types` is one for all tasks of a batch.

    Raises InvalidRequest.
    """
    try:
        found = msgspec.convert(body, Submission)
        found.check(types or Types())
    except msgspec.ValidationError as exc:
        sentence, _, path = str(exc).partition(" - at `$")
        field = path.rstrip("`").lstrip(".") or _named(sentence)
        raise InvalidRequest(f"{sentence}.", param=where + field or None) from None
    except InvalidRequest as refused:
        raise InvalidRequest(refused.message, param=f"{where}{refused.param}") from None
    return found


def _named(sentence: str) -> str:
    """Of msgspec's "Object missing required field `type`" and the like, the field."""
    return sentence.split("`")[1] if sentence.count("`") == 2 else ""


def submit(
    submissions: Sequence[Submission], by: Submitter, *, idempotency_key: str = "", clock: Callable[[], float] = time.time
) -> list[Task]:
    """All of them, or none. With an idempotency key that was used before, the task of then.

    Raises QueueFull, TooLate, KeyReused, InvalidRequest where a type is gone by now, and what receivers of `submitting` raise.
    """
    fingerprint = _fingerprint(submissions) if idempotency_key else ""
    if idempotency_key and (before := _before(by, idempotency_key, fingerprint)):
        return before
    now, types = clock(), Types()
    rows = [_row(each, by, now, types.row(each.type)) for each in submissions]
    if len(rows) > 1:
        batch = uuid.uuid4()
        for row in rows:
            row.batch = batch
    rows[0].idempotency_key, rows[0].fingerprint = idempotency_key, fingerprint
    submitting.send(Task, tasks=rows)
    with transaction.atomic():
        limits.alone()
        if idempotency_key and (before := _before(by, idempotency_key, fingerprint)):  # it came twice at once, and the other was first
            return before
        _require_room(rows, now)
        queue.put(rows, now)
        transaction.on_commit(lambda: submitted.send_robust(Task, tasks=rows))
    return rows


def _row(asked: Submission, by: Submitter, now: float, added: TaskType | None) -> Task:
    """`added`: its type, where it is none of the shipped."""
    config, priority = asked.config, PRIORITIES[asked.priority]
    text, template = (asked.prompt, None) if isinstance(asked.prompt, str) else ("", asked.prompt)
    return Task(
        kind=asked.type,
        prompt=text,
        template=template if added is None else template_of(added, asked.data),
        data=asked.data if added is None else {},
        priority=priority,
        model=config.model or (added.model if added else ""),
        options={**(options_of(added) if added else {}), **config.options()},
        timeout_s=config.timeout or (added and added.timeout_s) or settings.TASK_TIMEOUT_S,
        max_attempts=config.max_attempts,
        callback_url=asked.callback_url,
        key=by.key,
        user=by.user,
        rank=now + priority * settings.TASK_AGING_S,
        deadline=now + config.deadline if config.deadline else None,
        created_at=queue.moment(now),
    )


def _fingerprint(submissions: Sequence[Submission]) -> str:
    return hashlib.sha256(msgspec.json.encode(list(submissions), order="sorted")).hexdigest()


def _before(by: Submitter, idempotency_key: str, fingerprint: str) -> list[Task]:
    first = Task.objects.filter(key=by.key, user=by.user, idempotency_key=idempotency_key).first()
    if first is None:
        return []
    if first.fingerprint != fingerprint:
        raise KeyReused("This Idempotency-Key came with another task before; use a new one for a new task.", param="Idempotency-Key")
    if first.batch is None:
        return [first]
    return list(of_batch(first.batch))


def of_batch(batch: uuid.UUID) -> QuerySet[Task]:
    """In the order in which they were submitted."""
    return Task.objects.filter(batch=batch).annotate(submitted=Min("events__seq")).order_by("submitted")


def _require_room(rows: Sequence[Task], now: float) -> None:
    """Counted in the transaction that fills it, alone."""
    waiting = queue.length()
    wait_s = _expected_wait_s(waiting, now)
    if waiting + len(rows) > settings.MAX_QUEUE_SIZE:
        raise QueueFull(
            f"{waiting} tasks wait, and the queue takes {settings.MAX_QUEUE_SIZE} (LLM_MAX_QUEUE_SIZE); nothing of this was accepted.",
            retry_after_s=max(1.0, wait_s or 1.0),
        )
    soonest = min((row.deadline for row in rows if row.deadline is not None), default=None)
    if soonest is not None and wait_s is not None and now + wait_s > soonest:
        raise TooLate(
            f"A task begins in about {wait_s:.0f} s now, later than its deadline of {soonest - now:g} s.",
            param="config.deadline",
            retry_after_s=wait_s,
        )


def _expected_wait_s(waiting: int, now: float) -> float | None:
    """By how many ended in the last minute; None = nothing is known."""
    if not waiting:
        return 0.0
    ended = Task.objects.filter(finished_at__gte=queue.moment(now - _RECENT_S), status__in=(Status.COMPLETED, Status.FAILED)).count()
    return waiting * _RECENT_S / ended if ended else None


def found(by: Submitter, public_id: str) -> Task | None:
    """A key's own task, or any for a person who may see them all: the caller has checked that."""
    try:
        pk = uuid.UUID(public_id.removeprefix(PREFIX))
    except ValueError:
        return None
    rows = Task.objects.filter(pk=pk)
    return (rows.filter(key=by.key) if by.key is not None else rows).first()


def shown(task: Task) -> Mapping[str, Any]:
    """A task as REST and sockets tell it."""
    error = {"code": task.error_code, "message": task.error_message} if task.error_code else None
    return {
        "task_id": task.public_id,
        "type": task.kind,
        "status": task.status,
        "priority": next(name for name, value in PRIORITIES.items() if value == task.priority),
        "result": task.result,
        "error": error,
        "attempts": task.attempts,
        "request_id": task.request_id or None,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
    }
