"""Vendors and their credentials, as the admin configures them."""

from __future__ import annotations

import math
import uuid
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from core.config import RateSpec
from core.errors import ConfigurationError
from core.secrets import Secret, origin
from providers.adapters import registry
from providers.fields import EncryptedField
from providers.vault import key_ring

NAME_VALIDATOR = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$", "Use letters, digits, dot, dash and underscore; start with a letter or digit."
)


def validate_base_url(url: str) -> None:
    """Any host name goes, also one without a dot, as a server beside us in a container network has."""
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0
    except ValueError:
        raise ValidationError("This is not a valid address.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValidationError("Write an address with its scheme, e.g. https://api.openai.com/v1.")
    if not port_is_valid or not url.isascii() or not url.isprintable() or set(url) & set(" \\"):
        raise ValidationError("This is not a valid address.")
    if parts.username is not None or parts.password is not None:
        raise ValidationError("Do not put a user or password into the address; enter the key as an API key.")
    if parts.query or parts.fragment:
        raise ValidationError("Leave out everything from ? or # on.")


_RATE_COLUMNS = {"type": "rate_type", "capacity": "rate_capacity", "refill_rate": "rate_refill_per_s"}


class Provider(models.Model):
    """One vendor account or server. What each number bounds, and its default: docs/configuration.md."""

    class RateType(models.TextChoices):
        TOKEN_BUCKET = "token_bucket", "Token bucket"
        SLIDING_WINDOW = "sliding_window", "Sliding window"
        ADAPTIVE = "adaptive", "Adaptive"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=80, unique=True, validators=[NAME_VALIDATOR], help_text="A short name, e.g. openai-main.")
    provider_type = models.CharField(max_length=40, help_text="Which wire this vendor speaks.")
    base_url = models.CharField(
        "base URL",
        max_length=500,
        blank=True,
        validators=[validate_base_url],
        help_text="The address the API lives under, e.g. https://api.openai.com/v1. Empty: the vendor's own.",
    )
    options = models.JSONField(default=dict, blank=True, help_text="Further fields of this vendor type; never secrets.")
    is_active = models.BooleanField("active", default=True, help_text="Off: no request goes there, and its models are not offered.")

    rate_type = models.CharField(
        max_length=20,
        choices=RateType.choices,
        default=RateType.TOKEN_BUCKET,
        help_text="Sliding window: never more than the capacity in any (capacity / rate) seconds. Adaptive: learnt from the vendor.",
    )
    rate_capacity = models.FloatField(
        default=0,
        validators=[MinValueValidator(0), MaxValueValidator(1_000_000)],
        help_text="Calls allowed at once, or within the window; adaptive: most calls in flight. 0 = no limit.",
    )
    rate_refill_per_s = models.FloatField(
        default=0,
        validators=[MinValueValidator(0), MaxValueValidator(1_000_000)],
        help_text="Calls a second after that; adaptive: most calls a second.",
    )
    max_concurrency = models.PositiveIntegerField(
        default=100, validators=[MaxValueValidator(100_000)], help_text="Calls in flight at once, in each process; 0 = no limit."
    )
    breaker_fail_max = models.PositiveIntegerField(
        default=5, validators=[MinValueValidator(1), MaxValueValidator(1_000)], help_text="Failures in a row that open the breaker."
    )
    breaker_reset_timeout_s = models.FloatField(
        default=15, validators=[MinValueValidator(0.1), MaxValueValidator(86_400)], help_text="Seconds until one trial call."
    )
    breaker_max_reset_timeout_s = models.FloatField(
        default=60,
        validators=[MinValueValidator(0.1), MaxValueValidator(86_400)],
        help_text="Each failed trial doubles the wait for the next, up to so many seconds. Not above the first wait: it does not grow.",
    )
    breaker_failure_rate = models.FloatField(
        default=0,
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="Also opens where this share of recent calls failed, e.g. 0.5; 0 = only failures in a row count.",
    )
    breaker_window_s = models.FloatField(
        default=60, validators=[MinValueValidator(1), MaxValueValidator(3600)], help_text="How many seconds back the share looks."
    )
    breaker_min_calls = models.PositiveIntegerField(
        default=20,
        validators=[MinValueValidator(1), MaxValueValidator(100_000)],
        help_text="The share of fewer calls than that says nothing.",
    )
    breaker_keep_last = models.BooleanField(
        default=True,
        help_text="Where a request has no other target left, the wait between trials does not grow: the last one is not given up.",
    )
    breaker_reset_at = models.DateTimeField(null=True, blank=True, editable=False)
    connect_timeout_s = models.FloatField(default=3, validators=[MinValueValidator(0.05), MaxValueValidator(60)])
    first_byte_timeout_s = models.FloatField(default=30, validators=[MinValueValidator(0.05), MaxValueValidator(3600)])
    idle_timeout_s = models.FloatField(
        default=60, validators=[MinValueValidator(0.05), MaxValueValidator(3600)], help_text="Longest silence inside an answer."
    )
    total_timeout_s = models.FloatField(default=600, validators=[MinValueValidator(0.1), MaxValueValidator(86_400)])
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        permissions = [
            ("test_provider", "Can test the connection to a provider"),
            ("sync_provider", "Can sync the models of a provider"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def address(self) -> str:
        """Where calls go: `base_url`, or the vendor's own where that is empty; "" where neither is known."""
        try:
            return self.base_url or registry.default_base_url(self.provider_type)
        except ConfigurationError:
            return ""

    def clean(self) -> None:
        """What no single field can tell; runs for admin, REST and shell alike. Raises ValidationError by field."""
        errors = self._form_errors()
        for field in self._meta.concrete_fields:
            value = getattr(self, field.attname)
            if isinstance(value, float) and not math.isfinite(value):
                errors[field.name] = "Write a finite number."
        for name, sentence in RateSpec(self.rate_type, self.rate_capacity, self.rate_refill_per_s).refusals().items():
            errors.setdefault(_RATE_COLUMNS[name], sentence)
        if errors:
            raise ValidationError(errors)

    def _form_errors(self) -> dict[str, str]:
        """Whether `provider_type` is known, and `base_url` and `options` are what its form asks for."""
        try:
            form = [field for field in registry.form(self.provider_type) if not field.secret and field.name != "base_url"]
        except ConfigurationError as error:
            return {"provider_type": str(error)}
        if not isinstance(self.options, dict):
            return {"options": "Write an object of names and values."}
        errors = {} if self.address else {"base_url": "This vendor type needs an address."}
        if missing := [field.name for field in form if field.required and not self.options.get(field.name)]:
            errors["options"] = f"This vendor type needs {', '.join(missing)}."
        if unknown := sorted(set(self.options) - {field.name for field in form}):
            errors["options"] = f"This vendor type has no option {', '.join(unknown)}."
        if refused := registry.refusals(self.provider_type, self.options):
            errors["options"] = " ".join(f"{name}: {sentence}" for name, sentence in refused.items())
        return errors


class ProviderKey(models.Model):
    """One credential at a vendor. The secret goes in and never comes out again, except to the gateway."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="keys")
    name = models.CharField(max_length=80, blank=True)
    secret = EncryptedField()
    last4 = models.CharField("last four", max_length=4, editable=False)
    weight = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1), MaxValueValidator(100)])
    is_active = models.BooleanField("active", default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    rotated_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["created_at"]
        permissions = [("rotate_providerkey", "Can replace the secret of a provider key")]

    def __str__(self) -> str:
        return f"{self.provider.name} …{self.last4}"

    def bound_to(self) -> str:
        """What the sealed secret belongs to: this row, this field, and the address it may be sent to."""
        return f"{self._meta.db_table}:{self.id}:secret:{origin(self.provider.address)}"

    def seal(self, plaintext: str) -> None:
        """Sets the secret on this instance; the caller saves it."""
        self.secret = key_ring().seal(plaintext, self.bound_to())
        self.last4 = plaintext[-4:] if len(plaintext) >= 12 else ""

    @property
    def label(self) -> str:
        """What people know it by: its name and last four characters."""
        return f"{self.name} …{self.last4}".strip() if self.last4 else self.name or "a key too short to show a part of"

    def open(self) -> Secret:
        """Raises core.secrets.CannotOpen."""
        return key_ring().open(bytes(self.secret), self.bound_to())


class ProviderState(models.Model):
    """What one gateway process has learnt of one provider, where that is not all well: see `providers.states`.

    Without a constraint in the database: a process may write of a provider that is being deleted.
    """

    process = models.CharField(max_length=32)
    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, db_constraint=False, related_name="states")
    state = models.JSONField()
    updated_at = models.DateTimeField()

    class Meta:
        default_permissions = ()
        constraints = [models.UniqueConstraint(fields=["process", "provider"], name="provider_state_of_process")]

    def __str__(self) -> str:
        return f"provider {self.provider_id} in process {self.process}"
