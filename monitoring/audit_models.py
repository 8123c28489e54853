"""The audit trail, as rows."""

from __future__ import annotations

import json
from typing import Any

from django.db import models


class AuditEvent(models.Model):
    """Who did what, and what it changed. Written by `monitoring.audit` alone; each row is hashed onto the one before it (docs/audit.md).

    Triggers in the database refuse every change, so there is no permission to add, change or delete.
    """

    class Action(models.TextChoices):
        CREATED = "created", "Created"
        CHANGED = "changed", "Changed"
        DELETED = "deleted", "Deleted"
        LOGIN = "login", "Login"
        LOGIN_FAILED = "login_failed", "Login failed"
        LOGOUT = "logout", "Logout"
        REFUSED = "refused", "Refused"
        REVEALED = "revealed", "Key revealed"
        CORRECTED = "corrected", "Corrected"
        EXPORTED = "exported", "Exported"
        BODY_READ = "body_read", "Body read"
        BREAKER = "breaker", "Breaker"

    sequence = models.PositiveBigIntegerField("number", primary_key=True)
    at = models.DateTimeField("time")
    actor_id = models.CharField(max_length=40, blank=True, help_text="The user's id; empty = nobody was logged in.")
    actor = models.CharField(max_length=150, blank=True)
    source = models.CharField(max_length=10, help_text="admin, api, shell, command or data plane.")
    address = models.CharField(max_length=64, blank=True)
    request_id = models.CharField(max_length=64, blank=True)
    action = models.CharField(max_length=20, choices=Action.choices)
    object_type = models.CharField(max_length=100, blank=True, help_text="E.g. providers.Provider.")
    object_id = models.CharField(max_length=64, blank=True)
    object_label = models.CharField("object", max_length=200, blank=True)
    changes = models.TextField(help_text="JSON: field → [before, after]. A keyed hash stands for each secret.")
    prev = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        verbose_name = "audit event"
        ordering = ["-sequence"]
        default_permissions = ("view",)
        permissions = [("export_auditevent", "Can export the audit trail")]
        indexes = [
            models.Index(fields=["at"], name="audit_at"),
            models.Index(fields=["actor", "sequence"], name="audit_actor"),
            models.Index(fields=["action", "sequence"], name="audit_action"),
            models.Index(fields=["object_type", "object_id", "sequence"], name="audit_object"),
            models.Index(fields=["request_id"], name="audit_request"),
        ]

    @property
    def changed(self) -> dict[str, Any] | None:
        """Field → [before, after]. None where somebody wrote no JSON into the row, past the triggers."""
        try:
            found = json.loads(self.changes)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def __str__(self) -> str:
        return f"{self.sequence}: {self.action} {self.object_label}".rstrip()
