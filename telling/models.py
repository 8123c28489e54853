"""Webhooks that are to be sent and what became of them, their secrets; events for sockets, and the tickets that open one."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from access.models import PersonalToken, Team
from core.secrets import Secret
from providers.fields import EncryptedField
from providers.vault import key_ring
from tasks.models import Task
from telling.alert_models import AlertChannel


class WebhookSecret(models.Model):
    """What the webhooks of one team are signed with. After a rotation two count for a while, the older one until `retires_at`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(
        Team, null=True, blank=True, on_delete=models.CASCADE, related_name="+", help_text="Empty: of the tasks that people submit."
    )
    secret = EncryptedField()
    created_at = models.DateTimeField()
    retires_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"webhook secret of {self.team or 'people'} ({self.created_at:%Y-%m-%d %H:%M})"

    def bound_to(self) -> str:
        """What the sealed secret belongs to: this row and field, and the team."""
        return f"{self._meta.db_table}:{self.id}:secret:{self.team_id or ''}"

    def seal(self, plaintext: str) -> None:
        """Sets the secret on this instance; the caller saves it."""
        self.secret = key_ring().seal(plaintext, self.bound_to())

    def open(self) -> Secret:
        """Raises core.secrets.CannotOpen."""
        return key_ring().open(bytes(self.secret), self.bound_to())


class WebhookStatus(models.TextChoices):
    PENDING = "pending", "Pending"
    DELIVERED = "delivered", "Delivered"
    DEAD = "dead", "Dead letter"


class Webhook(models.Model):
    """One event for one address, written in the transaction of what it tells. Its id is `webhook-id`, the same at every try.

    On lease until `lease_until`; only the holder of the latest `fence` may write what came of a try.
    """

    Status = WebhookStatus

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, null=True, on_delete=models.CASCADE, related_name="+")
    task = models.ForeignKey(Task, null=True, on_delete=models.CASCADE, related_name="webhooks", help_text="Empty: it tells of an alert.")
    channel = models.ForeignKey(AlertChannel, null=True, on_delete=models.CASCADE, related_name="+")
    event_type = models.CharField(max_length=20)
    url = models.CharField(max_length=2000)
    host = models.CharField(max_length=300, help_text="With its port: so many tries at once go there as LLM_WEBHOOK_PER_HOST says.")
    body = models.TextField()

    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    tries = models.PositiveSmallIntegerField(default=0)
    next_at = models.FloatField(help_text="Wall seconds.")
    lease_until = models.FloatField(default=0, help_text="Wall seconds.")
    fence = models.PositiveIntegerField(default=0)
    last_status = models.PositiveSmallIntegerField("last answer", null=True)
    last_error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        permissions = [("replay_webhook", "Can send a dead letter again")]
        indexes = [
            models.Index(fields=["status", "next_at"], name="webhook_due"),
            models.Index(fields=["-created_at"], name="webhook_newest"),
        ]

    def __str__(self) -> str:
        return self.message_id

    @property
    def message_id(self) -> str:
        return f"msg_{self.pk}"


class WebhookTry(models.Model):
    """One try at one webhook. `number` counts on when a dead letter is sent again."""

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="history")
    number = models.PositiveSmallIntegerField()
    at = models.DateTimeField()
    duration_ms = models.PositiveIntegerField()
    status_code = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["pk"]
        default_permissions = ()
        verbose_name_plural = "tries"

    def __str__(self) -> str:
        return f"try {self.number}: {self.status_code or self.error}"


class Event(models.Model):
    """What sockets are told, in the order of its commits. `topics`: whoever listens to one of them may see it (`telling.topics`)."""

    seq = models.BigAutoField(primary_key=True)
    type = models.CharField(max_length=20)
    topics = models.JSONField()
    data = models.JSONField()
    at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["seq"]
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.seq} {self.type}"


class SocketTicket(models.Model):
    """Opens one socket, once, for the person who asked for it; that lasts no longer than the token or session it was asked with."""

    digest = models.BinaryField(primary_key=True, max_length=32)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    token = models.ForeignKey(PersonalToken, null=True, on_delete=models.CASCADE, related_name="+")
    session_key = models.CharField(max_length=40, blank=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"ticket of {self.user_id}"
