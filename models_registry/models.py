"""Models that callers may ask for, and their prices."""

from __future__ import annotations

import uuid

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from providers.models import Provider

ALIAS_VALIDATOR = RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$", "Use letters, digits and . _ : / @ -; start with a letter or digit.")
CURRENCY_VALIDATOR = RegexValidator(r"^[A-Z]{3}$", "Three capital letters, e.g. USD.")


def _limit(help_text: str) -> models.PositiveIntegerField:
    return models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)], help_text=help_text)


class LLMModel(models.Model):
    """One model at one provider. Several rows with one alias are tried in order of priority."""

    class ModelType(models.TextChoices):
        CHAT = "chat", "Chat"
        COMPLETION = "completion", "Completion"
        EMBEDDING = "embedding", "Embedding"
        RERANK = "rerank", "Rerank"
        IMAGE = "image", "Image"
        AUDIO = "audio", "Audio"

    class OnUnsupported(models.TextChoices):
        REFUSE = "refuse", "Refuse by name"
        DROP = "drop", "Drop and report"

    class OnOverLong(models.TextChoices):
        REFUSE = "refuse", "Refuse"
        TRUNCATE = "truncate", "Truncate"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="models")
    model_id = models.CharField("vendor's name", max_length=200, help_text="The model's name at the vendor.")
    alias = models.CharField(max_length=200, db_index=True, validators=[ALIAS_VALIDATOR], help_text="The name callers use.")
    model_type = models.CharField(max_length=20, choices=ModelType.choices, default=ModelType.CHAT)
    is_active = models.BooleanField("active", default=True)
    priority = models.PositiveSmallIntegerField(
        default=100, validators=[MaxValueValidator(1000)], help_text="Lower is tried first among models of one alias."
    )
    context_window = models.PositiveIntegerField(null=True, blank=True, help_text="Tokens; empty = not known.")
    max_output_tokens = models.PositiveIntegerField(null=True, blank=True, help_text="Tokens; empty = not known.")
    capabilities = models.JSONField(default=list, blank=True, help_text='E.g. ["tools", "images", "json"].')
    unsupported_params = models.CharField(
        "parameters the vendor cannot take",
        max_length=10,
        choices=OnUnsupported.choices,
        default=OnUnsupported.REFUSE,
        help_text="For a request that asks for more than this vendor's API has. What was dropped, the answer's headers and the log tell.",
    )
    over_long = models.CharField(
        "conversations over the context window",
        max_length=10,
        choices=OnOverLong.choices,
        default=OnOverLong.REFUSE,
        help_text="Truncate: the oldest turns are left out; the system prompt, the last turn, and tool calls with their results stay.",
    )
    requests_per_minute = _limit("Sent to this model at this provider; beyond it the next model of the alias is asked. Empty = no limit.")
    tokens_per_minute = _limit("Empty = no limit.")
    max_concurrency = _limit("Requests at once, in each process; empty = no limit.")
    quality = models.PositiveSmallIntegerField(default=50, validators=[MinValueValidator(0), MaxValueValidator(100)])
    tested = models.JSONField(
        default=dict, blank=True, editable=False, help_text="What the last connection test found: check → pass | fail | not_offered."
    )
    tested_at = models.DateTimeField(null=True, blank=True, editable=False)
    gone_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When a sync switched it off because the vendor no longer lists it."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "model"
        ordering = ["alias", "priority"]
        constraints = [models.UniqueConstraint(fields=["provider", "model_id", "alias"], name="one_alias_per_provider_model")]

    def __str__(self) -> str:
        return self.alias


class Price(models.Model):
    """What a model costs from a moment on. Never edited: a new row ends the one before it.

    Amounts are integer micro-units of `currency` per million tokens: 2_500_000 is 2.50 per million. The optional ones are
    empty where the tokens cost what text costs in the same direction (`core.config.PriceSpec`).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    model = models.ForeignKey(LLMModel, on_delete=models.CASCADE, related_name="prices")
    currency = models.CharField(max_length=3, default="USD", validators=[CURRENCY_VALIDATOR])
    valid_from = models.DateTimeField(db_index=True)
    valid_to = models.DateTimeField(null=True, blank=True, help_text="Empty = still in force.")
    input_micros = models.BigIntegerField(validators=[MinValueValidator(0)])
    cached_input_micros = models.BigIntegerField(validators=[MinValueValidator(0)])
    cache_write_micros = models.BigIntegerField(validators=[MinValueValidator(0)])
    output_micros = models.BigIntegerField(validators=[MinValueValidator(0)])
    cache_write_1h_micros = models.BigIntegerField(null=True, blank=True, validators=[MinValueValidator(0)])
    reasoning_micros = models.BigIntegerField(null=True, blank=True, validators=[MinValueValidator(0)])
    input_audio_micros = models.BigIntegerField(null=True, blank=True, validators=[MinValueValidator(0)])
    input_image_micros = models.BigIntegerField(null=True, blank=True, validators=[MinValueValidator(0)])
    output_audio_micros = models.BigIntegerField(null=True, blank=True, validators=[MinValueValidator(0)])
    output_image_micros = models.BigIntegerField(null=True, blank=True, validators=[MinValueValidator(0)])
    source = models.CharField(max_length=200, blank=True, help_text="Where the figures come from.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-valid_from"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(valid_to__isnull=True) | models.Q(valid_to__gt=models.F("valid_from")), name="price_ends_after_it_starts"
            ),
            models.CheckConstraint(
                condition=models.Q(input_micros__gte=0, cached_input_micros__gte=0, cache_write_micros__gte=0, output_micros__gte=0),
                name="prices_are_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} from {self.valid_from:%Y-%m-%d %H:%M}"
