"""Rows in, one frozen snapshot out.

An entry that cannot be read keeps its last good form and raises an alarm, so that one bad row never takes the others down.
What an admin switched off, revoked or deleted is simply not among the rows any more, and so always goes.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
from django.conf import settings
from django.db.models import Prefetch, Q

from access import bounds, openness
from access.budget_rules import spec_of as budget_spec_of
from access.models import ApiKey, Budget
from core.addresses import read_networks
from core.clock import Clock, SystemClock
from core.config import (
    ADJUSTMENT_BOUNDS_BP,
    BudgetSpec,
    CallerSpec,
    ExchangeRateSpec,
    LimitSpec,
    ModelSpec,
    PriceSpec,
    ProviderSpec,
    RouteSpec,
    Snapshot,
    most_specific_first,
)
from core.errors import ConfigurationError
from core.money import MAX_RATE, RATE_SCALE
from core.prompts import PromptSpec
from core.secrets import CannotOpen, KekAway
from gateway.config.publisher import current_version
from models_registry import abilities, chains
from models_registry.models import ExchangeRate, LLMModel, Price, PromptTemplate, Route
from monitoring.moment import one_moment
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
    alarms = _Alarms()
    now = datetime.fromtimestamp(wall_s, UTC)
    with one_moment():
        version = current_version()
        providers = _providers(last_good, alarms)
        models = _models(last_good, set(providers), now, alarms)
        routes = _routes(last_good, alarms)
        prompts = _prompts(last_good, alarms)
        callers = _callers(last_good, _Reach(openness.read(), models, routes), alarms)
        budgets = _budgets(last_good, alarms)
        rates = _exchange_rates(settings.REPORTING_CURRENCY, now)
    for alarm in alarms:
        if not (alarms.may_pass and alarm in last_good.alarms):  # what is tried again and again is said once
            log.error("configuration: %s", alarm)
    return Snapshot(
        version,
        wall_s,
        callers,
        models,
        providers,
        alarms=tuple(alarms),
        routes=routes,
        budgets=budgets,
        currency=settings.REPORTING_CURRENCY,
        exchange_rates=rates,
        is_partial=alarms.may_pass,
        prompts=prompts,
    )


class _Alarms(list[str]):
    """`may_pass`: one of them is of a service that is away, and goes by itself."""

    may_pass = False


def _build(build: Callable[[], T], name: str, last_good: T | None, alarms: _Alarms) -> T | None:
    """The entry, else its last good form, else None; the latter two with an alarm."""
    try:
        return build()
    except _ROW_FAULTS as exc:
        reason = str(exc) if isinstance(exc, CannotOpen | ConfigurationError) else f"{type(exc).__name__}: {exc}"
        kept = "it is left out" if last_good is None else "its last good settings stay in force"
        away = isinstance(exc, KekAway)
        alarms.may_pass |= away
        hope = "It is tried again every few seconds" if away else "Correct it in the admin"
        alarms.append(f"{name} cannot be used as it is ({reason}); {kept}. {hope}.")
        return last_good


# Providers ----------------------------------------------------------------------------------------------------------


def _providers(last_good: Snapshot, alarms: _Alarms) -> dict[str, ProviderSpec]:
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
    if refusals := spec.refusals():
        raise ConfigurationError(" ".join(f"{field}: {sentence}" for field, sentence in refusals.items()))
    return spec


def _limit_spec(requests_per_minute: int | None, tokens_per_minute: int | None, max_concurrency: int | None) -> LimitSpec:
    """Raises ValueError for what came into the database past the forms."""
    spec = LimitSpec(requests_per_minute, tokens_per_minute, max_concurrency)
    if refusals := spec.refusals():
        raise ValueError(" ".join(f"{field}: {sentence}" for field, sentence in refusals.items()))
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


def _models(last_good: Snapshot, providers: set[str], now: datetime, alarms: _Alarms) -> dict[str, tuple[ModelSpec, ...]]:
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
        prices=most_specific_first(_price_spec(price) for price in row.prices.all()),
        created=int(row.created_at.timestamp()),
        drop_params=row.unsupported_params == LLMModel.OnUnsupported.DROP,
        truncate=row.over_long == LLMModel.OnOverLong.TRUNCATE,
        quality=row.quality,
        lacks=abilities.lacking(row.capabilities, row.tested),
        limits=_limit_spec(row.requests_per_minute, row.tokens_per_minute, row.max_concurrency),
        cache_ttl_s=min(row.cache_ttl_s or 0, settings.CACHE_MAX_TTL_S),
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
        service_tier=row.service_tier,
        min_input_tokens=row.min_input_tokens,
    )


def _exchange_rates(currency: str, now: datetime) -> dict[str, tuple[ExchangeRateSpec, ...]]:
    """Currency → its rates to `currency`, the latest first: those to come, those of late, and of the older the last.

    One from `currency` to another says the same the other way round, and ends what was said of the two before, whichever way; of two
    that begin at one moment the one to `currency` holds.
    """
    rates: dict[str, list[ExchangeRateSpec]] = defaultdict(list)
    reaches_back: set[str] = set()
    of_it = ExchangeRate.objects.filter(Q(quote=currency) | Q(base=currency, rate_e10__gte=RATE_SCALE // int(MAX_RATE)))
    for row in sorted(of_it.iterator(), key=lambda row: (row.valid_from, row.quote == currency), reverse=True):
        inverse = row.base == currency
        other = row.quote if inverse else row.base
        if other not in reaches_back:
            text = f"1/{row.rate}" if inverse else row.rate
            rates[other].append(ExchangeRateSpec(row.valid_from.timestamp(), row.rate_e10, text, inverse))
        if row.valid_from <= now - _ENDED_PRICES_KEPT:
            reaches_back.add(other)
    return {base: tuple(found) for base, found in rates.items()}


# Routes -------------------------------------------------------------------------------------------------------------


def _routes(last_good: Snapshot, alarms: _Alarms) -> dict[str, RouteSpec]:
    """An alias that no model has (any more) is passed over by whoever follows the chain; `manage.py check` names it."""
    found: dict[str, RouteSpec] = {}
    for row in Route.objects.filter(is_active=True).order_by():
        spec = _build(partial(_route_spec, row), f"Route {row.alias}", last_good.routes.get(row.alias), alarms)
        if spec is not None:
            found[spec.alias] = spec
    return found


def _route_spec(row: Route) -> RouteSpec:
    """What was set when LLM_CACHE_MAX_TTL_S was longer is held within it."""
    spec = row.spec()
    return spec if spec.cache_ttl_s is None else msgspec.structs.replace(spec, cache_ttl_s=min(spec.cache_ttl_s, settings.CACHE_MAX_TTL_S))


# Prompts ------------------------------------------------------------------------------------------------------------


def _prompts(last_good: Snapshot, alarms: _Alarms) -> dict[str, PromptSpec]:
    """By name and by id: no name looks like an id."""
    found: dict[str, PromptSpec] = {}
    for row in PromptTemplate.objects.filter(is_active=True).order_by().prefetch_related("versions"):
        spec = _build(row.spec, f"Prompt {row.name}", last_good.prompts.get(str(row.pk)), alarms)
        if spec is not None:
            found[spec.name] = found[spec.id] = spec
    return found


# Budgets ------------------------------------------------------------------------------------------------------------


def _budgets(last_good: Snapshot, alarms: _Alarms) -> tuple[BudgetSpec, ...]:
    before = {budget.id: budget for budget in last_good.budgets}
    rows = Budget.objects.select_related("team", "key", "provider").order_by("created_at", "id")
    specs = (_build(partial(budget_spec_of, row), f"Budget {row.id}", before.get(str(row.id)), alarms) for row in rows)
    return tuple(spec for spec in specs if spec is not None)


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
    team__price_adjustment_bp: int
    team__scopes: Any
    team__max_key_days: int | None
    source_networks: Any
    store_bodies: bool
    created_at: datetime
    expires_at: datetime | None


class _Reach:
    """What a team gets at: the names that are hidden from it, and the models that are barred to it. Worked out once for each team."""

    def __init__(self, closed: openness.Openness, models: Mapping[str, Sequence[ModelSpec]], routes: Mapping[str, RouteSpec]) -> None:
        self._closed = closed
        self._models = models
        self._routes = routes
        self._of_team: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        self._prompts_of_team: dict[str, frozenset[str]] = {}

    def of(self, team_id: str) -> tuple[frozenset[str], frozenset[str]]:
        """(hidden names, barred model ids)"""
        if not self._closed.models and not self._closed.routes:
            return frozenset(), frozenset()
        if team_id not in self._of_team:
            self._of_team[team_id] = self._work_out([("team", team_id)])
        return self._of_team[team_id]

    def hidden_prompts(self, team_id: str) -> frozenset[str]:
        if self._closed.prompts and team_id not in self._prompts_of_team:
            self._prompts_of_team[team_id] = self._closed.barred_prompts([("team", team_id)])
        return self._prompts_of_team.get(team_id, frozenset())

    def _work_out(self, holders: list[tuple[str, str]]) -> tuple[frozenset[str], frozenset[str]]:
        barred = self._closed.barred_models(holders)
        shut = {alias for alias, models in self._models.items() if all(model.id in barred for model in models)}
        hidden = {alias for alias in shut if alias not in self._routes}
        for alias, route in self._routes.items():
            behind = {name for name in chains.aliases_of(route) if name in self._models}
            if behind and behind <= shut and not route.fixed_answer:
                hidden.add(alias)
        shut_routes = {self._closed.routes[pk] for pk in self._closed.barred_routes(holders)}
        hidden.update(shut_routes & self._routes.keys())  # one that is off stands for nothing; its name may be a model's
        return frozenset(hidden), barred


def _callers(last_good: Snapshot, reach: _Reach, alarms: _Alarms) -> dict[bytes, CallerSpec]:
    rows = ApiKey.objects.filter(revoked_at=None, team__is_active=True).order_by().values_list(*_CallerRow._fields)
    callers: dict[bytes, CallerSpec] = {}
    for row in map(_CallerRow._make, rows):
        digest = bytes(row.digest)
        spec = _build(partial(_caller_spec, row, reach), f"API key {row.name} ({row.prefix}…)", last_good.callers.get(digest), alarms)
        if spec is not None and spec is last_good.callers.get(digest):
            hidden, barred = reach.of(spec.team_id)  # what was closed to the team since is closed to its damaged keys, too
            spec = msgspec.structs.replace(spec, hidden=hidden, barred=barred, hidden_prompts=reach.hidden_prompts(spec.team_id))
        if spec is not None:
            callers[digest] = spec
    return callers


def _caller_spec(row: _CallerRow, reach: _Reach) -> CallerSpec:
    """What the key says, held within what its team may now, whatever that was when the key was made."""
    if len(row.digest) != _DIGEST_BYTES:
        raise ValueError(f"its digest has {len(row.digest)} bytes instead of {_DIGEST_BYTES}; make a new key")
    least, most = ADJUSTMENT_BOUNDS_BP
    if not least <= row.team__price_adjustment_bp <= most:
        raise ValueError(f"its team's discount or markup of {row.team__price_adjustment_bp} hundredths of a per cent is out of bounds")
    hidden, barred = reach.of(str(row.team_id))
    scopes = msgspec.convert(row.scopes, frozenset[str])
    end = bounds.end_of(row.expires_at, row.created_at, row.team__max_key_days)
    return CallerSpec(
        key_id=str(row.id),
        key_name=row.name,
        prefix=row.prefix,
        team_id=str(row.team_id),
        team_name=row.team__name,
        scopes=bounds.scopes_within(scopes, msgspec.convert(row.team__scopes, frozenset[str] | None)),
        models=msgspec.convert(row.allowed_models, frozenset[str] | None),
        limits=_limit_spec(row.requests_per_minute, row.tokens_per_minute, row.max_concurrency),
        team_limits=_limit_spec(row.team__requests_per_minute, row.team__tokens_per_minute, row.team__max_concurrency),
        expires_at=None if end is None else end.timestamp(),
        price_adjustment_bp=row.team__price_adjustment_bp,
        hidden=hidden,
        barred=barred,
        networks=read_networks(msgspec.convert(row.source_networks, list[str])) if row.source_networks is not None else (),
        store_bodies=row.store_bodies,
        hidden_prompts=reach.hidden_prompts(str(row.team_id)),
    )
