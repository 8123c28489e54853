"""The ledger of what happened. Rows carry names beside ids and no foreign keys: history survives what it speaks of."""

from __future__ import annotations

from django.db import models


class UsageRecord(models.Model):
    """One attempt at a vendor: what went in, what came out, what it cost. Written by the drainer, never edited."""

    class Status(models.TextChoices):
        OK = "ok", "OK"
        ERROR = "error", "Error"
        CLIENT_CLOSED = "client_closed", "Client left"
        INTERRUPTED = "interrupted", "Process died"

    class Source(models.TextChoices):
        VENDOR = "vendor", "Vendor"
        ESTIMATED = "estimated", "Estimated"
        NONE = "none", "None"

    request_id = models.CharField(max_length=40)
    attempt = models.PositiveSmallIntegerField()
    started_at = models.DateTimeField()
    team_id = models.CharField(max_length=36, blank=True)
    team_name = models.CharField("team", max_length=120, blank=True)
    key_id = models.CharField(max_length=36, blank=True)
    key_name = models.CharField("key", max_length=120, blank=True)
    provider_id = models.CharField(max_length=36)
    provider_name = models.CharField("provider", max_length=80)
    provider_key_id = models.CharField(max_length=36, blank=True)
    alias = models.CharField("model", max_length=200)
    model_id = models.CharField("vendor's model", max_length=200)
    status = models.CharField(max_length=16, choices=Status.choices)
    error_code = models.CharField(max_length=60, blank=True)
    vendor_status = models.PositiveSmallIntegerField(default=0, help_text="HTTP status of the vendor; 0 = none.")
    finish_reason = models.CharField(max_length=40, blank=True)
    streamed = models.BooleanField(default=False)
    input_tokens = models.PositiveBigIntegerField(default=0)
    cached_input_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_tokens = models.PositiveBigIntegerField(default=0)
    cache_write_1h_tokens = models.PositiveBigIntegerField(default=0)
    input_audio_tokens = models.PositiveBigIntegerField(default=0)
    input_image_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    reasoning_tokens = models.PositiveBigIntegerField(default=0)
    output_audio_tokens = models.PositiveBigIntegerField(default=0)
    output_image_tokens = models.PositiveBigIntegerField(default=0)
    usage_source = models.CharField(max_length=12, choices=Source.choices)
    cost_micros = models.BigIntegerField(null=True, help_text="Millionths of the currency; empty = price unknown.")
    currency = models.CharField(max_length=3, blank=True)
    price_id = models.CharField(max_length=36, blank=True)
    duration_ms = models.PositiveIntegerField(default=0)
    first_token_ms = models.PositiveIntegerField(null=True)
    config_version = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["request_id", "attempt"], name="usage_attempt")]
        indexes = [models.Index(fields=["started_at"], name="usage_started")]

    def __str__(self) -> str:
        return f"{self.request_id}-{self.attempt}"


class RequestLog(models.Model):
    """One client request, however many attempts it took. `status_code` is what the client got; 499 = it had left."""

    request_id = models.CharField(max_length=40, unique=True)
    started_at = models.DateTimeField()
    team_id = models.CharField(max_length=36, blank=True)
    team_name = models.CharField("team", max_length=120, blank=True)
    key_id = models.CharField(max_length=36, blank=True)
    key_name = models.CharField("key", max_length=120, blank=True)
    dialect = models.CharField(max_length=20)
    alias = models.CharField("model", max_length=200, blank=True)
    provider_name = models.CharField("provider", max_length=80, blank=True)
    model_id = models.CharField("vendor's model", max_length=200, blank=True)
    streamed = models.BooleanField(default=False)
    status_code = models.PositiveSmallIntegerField()
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.CharField(max_length=500, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    total_tokens = models.PositiveBigIntegerField(default=0)
    cost_micros = models.BigIntegerField(null=True)
    currency = models.CharField(max_length=3, blank=True)
    duration_ms = models.PositiveIntegerField(default=0)
    first_token_ms = models.PositiveIntegerField(null=True)
    config_version = models.PositiveBigIntegerField(default=0)
    dropped = models.CharField(
        max_length=500,
        blank=True,
        help_text="What the client asked for and the vendor did not get: parameters by name, messages by place.",
    )

    class Meta:
        verbose_name = "request"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["started_at"], name="request_started"),
            models.Index(fields=["key_id", "id"], name="request_key"),
        ]

    def __str__(self) -> str:
        return self.request_id
