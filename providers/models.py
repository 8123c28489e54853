"""Vendors and their credentials, as the admin configures them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from cryptography.x509 import load_pem_x509_certificates
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from core.config import ADJUSTMENT_BOUNDS_BP, MAX_PROBE_BUDGET_MICROS, BreakerSpec, LimitSpec, RateSpec, TimeoutSpec
from core.connector import tls_trusting
from core.errors import ConfigurationError
from core.secrets import Secret, origin
from providers.adapters import registry
from providers.fields import EncryptedField
from providers.vault import key_ring

NAME_VALIDATOR = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$", "Use letters, digits, dot, dash and underscore; start with a letter or digit."
)


MAX_CA_CHARACTERS = 2**16


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
    if set(url) & set("?#"):
        raise ValidationError("Leave out everything from ? or # on.")


def validate_ca(pem: str) -> None:
    """Certificates and nothing else: what is entered here is shown again, so it is no place for a key."""
    if "PRIVATE KEY" in pem:
        raise ValidationError("This holds a private key, which belongs elsewhere; enter the certificates of the authorities alone.")
    try:
        found = load_pem_x509_certificates(pem.encode())
        tls_trusting(pem)
    except (ValueError, OSError):
        found = []
    if not found:
        raise ValidationError("This holds no certificate that can be read; enter PEM text, from -----BEGIN CERTIFICATE----- on.")


# Fields of the specs in core.config, which judge them → columns.
_RATE_COLUMNS = {"type": "rate_type", "capacity": "rate_capacity", "refill_rate": "rate_refill_per_s"}
_BREAKER_COLUMNS = {
    "fail_max": "breaker_fail_max",
    "reset_timeout_s": "breaker_reset_timeout_s",
    "max_reset_timeout_s": "breaker_max_reset_timeout_s",
    "failure_rate": "breaker_failure_rate",
    "window_s": "breaker_window_s",
    "min_calls": "breaker_min_calls",
    "keep_last": "breaker_keep_last",
}
_TIMEOUT_COLUMNS = {
    "connect_s": "connect_timeout_s",
    "first_byte_s": "first_byte_timeout_s",
    "idle_s": "idle_timeout_s",
    "total_s": "total_timeout_s",
}
_LIMIT_COLUMNS = {"tokens_per_minute": "tokens_per_minute"}


class Visibility(models.TextChoices):
    """Of providers, models and routes. Grants are rows of `access`; without one, what is granted is open to nobody."""

    EVERYONE = "everyone", "Every team"
    GRANTED = "granted", "Those with a grant"


def visibility_field() -> models.CharField[str, str]:
    return models.CharField(
        "open to",
        max_length=10,
        choices=Visibility.choices,
        default=Visibility.EVERYONE,
        help_text="Whose keys may use it, and who sees it. Taking the last grant away opens nothing.",
    )


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
    visibility = visibility_field()

    rate_type = models.CharField(
        max_length=20,
        choices=RateType.choices,
        default=RateType.TOKEN_BUCKET,
        help_text="Sliding window: never more than the capacity in any (capacity / rate) seconds. Adaptive: learnt from the vendor.",
    )
    rate_capacity = models.FloatField(
        default=0, help_text="Calls allowed at once, or within the window; adaptive: most calls in flight. 0, with a rate of 0 = no limit."
    )
    rate_refill_per_s = models.FloatField(default=0, help_text="Calls a second after that; adaptive: most calls a second.")
    tokens_per_minute = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="All models and keys of this provider together; beyond it the next target is asked. Empty = no limit.",
    )
    max_concurrency = models.PositiveIntegerField(
        default=100, validators=[MaxValueValidator(100_000)], help_text="Calls in flight at once, in each process; 0 = no limit."
    )
    breaker_fail_max = models.PositiveIntegerField(default=5, help_text="Failures in a row that open the breaker.")
    breaker_reset_timeout_s = models.FloatField(default=15, help_text="Seconds until one trial call.")
    breaker_max_reset_timeout_s = models.FloatField(
        default=60,
        help_text="Each failed trial doubles the wait for the next, up to so many seconds. The same as the first wait: it does not grow.",
    )
    breaker_failure_rate = models.FloatField(
        default=0, help_text="Also opens where this share of recent calls failed, e.g. 0.5; 0 = only failures in a row count."
    )
    breaker_window_s = models.FloatField(default=60, help_text="How many seconds back the share looks.")
    breaker_min_calls = models.PositiveIntegerField(default=20, help_text="The share of fewer calls than that says nothing.")
    breaker_keep_last = models.BooleanField(
        default=True,
        help_text="Where a request has no other target left, the wait between trials does not grow: the last one is not given up.",
    )
    breaker_reset_at = models.DateTimeField(null=True, blank=True, editable=False)
    price_adjustment_bp = models.IntegerField(
        "discount or markup",
        default=0,
        validators=[MinValueValidator(ADJUSTMENT_BOUNDS_BP[0]), MaxValueValidator(ADJUSTMENT_BOUNDS_BP[1])],
        help_text="What we pay beside its prices, in hundredths of a per cent: -1500 is 15% less, 500 is 5% more.",
    )
    probe_budget_micros = models.BigIntegerField(
        "budget for probes",
        default=0,
        db_default=0,
        validators=[MinValueValidator(0), MaxValueValidator(MAX_PROBE_BUDGET_MICROS)],
        help_text="Models that nobody calls are asked for a word now and then, which costs a little: at most so much a day, in millionths "
        "of the reporting currency. 0 = they are not asked.",
    )
    ca_certificates = models.TextField(
        "CA certificates",
        blank=True,
        max_length=MAX_CA_CHARACTERS,
        validators=[validate_ca],
        help_text="PEM of the authorities that may vouch for this server, and no others. Empty: those that the system trusts.",
    )
    connect_timeout_s = models.FloatField(default=3)
    first_byte_timeout_s = models.FloatField(default=30)
    idle_timeout_s = models.FloatField(default=60, help_text="Longest silence inside an answer.")
    total_timeout_s = models.FloatField(default=600)
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

    @property
    def rate(self) -> RateSpec:
        return RateSpec(**self._columns(_RATE_COLUMNS))

    @property
    def breaker(self) -> BreakerSpec:
        reset_at = self.breaker_reset_at.timestamp() if self.breaker_reset_at else 0.0
        return BreakerSpec(**self._columns(_BREAKER_COLUMNS), reset_at=reset_at)

    @property
    def timeouts(self) -> TimeoutSpec:
        return TimeoutSpec(**self._columns(_TIMEOUT_COLUMNS))

    @property
    def limits(self) -> LimitSpec:
        return LimitSpec(**self._columns(_LIMIT_COLUMNS))

    def _columns(self, columns: Mapping[str, str]) -> dict[str, Any]:
        return {name: getattr(self, column) for name, column in columns.items()}

    def clean(self) -> None:
        """What no single field can tell; runs for admin, REST and shell alike. Raises ValidationError by field."""
        errors = self._form_errors()
        if self.name == registry.FIXED_ANSWER:
            errors["name"] = "The books call the fixed answers of routes so: choose another name."
        for spec, columns in (
            (self.rate, _RATE_COLUMNS),
            (self.breaker, _BREAKER_COLUMNS),
            (self.timeouts, _TIMEOUT_COLUMNS),
            (self.limits, _LIMIT_COLUMNS),
        ):
            errors |= {columns[name]: sentence for name, sentence in spec.refusals().items()}
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
