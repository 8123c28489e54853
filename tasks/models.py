"""Tasks: the row is the truth, whoever works on it."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from access.models import ApiKey
from tasks.states import Priority, Status

PREFIX = "task_"


class Task(models.Model):
    """One piece of queued work.

    `rank` orders the queue, smallest first: wall seconds of its submission, and LLM_TASK_AGING_S more for each step of priority. So a
    task of low priority comes before every higher one that is submitted long enough after it: none starves, and no row is ever sorted anew.
    `fence` counts its claims; only the holder of the latest may write what came of it. It is on lease until `lease_until`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField("type", max_length=60)
    prompt = models.TextField(blank=True)
    template = models.JSONField(null=True, blank=True, help_text="Of prompts: id, version, variables; it is read when the task runs.")
    data = models.JSONField(default=dict, blank=True)
    priority = models.PositiveSmallIntegerField(choices=Priority.choices, default=Priority.NORMAL)
    model = models.CharField(max_length=300, blank=True, help_text="Asked for by the caller; empty = the route of the task's type.")
    options = models.JSONField(default=dict, blank=True, help_text="Of the chat call: temperature, max_tokens, cache.")
    timeout_s = models.FloatField()
    max_attempts = models.PositiveSmallIntegerField()
    callback_url = models.CharField(max_length=2000, blank=True)
    key = models.ForeignKey(ApiKey, null=True, on_delete=models.SET_NULL, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    idempotency_key = models.CharField(max_length=255, blank=True)
    fingerprint = models.CharField(max_length=64, blank=True, help_text="Of the body that came with the idempotency key.")
    batch = models.UUIDField(null=True, blank=True, db_index=True)

    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)
    rank = models.FloatField()
    run_after = models.FloatField(default=0, help_text="Wall seconds.")
    deadline = models.FloatField(null=True, blank=True, help_text="Wall seconds: a start later than that is of no use.")
    attempts = models.PositiveSmallIntegerField(default=0)
    fence = models.PositiveIntegerField(default=0)
    lease_until = models.FloatField(default=0, help_text="Wall seconds.")
    worker = models.CharField(max_length=60, blank=True)
    result = models.JSONField(null=True, blank=True)
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.TextField(blank=True)
    request_id = models.CharField(max_length=40, blank=True, help_text="Of the last request to a model; its log has attempts and costs.")
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["status", "rank"], name="task_queue"),
            models.Index(fields=["-created_at"], name="task_newest"),
            models.Index(fields=["key", "-created_at"], name="task_of_key"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["key", "idempotency_key"], condition=~models.Q(idempotency_key=""), name="task_once_per_key"),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def public_id(self) -> str:
        return f"{PREFIX}{self.pk}"


class TaskEvent(models.Model):
    """What befell a task, in order. `seq` counts over all tasks: who was away asks for what came after the last one seen."""

    seq = models.BigAutoField(primary_key=True)
    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="events")
    status = models.CharField(max_length=10, choices=Status.choices)
    attempt = models.PositiveSmallIntegerField(default=0)
    note = models.CharField(max_length=500, blank=True)
    at = models.DateTimeField()

    class Meta:
        ordering = ["seq"]

    def __str__(self) -> str:
        return f"{self.task_id} {self.status}"
