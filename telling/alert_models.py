"""Alerts: whom to tell (channels), of what (rules), and what is and was the matter (alerts)."""

from __future__ import annotations

import uuid
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from core.secrets import Secret
from providers.fields import EncryptedField
from providers.vault import key_ring
from telling.alerts import kinds
from telling.channels import registry

MIN_WINDOW_S, MAX_WINDOW_S = 30, 3600


class AlertChannel(models.Model):
    """One receiver of alerts. Its address may hold a credential, so it is sealed with the secret; people see where it leads."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=80, unique=True)
    kind = models.CharField(max_length=20, choices=registry.choices)
    is_active = models.BooleanField("active", default=True)
    recipients = models.TextField(max_length=2000, blank=True, help_text="Of e-mail: one address a line.")
    shown_address = models.CharField("address", max_length=300, blank=True, editable=False, help_text="Without what must stay secret.")
    sealed = EncryptedField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        permissions = [("test_alertchannel", "Can send a test message")]

    def __str__(self) -> str:
        return self.name

    def bound_to(self) -> str:
        """What the sealed address and secret belong to: this row and field, and the kind of receiver."""
        return f"{self._meta.db_table}:{self.id}:sealed:{self.kind}"

    def seal(self, plaintext: str) -> None:
        """Sets address and secret on this instance, as JSON; the caller saves it."""
        self.sealed = key_ring().seal(plaintext, self.bound_to())

    def open(self) -> Secret:
        """Raises core.secrets.CannotOpen."""
        return key_ring().open(bytes(self.sealed), self.bound_to())


class AlertRule(models.Model):
    """When to tell whom. One alert fires for each subject (a provider, a budget, …) that is beyond the threshold."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120, unique=True)
    condition = models.CharField(max_length=30, choices=kinds.choices)
    threshold = models.DecimalField(max_digits=14, decimal_places=4, help_text="In the condition's unit; it fires beyond this.")
    window_s = models.PositiveIntegerField(
        "window",
        default=300,
        validators=[MinValueValidator(MIN_WINDOW_S), MaxValueValidator(MAX_WINDOW_S)],
        help_text="Seconds that are looked at together; of states, for how long all must be well before it counts as over.",
    )
    min_requests = models.PositiveIntegerField(
        "at least", default=20, validators=[MinValueValidator(1)], help_text="Requests in the window; of fewer, shares say nothing."
    )
    per_provider = models.BooleanField("for each provider", default=False, help_text="Else for all requests together.")
    channels = models.ManyToManyField(AlertChannel, blank=True, related_name="rules", help_text="None: it is shown here alone.")
    is_active = models.BooleanField("active", default=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Raises ValidationError."""
        kind = kinds.KINDS.get(self.condition)
        if kind is None or not isinstance(self.threshold, Decimal):
            return  # the field has said so
        if not kind.low <= self.threshold <= kind.high:
            raise ValidationError({"threshold": f"Write a number from {kind.low} to {kind.high} ({kind.unit})."})
        if self.per_provider and not kind.per_provider:
            raise ValidationError({"per_provider": f"{kind.label} is not looked at by provider; leave this off."})

    def beyond(self, value: Decimal | float) -> bool:
        """At the threshold itself a rule fires only where that is what a person expects of it: a budget that is at 80 %."""
        exact = Decimal(str(value))
        return exact >= self.threshold if kinds.KINDS[self.condition].inclusive else exact > self.threshold


class Alert(models.Model):
    """One time that a rule fired for one subject. Open until `resolved_at`; the constraint lets one process open it, and no other."""

    rule = models.ForeignKey(AlertRule, null=True, on_delete=models.SET_NULL, related_name="alerts")
    rule_name = models.CharField("rule", max_length=120)
    condition = models.CharField(max_length=30, choices=kinds.choices)
    subject = models.CharField(max_length=200)
    label = models.CharField("about", max_length=300)
    value = models.FloatField("last value", help_text="In the condition's unit.")
    sentence = models.CharField("matter", max_length=500)
    started_at = models.DateTimeField("firing since")
    seen_at = models.DateTimeField("last seen")
    resolved_at = models.DateTimeField(null=True, db_index=True)

    class Meta:
        ordering = ["-started_at"]
        default_permissions = ("view",)
        indexes = [models.Index(fields=["-started_at"], name="alert_newest")]
        constraints = [
            models.UniqueConstraint(fields=["rule", "subject"], condition=models.Q(resolved_at=None), name="alert_open_once"),
        ]

    def __str__(self) -> str:
        return f"{self.rule_name}: {self.label}"

    @property
    def is_firing(self) -> bool:
        return self.resolved_at is None


class AlertTurn(models.Model):
    """A single row (pk 1): whoever moves `next_at` on is the one that looks this time."""

    next_at = models.FloatField(default=0, help_text="Wall seconds.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"next at {self.next_at:.0f}"


class AlertSample(models.Model):
    """What the rollups said at one moment, so that the minutes since then can be told from them, which know only hours."""

    at = models.FloatField(db_index=True, help_text="Wall seconds.")
    seen_id = models.PositiveBigIntegerField(default=0, help_text="The newest row of the ledger.")
    read_id = models.PositiveBigIntegerField(default=0, help_text="Up to this one, calls have been looked at.")
    sums = models.JSONField(default=dict, help_text="hour → provider → [requests, failed, and those of each duration].")
    calls = models.JSONField(default=dict, help_text="Since the sample before: provider → [answered, of these without usage].")
    dearest = models.JSONField(default=list, help_text="Of those: [micros, request id, key, model] of the one that cost most.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"sample {self.pk}"


class JournalBacklog(models.Model):
    """What one process says of its journal: how much of it is not in the database yet."""

    process = models.CharField(primary_key=True, max_length=80)
    waiting_bytes = models.PositiveBigIntegerField()
    updated_at = models.FloatField(help_text="Wall seconds.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.process}: {self.waiting_bytes} bytes"
