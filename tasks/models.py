"""Tasks: the row is the truth, whoever works on it; and the types that administrators add."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from access.models import ApiKey
from gateway.doors.fields import MAX_OUTPUT_TOKENS
from models_registry.models import PromptTemplate
from tasks import schemas
from tasks.kinds import KINDS
from tasks.states import Priority, Status

PREFIX = "task_"
_TYPE_NAME = RegexValidator(r"\A[A-Za-z][A-Za-z0-9_-]*\Z", "Use letters, digits, _ and -; start with a letter.")


class TaskType(models.Model):
    """A type of tasks beside the shipped ones (`tasks.kinds`). Tasks take with them what it says when they are submitted: `tasks.added`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(
        max_length=60,
        unique=True,
        validators=[_TYPE_NAME],
        help_text="What callers write as the task's type. It stays: routes, limits and records know the type by it.",
    )
    description = models.CharField(max_length=500, blank=True, help_text="For people: what such tasks are for.")
    prompt = models.CharField(max_length=100, help_text="Name of a prompt template; its variables are the data of the task.")
    prompt_version = models.CharField(
        max_length=60, blank=True, help_text="A number or a label, e.g. production. Empty: the one that requests without a version get."
    )
    result_schema = models.JSONField(
        null=True, blank=True, help_text="JSON schema that every result follows, an object. Empty: the result is a text."
    )
    model = models.CharField(
        max_length=300, blank=True, help_text="Name of a model or route. Empty: the route that has this type, else the key's default."
    )
    max_tokens = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_OUTPUT_TOKENS)],
        help_text="Of the answer. Empty: no bound.",
    )
    temperature = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0), MaxValueValidator(2)], help_text="0 to 2. Empty: the model's own."
    )
    timeout_s = models.FloatField(
        "timeout", null=True, blank=True, validators=[MinValueValidator(0.1)], help_text="Seconds for one attempt. Empty: LLM_TASK_TIMEOUT."
    )
    max_concurrency = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(1_000_000)],
        help_text="Tasks of this type at once over all workers. Empty: no bound.",
    )
    is_active = models.BooleanField("active", default=True, help_text="Off: no more tasks of it are taken; those that wait are done.")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "task type"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def version(self) -> int | str | None:
        """Of the prompt, as requests name it."""
        if not self.prompt_version:
            return None
        return int(self.prompt_version) if self.prompt_version.isascii() and self.prompt_version.isdecimal() else self.prompt_version

    def clean(self) -> None:
        """Runs for admin, REST and shell alike. Raises ValidationError by field."""
        refused = {"name": self._name_refusal(), "prompt": self._prompt_refusal()}
        refused["prompt_version"] = "" if refused["prompt"] else self._version_refusal()
        refused["result_schema"] = "" if self.result_schema is None else schemas.refusal(self.result_schema)
        if self.timeout_s is not None and self.timeout_s > settings.MAX_TASK_TIMEOUT_S:
            refused["timeout_s"] = f"A task may take {settings.MAX_TASK_TIMEOUT_S:g} s at most."
        if found := {field: sentence for field, sentence in refused.items() if sentence}:
            raise ValidationError(found)

    def _name_refusal(self) -> str:
        if self.name in KINDS:
            return f"There is a shipped type of this name ({', '.join(KINDS)}): choose another."
        if not self._state.adding and not TaskType.objects.filter(pk=self.pk, name=self.name).exists():
            return "A type keeps its name: routes, limits and records know it by that. Add another type, and switch this one off."
        return ""

    def _prompt_refusal(self) -> str:
        there = PromptTemplate.objects.filter(name=self.prompt).exists()
        return "" if there else f"There is no prompt called {self.prompt!r}: make it first, under Prompts."

    def _version_refusal(self) -> str:
        try:
            there = PromptTemplate.objects.get(name=self.prompt).spec().version(self.version) is not None
        except ValueError as fault:
            return f"The prompt cannot be read: {fault}"
        return "" if there else f"The prompt {self.prompt!r} has no version {self.prompt_version or 'for requests that name none'!r}."


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
