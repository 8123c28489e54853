"""Teams and their members, what is open to them, the API keys of programs, and the personal tokens of people."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from access.budget_rules import refusals, spec_of
from access.roles import TEAM_ROLES, TeamRole
from core.config import ADJUSTMENT_BOUNDS_BP
from models_registry.models import LLMModel, PromptTemplate, Route
from providers.models import Provider


def _limit(help_text: str) -> models.PositiveIntegerField:
    return models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)], help_text=help_text)


class Team(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120, unique=True)
    is_active = models.BooleanField("active", default=True, help_text="Off: none of its keys is accepted.")
    requests_per_minute = _limit("All keys of the team together; empty = no limit.")
    tokens_per_minute = _limit("All keys of the team together; empty = no limit.")
    max_concurrency = _limit("Requests at once of all its keys, in each process; empty = no limit.")
    price_adjustment_bp = models.IntegerField(
        "discount or markup",
        default=0,
        validators=[MinValueValidator(ADJUSTMENT_BOUNDS_BP[0]), MaxValueValidator(ADJUSTMENT_BOUNDS_BP[1])],
        help_text="What the team owes beside our cost, in hundredths of a per cent: -1500 is 15% less, 500 is 5% more.",
    )
    scopes = models.JSONField(null=True, blank=True, help_text="The most that its keys may be used for; empty = everything.")
    max_key_days = models.PositiveIntegerField(
        "keys last at most (days)",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(3650)],
        help_text="From their creation on, whatever the key itself says; empty = no limit.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class TeamMember(models.Model):
    """What one person may do to the rows of one team. What each role may: `access.roles`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="members")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="team_roles")
    role = models.CharField(max_length=10, choices=[(role, label) for role, (label, _) in TEAM_ROLES.items()], default=TeamRole.MEMBER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["team__name", "user__username"]
        verbose_name = "member"
        constraints = [
            models.UniqueConstraint(
                fields=["team", "user"], name="one_role_per_member", violation_error_message="This person is a member of the team already."
            )
        ]

    def __str__(self) -> str:
        return f"{self.user.get_username()} in {self.team}"


class Grant(models.Model):
    """Opens one provider, model, route or prompt whose visibility is "granted" to one team or person: see `access.openness`."""

    HOLDERS = ("team", "user")
    OBJECTS = ("provider", "model", "route", "prompt")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.CASCADE, related_name="grants")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="grants")
    provider = models.ForeignKey(Provider, null=True, blank=True, on_delete=models.CASCADE, related_name="grants")
    model = models.ForeignKey(LLMModel, null=True, blank=True, on_delete=models.CASCADE, related_name="grants")
    route = models.ForeignKey(Route, null=True, blank=True, on_delete=models.CASCADE, related_name="grants")
    prompt = models.ForeignKey(PromptTemplate, null=True, blank=True, on_delete=models.CASCADE, related_name="grants")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            # A pair with an empty half is unlike any other, so each of these speaks of its own two columns alone.
            models.UniqueConstraint(
                fields=[holder, what], name=f"one_grant_{holder}_{what}", violation_error_message="This is granted already."
            )
            for holder in ("team", "user")
            for what in ("provider", "model", "route", "prompt")
        ]

    def __str__(self) -> str:
        return f"{self.opened} for {self.holder}"

    @property
    def holder(self) -> Any:
        return next((held for name in self.HOLDERS if (held := getattr(self, name)) is not None), "nobody")

    @property
    def opened(self) -> Any:
        return next((found for name in self.OBJECTS if (found := getattr(self, name)) is not None), "nothing")

    def clean(self) -> None:
        """Runs for admin, REST and shell alike. Raises ValidationError by field."""
        errors: dict[str, str] = {}
        for names in (self.HOLDERS, self.OBJECTS):
            given = [name for name in names if getattr(self, f"{name}_id") is not None]
            if len(given) != 1:
                problem = f"Choose one of {', '.join(names[:-1])} and {names[-1]}" + (f", not {' and '.join(given)}." if given else ".")
                errors[given[-1] if given else names[0]] = problem
        if errors:
            raise ValidationError(errors)


class ApiKey(models.Model):
    """A program's key to the data plane. Only a keyed digest is stored; the key itself is shown once, when made."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="keys")
    prefix = models.CharField(max_length=20, editable=False, help_text="The first characters, to recognise a key by.")
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    scopes = models.JSONField(default=list, blank=True, help_text="What the key may be used for.")
    allowed_models = models.JSONField(null=True, blank=True, help_text="Aliases the key may call; empty = all.")
    requests_per_minute = _limit("Empty = no limit.")
    tokens_per_minute = _limit("Empty = no limit.")
    max_concurrency = _limit("Empty = no limit.")
    source_networks = models.JSONField(
        null=True, blank=True, help_text='Networks it is accepted from, e.g. ["10.1.0.0/16", "2001:db8::/32"]; empty = anywhere.'
    )
    store_bodies = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Keeps what is asked and answered, word for word, for some days. Off: prompts are stored nowhere.",
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "API key"
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class Budget(models.Model):
    """What one team, key, user or provider may use in each period, in UTC. What it has used: `access.budgets.standing_of`.

    `user` is a name as requests carry it (OpenAI's `user`, Anthropic's `metadata.user_id`). Of money, `limit` is in micro-units.
    """

    class Kind(models.TextChoices):
        MONEY = "money", "Money"
        TOKENS = "tokens", "Tokens"
        REQUESTS = "requests", "Requests"

    class Period(models.TextChoices):
        DAY = "day", "Day"
        WEEK = "week", "Week, from Monday"
        MONTH = "month", "Month"
        TOTAL = "total", "All time"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.CASCADE, related_name="budgets")
    key = models.ForeignKey(ApiKey, null=True, blank=True, on_delete=models.CASCADE, related_name="budgets", verbose_name="API key")
    provider = models.ForeignKey(Provider, null=True, blank=True, on_delete=models.CASCADE, related_name="budgets")
    user = models.CharField(max_length=200, blank=True, help_text="As requests name it.")
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.MONEY)
    currency = models.CharField(max_length=3, blank=True, help_text="Of money: the reporting currency, or the one of the prices.")
    limit = models.BigIntegerField()
    period = models.CharField(max_length=10, choices=Period.choices, default=Period.MONTH, help_text="In UTC.")
    hard = models.BooleanField(default=True, help_text="Off: what goes beyond is reported, not refused.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return spec_of(self).name

    def clean(self) -> None:
        """Runs for admin, REST and shell alike. Raises ValidationError by field."""
        kept = Budget.objects.filter(pk=self.pk).first()
        if errors := refusals(self, kept):
            raise ValidationError(errors)


class PersonalToken(models.Model):
    """A person's key to the control plane's REST API; it can do what its user can do."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="personal_tokens")
    name = models.CharField(max_length=120)
    prefix = models.CharField(max_length=20, editable=False)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class LoginTries(models.Model):
    """Passwords that were tried in vain, by a digest of whom and whence: see `access.login`."""

    digest = models.BinaryField(primary_key=True, max_length=32)
    tries = models.PositiveIntegerField(default=0)
    last_at = models.DateTimeField(db_index=True)
    blocked_until = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.tries} tries until {self.last_at:%Y-%m-%d %H:%M}"
