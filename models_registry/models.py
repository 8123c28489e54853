"""Models that callers may ask for, and their prices."""

from __future__ import annotations

import uuid
from collections import defaultdict
from typing import Any

import msgspec
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from core.config import DEFAULT_CURRENCY, RouteSpec
from core.money import CURRENCIES, UNKNOWN_CURRENCY, plain_rate
from models_registry import chains
from models_registry.prompt_models import PromptTemplate, PromptVersion
from providers.models import Provider, visibility_field

__all__ = ["ALIAS_VALIDATOR", "ExchangeRate", "LLMModel", "Price", "PromptTemplate", "PromptVersion", "Route", "validate_currency"]

ALIAS_VALIDATOR = RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$", "Use letters, digits and . _ : / @ -; start with a letter or digit.")
MAX_PRICED_TOKENS = 1_000_000_000


def validate_currency(code: str) -> None:
    if code not in CURRENCIES:
        raise ValidationError(UNKNOWN_CURRENCY)


def validate_cache_ttl(seconds: int) -> None:
    most = settings.CACHE_MAX_TTL_S
    if seconds > most:
        raise ValidationError(f"Write at most {most:,} seconds, which LLM_CACHE_MAX_TTL_S sets.")


def _cache_ttl(help_text: str) -> models.PositiveIntegerField:
    return models.PositiveIntegerField(
        "cache answers for", null=True, blank=True, validators=[validate_cache_ttl], help_text=f"Seconds. {help_text}"
    )


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
    visibility = visibility_field()
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
    cache_ttl_s = _cache_ttl("For so long the same request of the same team is given the same answer. Empty or 0: it is asked anew.")
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


class Route(models.Model):
    """A name that callers use for a chain of models: what is tried, in which order, and what is left when all of it fails.

    It names aliases of models and never another route, so that no chain can lead back into itself; a model may have the
    name of the route. What a chain may be: `models_registry.chains`; what the strategies mean: `core.choice`.
    """

    class Strategy(models.TextChoices):
        PRIORITY = "priority", "In this order"
        WEIGHTED = "weighted", "By weight"
        COST = "cost", "The cheapest first"
        SPEED = "speed", "The fastest first"
        QUALITY = "quality", "The best first"
        LEAST_BUSY = "least_busy", "The least busy first"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    alias = models.CharField(
        "name",
        max_length=200,
        unique=True,
        validators=[ALIAS_VALIDATOR],
        help_text="The name callers use. Where a model has it too, the route comes first.",
    )
    targets = models.JSONField(
        default=list, blank=True, help_text="Aliases of models, tried one after the other; several models of one alias, by their priority."
    )
    strategy = models.CharField(
        max_length=12, choices=Strategy.choices, default=Strategy.PRIORITY, help_text="Which of the models above is asked first."
    )
    weights = models.JSONField(
        default=dict, blank=True, help_text="Only for the strategy weighted: alias of a model → its weight, 1 to 1000. Without one: 1."
    )
    fallbacks = models.JSONField(
        "fallback models", default=list, blank=True, help_text="Aliases of models, tried one after the other when those above failed."
    )
    task_types = models.JSONField(
        default=list, blank=True, help_text='Requests with model "auto" and one of these task types come here, and queued tasks of it.'
    )
    degrade_to = models.CharField(
        "smaller model", max_length=200, blank=True, help_text="Alias of a model that answers when none of the above does. Empty: none."
    )
    fixed_answer = models.TextField(
        blank=True, help_text="The answer when no model can be had at all: no vendor is called and nothing is charged. Empty: an error."
    )
    cache_ttl_s = _cache_ttl("For what is asked by this name. 0: never. Empty: as the models say, if each of them does; then the shortest.")
    is_active = models.BooleanField("active", default=True, help_text="Off: its name stands for the models that have it, if any.")
    visibility = visibility_field()
    description = models.CharField(max_length=500, blank=True, help_text="For people: what the route is for.")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["alias"]

    def __str__(self) -> str:
        return self.alias

    def spec(self) -> RouteSpec:
        """Raises chains.Malformed, a ValueError, where a JSON column holds what it should not."""
        spec = chains.spec_of(
            self.alias,
            self.targets,
            self.degrade_to,
            self.fixed_answer,
            strategy=self.strategy,
            weights=self.weights,
            fallbacks=self.fallbacks,
            task_types=self.task_types,
        )
        return msgspec.structs.replace(spec, cache_ttl_s=self.cache_ttl_s)

    def clean(self) -> None:
        """Runs for admin, REST and shell alike. Raises ValidationError by field."""
        try:
            spec = self.spec()
        except chains.Malformed as error:
            raise ValidationError({error.field: str(error)}) from None
        types: dict[str, set[str]] = defaultdict(set)
        named = LLMModel.objects.filter(alias__in=chains.aliases_of(spec)).order_by()
        for alias, model_type in named.values_list("alias", "model_type"):
            types[alias].add(model_type)
        errors = chains.refusals(spec, types)
        if spec.task_types and "task_types" not in errors and (sentence := self._taken(spec)):
            errors["task_types"] = sentence
        if errors:
            raise ValidationError(errors)

    def _taken(self, spec: RouteSpec) -> str:
        """Which of its task types lead somewhere else already; "" = none."""
        others = Route.objects.exclude(pk=self.pk).order_by("alias").values_list("alias", "task_types")
        for alias, task_types in others:
            if isinstance(task_types, list) and (both := [name for name in spec.task_types if name in task_types]):
                return f"The task type {both[0]!r} leads to the route {alias!r} already; each leads to one route."
        return ""


class Price(models.Model):
    """What a model costs from a moment on. Never edited: a new row ends the one before it.

    It may hold only for one service tier, and only for requests above a size: each such has a history of its own.
    Amounts are integer micro-units of `currency` per million tokens: 2_500_000 is 2.50 per million. The optional ones are
    empty where the tokens cost what text costs in the same direction (`core.config.PriceSpec`).
    """

    class ServiceTier(models.TextChoices):
        ANY = "", "Any"
        PRIORITY = "priority", "Priority"
        FLEX = "flex", "Flex"
        BATCH = "batch", "Batch"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    model = models.ForeignKey(LLMModel, on_delete=models.CASCADE, related_name="prices")
    service_tier = models.CharField(
        max_length=10,
        choices=ServiceTier.choices,
        default=ServiceTier.ANY,
        blank=True,
        help_text="As the vendor calls it. Any: for every tier without a price of its own.",
    )
    min_input_tokens = models.PositiveIntegerField(
        default=0,
        validators=[MaxValueValidator(MAX_PRICED_TOKENS)],
        help_text="For requests with at least so many tokens of input, cached ones among them: then for all of their tokens.",
    )
    currency = models.CharField(max_length=3, default=DEFAULT_CURRENCY, validators=[validate_currency])
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
            models.UniqueConstraint(
                fields=["model", "service_tier", "min_input_tokens", "valid_from"],
                name="one_price_begins_at_a_time",
                violation_error_message="There is a price that begins at this moment already.",
            ),
            models.UniqueConstraint(
                fields=["model", "service_tier", "min_input_tokens"],
                condition=models.Q(valid_to__isnull=True),
                name="one_price_is_without_end",
                violation_error_message="There is a price without an end already.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model}{self.tier} from {self.valid_from:%Y-%m-%d %H:%M}"

    @property
    def tier(self) -> str:
        """What it holds for, for people: "" = everything."""
        size = f" from {self.min_input_tokens} tokens of input" if self.min_input_tokens else ""
        return f", {self.service_tier}{size}" if self.service_tier else f",{size}" if size else ""

    def clean(self) -> None:
        """Runs for admin, REST and shell alike. Raises ValidationError by field."""
        others = Price.objects.filter(
            models.Q(valid_to=None) | models.Q(valid_to__gt=self.valid_from),
            model=self.model,
            service_tier=self.service_tier,
            min_input_tokens=self.min_input_tokens,
        ).exclude(pk=self.pk)
        if self.valid_to is not None:
            others = others.filter(valid_from__lt=self.valid_to)
        if (other := others.first()) is not None:
            raise ValidationError({"valid_from": f"Another price is in force then: {other}."})

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValidationError for a change to anything but when it ends."""
        if not self._state.adding and list(kwargs.get("update_fields") or ()) != ["valid_to"]:
            raise ValidationError("A price is never edited: set another one, which ends this one.")
        super().save(*args, **kwargs)


class ExchangeRate(models.Model):
    """What one unit of `base` is worth in `quote` from a moment on, until the next rate of the two. Never edited."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    base = models.CharField("from", max_length=3, validators=[validate_currency], help_text="The currency of prices, e.g. CNY.")
    quote = models.CharField("to", max_length=3, validators=[validate_currency], help_text="The reporting currency, e.g. USD.")
    rate_e10 = models.BigIntegerField(editable=False, help_text="Ten-billionths: 1404000000 is 0.1404.")
    valid_from = models.DateTimeField(db_index=True, default=timezone.now, help_text="In force from this moment on.")
    source = models.CharField(max_length=200, blank=True, help_text="Where the figure comes from.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-valid_from"]
        constraints = [
            models.UniqueConstraint(
                fields=["base", "quote", "valid_from"],
                name="one_exchange_rate_at_a_time",
                violation_error_message="There is a rate of the two that begins at this moment already.",
            ),
            models.CheckConstraint(
                condition=models.Q(rate_e10__gt=0),
                name="exchange_rates_are_positive",
                violation_error_message="Write a rate above 0.",
            ),
        ]

    def __str__(self) -> str:
        return f"1 {self.base} = {self.rate} {self.quote} from {self.valid_from:%Y-%m-%d %H:%M}"

    @property
    def rate(self) -> str:
        return plain_rate(self.rate_e10)

    def clean(self) -> None:
        """Runs for admin, REST and shell alike. Raises ValidationError by field."""
        if self.base == self.quote:
            raise ValidationError({"quote": "A currency has no rate to itself."})
        latest = ExchangeRate.objects.filter(base=self.base, quote=self.quote).exclude(pk=self.pk).first()
        if self._state.adding and latest is not None and self.valid_from <= latest.valid_from:
            raise ValidationError(
                {"valid_from": f"The latest rate begins at {latest.valid_from.isoformat()}; a new one has to begin after that."}
            )

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValidationError for a row that is there already."""
        if not self._state.adding:
            raise ValidationError("An exchange rate is never edited: set another one, which begins later.")
        super().save(*args, **kwargs)
