"""From tasks to webhooks: accepted only if they could be delivered, and written in the transaction in which the task ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.conf import settings
from django.db import transaction

from core.errors import GatewayError
from tasks.models import Task
from tasks.signals import changed, submitting
from tasks.states import Status
from telling import callbacks, services
from telling.models import Webhook
from telling.signals import webhooks_due

# Who cancels a task knows it already.
_EVENT_TYPES = {Status.COMPLETED: "completed", Status.FAILED: "failed", Status.EXPIRED: "failed"}


class NoSecret(GatewayError):
    """Nothing is ever sent unsigned."""

    http_status, code, type = 422, "webhook_secret_missing", "invalid_request_error"


def listen() -> None:
    submitting.connect(_on_submitting, dispatch_uid="telling.outbox")
    changed.connect(_on_changed, dispatch_uid="telling.outbox")


def _on_submitting(tasks: Sequence[Task], **signal: Any) -> None:
    """Raises CallbackRefused, NoSecret."""
    asking = [task for task in tasks if task.callback_url]
    for url in {task.callback_url for task in asking}:
        callbacks.check(url, settings.WEBHOOK_ALLOW)
    for team_id in {_team_of(task) for task in asking}:
        if not services.has_secret(team_id):
            whose = "the team of this key" if team_id else "tasks of people"
            raise NoSecret(
                f"callback_url needs a signing secret, and {whose} has none yet: make one with POST /api/v1/webhook-secrets.",
                param="callback_url",
            )


def _on_changed(tasks: Sequence[Task], **signal: Any) -> None:
    add(task.pk for task in tasks if task.callback_url and task.status in _EVENT_TYPES)


def add(task_ids: Iterable[Any]) -> None:
    """A webhook for each of these tasks, which have ended. Inside the transaction that ends them."""
    if not (ids := list(task_ids)):
        return
    rows = Task.objects.filter(pk__in=ids).select_related("key")
    Webhook.objects.bulk_create(_webhook(task) for task in rows)
    transaction.on_commit(lambda: webhooks_due.send_robust(Webhook))


def _webhook(task: Task) -> Webhook:
    ended = task.finished_at or datetime.now(UTC)
    event_type = _EVENT_TYPES[Status(task.status)]
    return Webhook(
        team_id=_team_of(task),
        task=task,
        event_type=event_type,
        url=task.callback_url,
        host=callbacks.host_of(task.callback_url),
        body=_body(task, event_type, ended),
        next_at=ended.timestamp(),
        created_at=ended,
    )


def _body(task: Task, event_type: str, ended: datetime) -> str:
    told: dict[str, Any] = {"event_type": event_type, "task_id": task.public_id, "timestamp": ended}
    if event_type == "completed":
        told["data"] = task.result
    else:
        told["error"] = {"code": task.error_code, "message": task.error_message}
    return msgspec.json.encode(told).decode()


def _team_of(task: Task) -> Any:
    """None: a person's task."""
    return task.key.team_id if task.key is not None else None
