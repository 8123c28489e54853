"""What can be done with a provider: the same verbs for admin, REST, commands and the shell.

Every write validates the whole row and runs in one transaction. ValidationError carries the field's name and never a secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from core.config import KeySpec, ModelSpec, ProviderSpec
from core.errors import ConfigurationError
from core.secrets import CannotOpen, origin
from providers import connection
from providers.adapters import registry
from providers.models import Provider, ProviderKey
from providers.report import ConnectionReport

WRITABLE = (
    "name",
    "provider_type",
    "base_url",
    "options",
    "is_active",
    "visibility",
    "rate_type",
    "rate_capacity",
    "rate_refill_per_s",
    "tokens_per_minute",
    "max_concurrency",
    "price_adjustment_bp",
    "probe_budget_micros",
    "ca_certificates",
    "breaker_fail_max",
    "breaker_reset_timeout_s",
    "breaker_max_reset_timeout_s",
    "breaker_failure_rate",
    "breaker_window_s",
    "breaker_min_calls",
    "breaker_keep_last",
    "connect_timeout_s",
    "first_byte_timeout_s",
    "idle_timeout_s",
    "total_timeout_s",
)
MAX_SECRET_CHARACTERS = 500
MAX_KEYS = 100
TESTABLE = ("chat", "embedding")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def spec_of(provider: Provider, keys: Iterable[ProviderKey]) -> ProviderSpec:
    """The frozen form of a row, with its active keys opened.

    Raises core.secrets.CannotOpen, and ConfigurationError where the row cannot work at all.
    """
    registry.form(provider.provider_type)  # an unknown type ends here
    return ProviderSpec(
        id=str(provider.id),
        name=provider.name,
        kind=provider.provider_type,
        base_url=provider.address,
        keys=tuple(KeySpec(str(key.id), key.last4, key.open(), key.weight) for key in keys if key.is_active),
        options=dict(provider.options),
        timeouts=provider.timeouts,
        rate=provider.rate,
        breaker=provider.breaker,
        max_concurrency=provider.max_concurrency,
        limits=provider.limits,
        price_adjustment_bp=provider.price_adjustment_bp,
        ca_certificates=provider.ca_certificates,
        probe_budget_micros=provider.probe_budget_micros,
    )


def create_provider(
    *,
    name: str,
    provider_type: str,
    base_url: str = "",
    options: Mapping[str, Any] | None = None,
    secrets: Sequence[str] = (),
    **columns: Any,
) -> Provider:
    """`secrets` are the vendor's keys in plaintext, one ProviderKey each. Raises ValidationError."""
    _refuse_unknown(columns)
    _check_secrets(secrets)
    provider = Provider(name=name, provider_type=provider_type, base_url=base_url, options={} if options is None else options, **columns)
    with transaction.atomic():
        provider.full_clean()
        provider.save(force_insert=True)
        _seal_all(provider, secrets)
    return provider


def update_provider(provider: Provider, changes: Mapping[str, Any], secrets: Sequence[str] | None = None) -> Provider:
    """Sets `changes` by column name; `secrets` replaces every stored key, () does away with them.

    A key is sealed for the address it was entered for. Where the address moves to another host, the stored keys are of no
    use any more: `secrets` must say what becomes of them, so that a changed address cannot carry off an old key and none
    is lost in silence. Raises ValidationError.
    """
    _refuse_unknown(changes)
    _check_secrets(secrets or ())
    with transaction.atomic():
        # The row, not the instance, knows the old address: a form has changed the instance already.
        stored = Provider.objects.select_for_update().get(pk=provider.pk)
        for column, value in changes.items():
            setattr(provider, column, value)
        provider.full_clean()
        if origin(stored.address) != origin(provider.address) and not secrets and stored.keys.exists():
            _refuse_orphans(provider, dropped=secrets is not None)
        if changes:
            provider.save(update_fields=[*changes, "updated_at"])
        if secrets is not None:
            for key in stored.keys.all():
                key.delete()
        _seal_all(provider, secrets or ())
    return provider


def moves(provider: Provider, changes: Mapping[str, Any]) -> bool:
    """Whether `changes` take the stored row `provider` to another host, where its keys do not open."""
    names = ("base_url", "provider_type")
    there = Provider(**{name: changes.get(name, getattr(provider, name)) for name in names})
    return origin(provider.address) != origin(there.address)


def names_of_keys(ids: Collection[str], **signal: Any) -> dict[str, str]:
    """What people know these keys by. Receiver of `provider_key_names_wanted`."""
    rows = ProviderKey.objects.filter(pk__in=[key for key in ids if _ID.fullmatch(key)])
    return {str(row.pk): row.label for row in rows.defer("secret")}


def disable_provider(provider: Provider) -> None:
    """No request goes there from now on."""
    _set_active(provider, False)


def enable_provider(provider: Provider) -> None:
    _set_active(provider, True)


def reset_breaker(provider: Provider) -> None:
    """In every process, within two seconds: all breakers of this provider close, and its keys rest no longer."""
    provider.breaker_reset_at = timezone.now()
    provider.save(update_fields=["breaker_reset_at", "updated_at"])


def change_key(key: ProviderKey, changes: Mapping[str, Any]) -> ProviderKey:
    """Sets `name`, `weight` (its share of the calls) and `is_active`; the secret is rotated instead. Raises ValidationError."""
    for column, value in changes.items():
        setattr(key, column, value)
    key.full_clean()
    key.save(update_fields=list(changes))
    return key


def add_key(provider: Provider, plaintext: str, name: str = "") -> ProviderKey:
    """Raises ValidationError on `api_key` or `name`."""
    _check_secrets([plaintext])
    with transaction.atomic():
        Provider.objects.select_for_update().get(pk=provider.pk)
        if provider.keys.count() >= MAX_KEYS:
            raise ValidationError({"api_key": f"A provider has at most {MAX_KEYS} keys."})
        return _seal(provider, plaintext, name)


def rotate_key(key: ProviderKey, plaintext: str) -> ProviderKey:
    """The same row with another secret: name, weight and history stay. Raises ValidationError on `api_key`."""
    _check_secrets([plaintext])
    with transaction.atomic():
        # The address may have moved since `key` was read; the lock also makes two rotations take turns.
        key.provider = Provider.objects.select_for_update().get(pk=key.provider_id)
        _put(key, plaintext)
        key.rotated_at = timezone.now()
        key.save(update_fields=["secret", "last4", "rotated_at"])
    return key


def delete_key(key: ProviderKey) -> None:
    """The last one may go too: the provider then shows that it has none."""
    key.delete()


def test_connection(provider: Provider, model: str = "") -> ConnectionReport:  # noqa: PT028  (no test, in spite of its name)
    """A real, short conversation with the vendor; see `providers.connection.try_out`. Raises nothing the vendor can cause.

    `model`: whom to ask, by alias or by the vendor's id, which need not be a row yet; "" = the first in order of priority.
    What was found is written down at the model. Raises ValidationError on `model` where it is no model for text.
    """
    models = _to_be_tried(provider, model)
    report = ConnectionReport()
    try:
        spec = spec_of(provider, provider.keys.all())
    except (CannotOpen, ConfigurationError) as error:
        report.add("key", "fail", str(error))
        return report
    if not spec.keys and needs_key(provider.provider_type):
        report.add("key", "fail", "This vendor needs a key, and none that is switched on is stored.")
        return report
    report = connection.try_out(spec, models)
    _write_down(provider, report)
    return report


def list_vendor_models(provider: Provider) -> list[str]:
    """What the vendor says it has, sorted. Raises core.errors.GatewayError, CannotOpen, ValidationError."""
    try:
        return connection.list_models(spec_of(provider, provider.keys.all()))
    except ConfigurationError as error:
        raise ValidationError({"provider_type": str(error)}) from error


def needs_key(provider_type: str) -> bool:
    """Whether this vendor type cannot be called without a credential. Raises ConfigurationError for an unknown one."""
    return any(field.secret and field.required for field in registry.form(provider_type))


def _to_be_tried(provider: Provider, model: str) -> list[ModelSpec]:
    """Candidates, best first: chat models before embedding models. A `model` that is no row is one candidate all the same."""
    # By the name of the reverse relation: models_registry builds on this package and is not imported here.
    rows = provider.models.order_by("priority", "alias")
    if model:
        named = rows.filter(alias=model).first() or rows.filter(model_id=model).first()
        if named is not None and named.model_type not in TESTABLE:
            raise ValidationError({"model": f"Only chat and embedding models can be tested; this one is of type {named.model_type}."})
        return [_model_spec(named)] if named else [ModelSpec("", model, model, str(provider.id))]
    for model_type in TESTABLE:
        if found := list(rows.filter(is_active=True, model_type=model_type)):
            return [_model_spec(row) for row in found]
    return []


def _model_spec(row: Any) -> ModelSpec:
    """As far as a connection test needs it. What the vendor cannot take is refused and reported there, never dropped."""
    return ModelSpec(
        id=str(row.id),
        alias=row.alias,
        model_id=row.model_id,
        provider_id=str(row.provider_id),
        model_type=row.model_type,
        max_output_tokens=row.max_output_tokens,
    )


def _write_down(provider: Provider, report: ConnectionReport) -> None:
    """At every row of the model that was tried: its aliases are one model at the vendor."""
    with transaction.atomic():
        for row in provider.models.select_for_update().filter(model_id=report.model):
            row.tested, row.tested_at = report.tested(), timezone.now()
            if isinstance(row.capabilities, list):
                row.capabilities = report.capabilities(row.capabilities)
            row.save(update_fields=["tested", "tested_at", "capabilities", "updated_at"])


def _refuse_orphans(provider: Provider, *, dropped: bool) -> None:
    """The address moves to another host and the keys cannot. Raises ValidationError unless it was said that they may go."""
    if needs_key(provider.provider_type):
        raise ValidationError({"base_url": "The stored keys belong to the old address: enter the key again with the new one."})
    if not dropped:
        raise ValidationError(
            {"base_url": "The stored keys belong to the old address: enter a key for the new one, or say that the keys are to be dropped."}
        )


def _set_active(provider: Provider, active: bool) -> None:
    provider.is_active = active
    provider.save(update_fields=["is_active", "updated_at"])


def _seal_all(provider: Provider, secrets: Sequence[str]) -> None:
    for plaintext in secrets:
        _seal(provider, plaintext)


def _seal(provider: Provider, plaintext: str, name: str = "") -> ProviderKey:
    key = ProviderKey(provider=provider, name=name)
    _put(key, plaintext)
    key.full_clean()
    key.save(force_insert=True)
    return key


def _put(key: ProviderKey, plaintext: str) -> None:
    try:
        key.seal(plaintext)
    except CannotOpen as error:
        raise ValidationError({"api_key": f"The key cannot be stored now: {error}. Nothing was changed."}) from error


def _check_secrets(secrets: Sequence[str]) -> None:
    """A key travels in an HTTP header: printable ASCII without spaces. The messages never repeat it."""
    if len(secrets) > MAX_KEYS:
        raise ValidationError({"api_key": f"A provider has at most {MAX_KEYS} keys."})
    for secret in secrets:
        if not isinstance(secret, str) or not secret:
            raise ValidationError({"api_key": "The key is empty."})
        if len(secret) > MAX_SECRET_CHARACTERS:
            raise ValidationError({"api_key": f"The key is longer than {MAX_SECRET_CHARACTERS} characters."})
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ValidationError({"api_key": "The key has a space, a line break or a character that is not ASCII in it."})
    if len(set(secrets)) != len(secrets):
        raise ValidationError({"api_key": "The same key is given twice."})


def _refuse_unknown(columns: Mapping[str, Any]) -> None:
    if unknown := sorted(set(columns) - set(WRITABLE)):
        raise ValidationError(dict.fromkeys(unknown, "This field is not known or cannot be set."))
