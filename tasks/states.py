"""The words of a task's life."""

from __future__ import annotations

from django.db import models


class Status(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    COMPLETED = "completed", "Completed"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"
    EXPIRED = "expired", "Expired"


ENDED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)


class Priority(models.IntegerChoices):
    """How many steps of LLM_TASK_AGING_S later than an urgent one of the same moment a task's turn comes."""

    URGENT = 0, "Urgent"
    HIGH = 1, "High"
    NORMAL = 2, "Normal"
    LOW = 3, "Low"


PRIORITIES = {priority.name.lower(): priority for priority in Priority}
