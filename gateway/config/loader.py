"""Rows in, one frozen snapshot out.

An entry that cannot be read keeps its last good form and raises an alarm, so that one bad row never takes the others down.
What an admin switched off, revoked or deleted is simply not among the rows any more, and so always goes.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
from django.db import connection, transaction
from django.db.models import Prefetch, Q

from access.models import ApiKey
from core.clock import Clock, SystemClock
from core.config import CallerSpec, LimitSpec, ModelSpec, PriceSpec, ProviderSpec, Snapshot
from core.errors import ConfigurationError
from core.secrets import CannotOpen
from gateway.config.publisher import current_version
from models_registry.models import LLMModel, Price
from providers.models import Provider, ProviderKey
from providers.services import spec_of

log = logging.getLogger(__name__)
T = TypeVar("T")

# Ended prices stay this long, for requests that began before the end: longer than a provider's longest total timeout.
_ENDED_PRICES_KEPT = timedelta(days=2)
_DIGEST_BYTES = 32
# What a row can do to the code that reads it: wrong types in a JSON column, an unknown vendor type, a key that does not open.
_ROW_FAULTS = (CannotOpen, ConfigurationError, ValueError, TypeError, KeyError, AttributeError, msgspec.MsgspecError)


def load(previous: Snapshot | None, *, clock: Clock = SystemClock()) -> Snapshot:  # noqa: B008  (has no state)
    """Everything the data plane needs, as of one moment of the database, in a fixed number of queries.

    Raises DatabaseError, and ConfigurationError before `migrate` has run.
    """
    wall_s = clock.wall()
    last_good = previous or Snapshot(version=0, loaded_at=wall_s)
    alarms: list[str] = []
    with _one_moment():
        version = current_version()
        providers = _providers(last_good, alarms)
        models = _models(last_good, set(providers), datetime.fromtimestamp(wall_s, UTC), alarms)
        callers = _callers(last_good, alarms)
    for alarm in alarms:
        log.error("configuration: %s", alarm)
    return Snapshot(version=version, loaded_at=wall_s, callers=callers, models=models, providers=providers, alarms=tuple(alarms))


@contextmanager
def _one_moment() -> Iterator[None]:
    """All reads inside see one state of the database, and hold no writer up."""
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "sqlite":
        # Not `atomic()`: with transaction_mode IMMEDIATE that waits for, and takes, the lock of the one writer.
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")
    else:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield


def _build(build: Callable[[], T], name: str, last_good: T | None, alarms: list[str]) -> T | None:
    """The entry, else its last good form, else None; the latter two with an alarm."""
    try:
        return build()
    except _ROW_FAULTS as exc:
        reason = str(exc) if isinstance(exc, CannotOpen | ConfigurationError) else f"{type(exc).__name__}: {exc}"
        kept = "it is left out" if last_good is None else "its last good settings stay in force"
        alarms.append(f"{name} cannot be used as it is ({reason}); {kept}. Correct it in the admin.")
        return last_good


# Providers ----------------------------------------------------------------------------------------------------------


def _providers(last_good: Snapshot, alarms: list[str]) -> dict[str, ProviderSpec]:
    keys = Prefetch("keys", ProviderKey.objects.filter(is_active=True))
    specs: dict[str, ProviderSpec] = {}
    for provider in Provider.objects.filter(is_active=True).prefetch_related(keys):
        active = list(provider.keys.all())
        kept = _without_revoked(last_good.providers.get(str(provider.id)), active)
        spec = _build(partial(_provider_spec, provider, active), f"Provider {provider.name}", kept, alarms)
        if spec is not None:
            specs[spec.id] = spec
    return specs


def _provider_spec(provider: Provider, keys: list[ProviderKey]) -> ProviderSpec:
    spec = spec_of(provider, keys)
    if refusals := spec.rate.refusals():
        raise ConfigurationError(" ".join(f"rate {field}: {sentence}" for field, sentence in refusals.items()))
    return spec


def _limit_spec(requests_per_minute: int | None, tokens_per_minute: int | None, max_concurrency: int | None) -> LimitSpec:
    """Raises ValueError for what came into the database past the forms: a limit of nothing could never be met."""
    spec = LimitSpec(requests_per_minute, tokens_per_minute, max_concurrency)
    if wrong := [name for name in spec.__struct_fields__ if (value := getattr(spec, name)) is not None and value < 1]:
        raise ValueError(f"{', '.join(wrong)}: write 1 or more, or nothing for no limit")
    return spec


def _without_revoked(spec: ProviderSpec | None, active: list[ProviderKey]) -> ProviderSpec | None:
    """The last good form, less the keys that were removed since. None where no key is left of some: a vendor that was
    called with a key is not called without one."""
    if spec is None or not spec.keys:
        return spec
    allowed = {str(key.id) for key in active}
    keys = tuple(key for key in spec.keys if key.id in allowed)
    return msgspec.structs.replace(spec, keys=keys) if keys else None


# Models -------------------------------------------------------------------------------------------------------------


def _models(last_good: Snapshot, providers: set[str], now: datetime, alarms: list[str]) -> dict[str, tuple[ModelSpec, ...]]:
    before = {model.id: model for models in last_good.models.values() for model in models}
    prices = Prefetch("prices", Price.objects.filter(Q(valid_to=None) | Q(valid_to__gt=now - _ENDED_PRICES_KEPT)).order_by("-valid_from"))
    rows = LLMModel.objects.filter(is_active=True, provider__is_active=True).order_by("priority", "created_at", "id")
    by_alias: dict[str, list[ModelSpec]] = defaultdict(list)
    for row in rows.prefetch_related(prices):
        spec = _build(partial(_model_spec, row), f"Model {row.alias}", before.get(str(row.id)), alarms)
        if spec is not None and spec.provider_id in providers:
            by_alias[spec.alias].append(spec)
    return {alias: tuple(specs) for alias, specs in by_alias.items()}


def _model_spec(row: LLMModel) -> ModelSpec:
    return ModelSpec(
        id=str(row.id),
        alias=row.alias,
        model_id=row.model_id,
        provider_id=str(row.provider_id),
        model_type=row.model_type,
        priority=row.priority,
        context_window=row.context_window,
        max_output_tokens=row.max_output_tokens,
        capabilities=msgspec.convert(row.capabilities, tuple[str, ...]),
        prices=tuple(_price_spec(price) for price in row.prices.all()),
        created=int(row.created_at.timestamp()),
        drop_params=row.unsupported_params == LLMModel.OnUnsupported.DROP,
        truncate=row.over_long == LLMModel.OnOverLong.TRUNCATE,
        limits=_limit_spec(row.requests_per_minute, row.tokens_per_minute, row.max_concurrency),
    )


def _price_spec(row: Price) -> PriceSpec:
    return PriceSpec(
        id=str(row.id),
        currency=row.currency,
        valid_from=row.valid_from.timestamp(),
        valid_to=row.valid_to.timestamp() if row.valid_to else None,
        input=row.input_micros,
        cached_input=row.cached_input_micros,
        cache_write=row.cache_write_micros,
        output=row.output_micros,
        cache_write_1h=row.cache_write_1h_micros,
        reasoning=row.reasoning_micros,
        input_audio=row.input_audio_micros,
        input_image=row.input_image_micros,
        output_audio=row.output_audio_micros,
        output_image=row.output_image_micros,
    )


# Callers ------------------------------------------------------------------------------------------------------------


class _CallerRow(NamedTuple):
    """The columns of an API key that admission needs; there may be many thousands, so no model instances are made."""

    id: Any
    name: str
    prefix: str
    digest: Any
    team_id: Any
    team__name: str
    scopes: Any
    allowed_models: Any
    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrency: int | None
    team__requests_per_minute: int | None
    team__tokens_per_minute: int | None
    team__max_concurrency: int | None
    expires_at: datetime | None


def _callers(last_good: Snapshot, alarms: list[str]) -> dict[bytes, CallerSpec]:
    rows = ApiKey.objects.filter(revoked_at=None, team__is_active=True).order_by().values_list(*_CallerRow._fields)
    callers: dict[bytes, CallerSpec] = {}
    for row in map(_CallerRow._make, rows):
        digest = bytes(row.digest)
        spec = _build(partial(_caller_spec, row), f"API key {row.name} ({row.prefix}…)", last_good.callers.get(digest), alarms)
        if spec is not None:
            callers[digest] = spec
    return callers


def _caller_spec(row: _CallerRow) -> CallerSpec:
    if len(row.digest) != _DIGEST_BYTES:
        raise ValueError(f"its digest has {len(row.digest)} bytes instead of {_DIGEST_BYTES}; make a new key")
    return CallerSpec(
        key_id=str(row.id),
        key_name=row.name,
        prefix=row.prefix,
        team_id=str(row.team_id),
        team_name=row.team__name,
        scopes=msgspec.convert(row.scopes, frozenset[str]),
        models=msgspec.convert(row.allowed_models, frozenset[str] | None),
        limits=_limit_spec(row.requests_per_minute, row.tokens_per_minute, row.max_concurrency),
        team_limits=_limit_spec(row.team__requests_per_minute, row.team__tokens_per_minute, row.team__max_concurrency),
        expires_at=row.expires_at.timestamp() if row.expires_at else None,
    )
