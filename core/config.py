"""Configuration as the data plane sees it: frozen, complete, and taken once per request.

The control plane's rows become these specs in `gateway.config.loader`; nothing here knows a database.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from core.addresses import Network
from core.prompts import PromptSpec
from core.secrets import Secret

DEFAULT_CURRENCY = "USD"
# On a price, in hundredths of a per cent: from for nothing to eleven times as much.
ADJUSTMENT_BOUNDS_BP = (-10_000, 100_000)
# A thousand of the reporting currency a day.
MAX_PROBE_BUDGET_MICROS = 1_000_000_000
RATE_TYPES = ("token_bucket", "sliding_window", "adaptive")
_DAY_S = 86_400
_MAX_RATE = 1_000_000


def _outside(spec: msgspec.Struct, bounds: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """Field → what to write instead, for those that are no number from the one bound to the other. Rows may hold anything."""
    return {
        name: f"Write a number from {least:,} to {most:,}."
        for name, (least, most) in bounds.items()
        if not (isinstance(value := getattr(spec, name), float | int) and least <= value <= most)
    }


class TimeoutSpec(msgspec.Struct, frozen=True):
    """Bounds on one vendor call, in seconds."""

    connect_s: float = 3.0
    first_byte_s: float = 30.0
    idle_s: float = 60.0
    total_s: float = 600.0

    def refusals(self) -> dict[str, str]:
        """Field → why it cannot work; {} = all can."""
        return _outside(self, {"connect_s": (0.05, 60), "first_byte_s": (0.05, 3600), "idle_s": (0.05, 3600), "total_s": (0.1, _DAY_S)})


class RateSpec(msgspec.Struct, frozen=True):
    """How often calls may start at a provider. capacity 0 = unlimited; what else the two numbers mean, `type` says:

    token_bucket: `capacity` calls at once, `refill_rate` calls a second after that.
    sliding_window: at most `capacity` calls, a whole number, in any `capacity / refill_rate` seconds.
    adaptive: learnt from the vendor: at most `capacity` calls in flight and `refill_rate` calls a second.
    """

    type: str = "token_bucket"
    capacity: float = 0.0
    refill_rate: float = 0.0

    @property
    def window_s(self) -> float:
        """The length of a sliding window; what is no whole number is cut to one, at the same rate."""
        return int(self.capacity) / self.refill_rate

    def refusals(self) -> dict[str, str]:
        """Field → why it cannot work; {} = it can."""
        found = _outside(self, {"capacity": (0, _MAX_RATE), "refill_rate": (0, _MAX_RATE)})
        if self.type not in RATE_TYPES:
            found["type"] = f"Unknown; the types are {', '.join(RATE_TYPES)}."
        if found:
            return found
        if not self.capacity:
            return {"capacity": "With a rate, a capacity above 0 is needed; for no limit, write 0 for both."} if self.refill_rate else {}
        if self.capacity < 1 and self.type != "token_bucket":
            found["capacity"] = "Write 1 or more, or 0 for no limit: with less no call could ever start."
        elif self.capacity != int(self.capacity) and self.type == "sliding_window":
            found["capacity"] = "A sliding window counts whole calls: write a whole number."
        if not self.refill_rate:
            found["refill_rate"] = "With a capacity, a rate above 0 is needed, or no call starts once it is used up."
        return found


class BreakerSpec(msgspec.Struct, frozen=True):
    """Opens after `fail_max` failures in a row, or where `failure_rate` (0 to 1, 0 = not looked at) of at least `min_calls`
    calls of the last `window_s` failed. Tried again after `reset_timeout_s`, twice that after each failed trial, up to
    `max_reset_timeout_s` (never less than the first). `keep_last`: for the only target left the time does not grow.
    `reset_at`: when an administrator last closed it (wall seconds).
    """

    fail_max: int = 5
    reset_timeout_s: float = 15.0
    max_reset_timeout_s: float = 60.0
    failure_rate: float = 0.0
    window_s: float = 60.0
    min_calls: int = 20
    keep_last: bool = True
    reset_at: float = 0.0

    def refusals(self) -> dict[str, str]:
        """Field → why it cannot work; {} = all can."""
        found = _outside(
            self,
            {
                "fail_max": (1, 1_000),
                "reset_timeout_s": (0.1, _DAY_S),
                "max_reset_timeout_s": (0.1, _DAY_S),
                "failure_rate": (0, 1),
                "window_s": (1, 3600),
                "min_calls": (1, 100_000),
            },
        )
        if not found and self.max_reset_timeout_s < self.reset_timeout_s:
            found["max_reset_timeout_s"] = f"Write at least the first wait, {self.reset_timeout_s:g} seconds: waits do not get shorter."
        return found


class LimitSpec(msgspec.Struct, frozen=True):
    """What a key, a team, a model or a provider may do. None = no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None

    @property
    def limits_something(self) -> bool:
        return not (self.requests_per_minute is self.tokens_per_minute is self.max_concurrency is None)

    def refusals(self) -> dict[str, str]:
        """Field → why it cannot work; {} = all can. A limit of nothing could never be met."""
        given = {name: (1, math.inf) for name in self.__struct_fields__ if getattr(self, name) is not None}
        return dict.fromkeys(_outside(self, given), "Write 1 or more, or nothing for no limit.")


class KeySpec(msgspec.Struct, frozen=True):
    """One vendor credential, decrypted. `id` is the row's, `last4` is all that may be shown."""

    id: str
    last4: str
    secret: Secret
    weight: int = 1


class ProviderSpec(msgspec.Struct, frozen=True):
    """One configured vendor. `kind` is a name of `providers.adapters.registry`, `options` its non-secret form fields.

    `max_concurrency` 0 = no limit, in each process. `limits`: tokens a minute, if any; calls a minute are the `rate`'s affair.
    `price_adjustment_bp`: what we pay beside the price, in basis points: -1500 is 15 % less. `ca_certificates`: PEM of the authorities
    that may vouch for its certificate, "" = the system's. `probe_budget_micros`: so much may asking its models cost in a day to see
    whether they answer (`gateway.probing`), in the reporting currency; 0 = they are not asked.
    """

    id: str
    name: str
    kind: str
    base_url: str
    keys: tuple[KeySpec, ...] = ()
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)
    timeouts: TimeoutSpec = TimeoutSpec()
    rate: RateSpec = RateSpec()
    breaker: BreakerSpec = BreakerSpec()
    max_concurrency: int = 0
    limits: LimitSpec = LimitSpec()
    price_adjustment_bp: int = 0
    ca_certificates: str = ""
    probe_budget_micros: int = 0

    def refusals(self) -> dict[str, str]:
        """Field, such as `rate.capacity` → why it cannot work; {} = all numbers can."""
        bounds = {"price_adjustment_bp": ADJUSTMENT_BOUNDS_BP, "probe_budget_micros": (0, MAX_PROBE_BUDGET_MICROS)}
        found = _outside(self, {"max_concurrency": (0, 100_000), **bounds})
        for part, refused in (
            ("rate", self.rate.refusals()),
            ("breaker", self.breaker.refusals()),
            ("timeouts", self.timeouts.refusals()),
            ("limits", self.limits.refusals()),
        ):
            found |= {f"{part}.{name}": sentence for name, sentence in refused.items()}
        return found


class PriceSpec(msgspec.Struct, frozen=True):
    """Integer micro-units per million tokens, valid from `valid_from` up to, not including, `valid_to` (wall seconds).

    A bucket without a price of its own (None) costs what text does: `input` on the way in, `output` on the way out,
    and `cache_write` for what is cached for an hour. It holds for requests of at least `min_input_tokens` in all, and of
    `service_tier` (core.usage.SERVICE_TIERS); "" = for those whose tier has no price of its own, too.
    """

    id: str
    currency: str
    valid_from: float
    valid_to: float | None
    input: int
    cached_input: int
    cache_write: int
    output: int
    cache_write_1h: int | None = None
    reasoning: int | None = None
    input_audio: int | None = None
    input_image: int | None = None
    output_audio: int | None = None
    output_image: int | None = None
    service_tier: str = ""
    min_input_tokens: int = 0


def most_specific_first(prices: Iterable[PriceSpec]) -> tuple[PriceSpec, ...]:
    """As `ModelSpec.prices` are ordered: a tier's own price first, then the larger size, then the later one."""
    return tuple(sorted(prices, key=lambda price: (price.service_tier == "", -price.min_input_tokens, -price.valid_from)))


class ExchangeRateSpec(msgspec.Struct, frozen=True):
    """From `valid_from` (wall seconds) on, one unit of a currency is `rate` / core.money.RATE_SCALE of the reporting currency, or,
    `inverse`, one unit of the reporting currency is so much of that. `text` is what a record says of it: "0.1404", "1/7.12"."""

    valid_from: float
    rate: int
    text: str
    inverse: bool = False


class ModelSpec(msgspec.Struct, frozen=True):
    """One model at one provider. `alias` is what callers say, `model_id` what the vendor says.

    `drop_params`: a parameter that this vendor cannot take is dropped and reported instead of refused.
    `truncate`: a conversation longer than the window loses its oldest turns instead of being refused.
    `limits`: ours, for this model at this provider; beyond them the next target is asked.
    `cache_ttl_s`: for how long its answers are given again to the same request, in seconds; 0 = they are not.
    `prices`: see `most_specific_first`. `quality`: 0 to 100. `lacks`: what a request may need (tools, json, json_schema, images)
    and this model is known not to have → how that is known.
    """

    id: str
    alias: str
    model_id: str
    provider_id: str
    model_type: str = "chat"
    priority: int = 100
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: tuple[str, ...] = ()
    prices: tuple[PriceSpec, ...] = ()
    created: int = 0
    drop_params: bool = False
    truncate: bool = False
    limits: LimitSpec = LimitSpec()
    cache_ttl_s: int = 0
    quality: int = 50
    lacks: Mapping[str, str] = msgspec.field(default_factory=dict)

    def price_at(self, wall_s: float, input_tokens: int = 0, service_tier: str = "") -> PriceSpec | None:
        """The price in force at that moment for a request of that size and tier; None = unknown, which is never the same as free."""
        for price in self.prices:
            if (
                price.min_input_tokens <= input_tokens
                and (not price.service_tier or price.service_tier == service_tier)
                and price.valid_from <= wall_s
                and (price.valid_to is None or wall_s < price.valid_to)
            ):
                return price
        return None


class RouteSpec(msgspec.Struct, frozen=True):
    """A name that callers use for a chain: the models of each alias of `targets`, in the order of `strategy` (core.choice); those of
    `fallbacks`, one after the other; then those of `degrade_to`, smaller ones; then `fixed_answer`, a text that no vendor makes.
    "" = the chain does not have that. `weights` by alias of a target, 1 where it has none. `task_types`: whose requests come here.
    `cache_ttl_s`: as of a model, for what is asked by this name; None = as its models say."""

    alias: str
    targets: tuple[str, ...]
    degrade_to: str = ""
    fixed_answer: str = ""
    cache_ttl_s: int | None = None
    strategy: str = "priority"
    weights: Mapping[str, int] = msgspec.field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()
    task_types: tuple[str, ...] = ()


class CallerSpec(msgspec.Struct, frozen=True):
    """One API key as admission sees it, held within what its team may. `models` None = every model; `expires_at` in wall seconds.

    `hidden`: names with nothing behind them that is open to the team. `barred`: ids of models that are not, behind whatever name
    they stand. `networks`: where it is accepted from, () = anywhere. `store_bodies`: what it asks and is answered is kept word for word.
    `hidden_prompts`: ids of prompt templates that are not open to it.
    `team_limits` hold for all keys of the team together. `price_adjustment_bp`: what the team owes beside what its requests
    cost us, in basis points: 500 is 5 % more.
    """

    key_id: str
    key_name: str
    prefix: str
    team_id: str
    team_name: str
    scopes: frozenset[str]
    models: frozenset[str] | None = None
    limits: LimitSpec = LimitSpec()
    team_limits: LimitSpec = LimitSpec()
    expires_at: float | None = None
    price_adjustment_bp: int = 0
    hidden: frozenset[str] = frozenset()
    barred: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    store_bodies: bool = False
    hidden_prompts: frozenset[str] = frozenset()

    def may_name(self, alias: str) -> bool:
        """Whether this key may ask for what is called so, if there is such."""
        return alias not in self.hidden and (self.models is None or alias in self.models)


# Whose probes are (`gateway.probing`): no team's, and none owes anything for them. It has an id, so that records can be asked for by it.
PROBER = CallerSpec(
    key_id="00000000-0000-0000-0000-000000000000",
    key_name="health probe",
    prefix="",
    team_id="",
    team_name="",
    scopes=frozenset({"chat"}),
    price_adjustment_bp=ADJUSTMENT_BOUNDS_BP[0],
)


class BudgetSpec(msgspec.Struct, frozen=True):
    """What may be spent on behalf of one key, team or user (as requests name it), or at one provider, in each period (UTC).

    `scope`: key | team | user | provider, `holder` its id, or the user's name. `limit` is in micro-units of `currency`, in tokens or in
    requests, as `kind` (money | tokens | requests) says. `period`: day | week | month | total. Not `hard`: counted, never refused.
    """

    id: str
    name: str
    scope: str
    holder: str
    kind: str
    limit: int
    period: str
    currency: str = ""
    hard: bool = True


class Snapshot(msgspec.Struct, frozen=True):
    """Everything the data plane knows, at one version. `callers` is keyed by the HMAC digest of the API key,
    `models` by alias, each with its targets in order of preference, `routes` by theirs: they come before a model of that alias.
    `exchange_rates`: to the reporting `currency`, by the currency they are from, the latest first.
    `prompts`: by name, and by id.
    `is_partial`: a key could not be opened because its service was away, and reading again may do better."""

    version: int
    loaded_at: float
    callers: Mapping[bytes, CallerSpec] = msgspec.field(default_factory=dict)
    models: Mapping[str, tuple[ModelSpec, ...]] = msgspec.field(default_factory=dict)
    providers: Mapping[str, ProviderSpec] = msgspec.field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    routes: Mapping[str, RouteSpec] = msgspec.field(default_factory=dict)
    budgets: tuple[BudgetSpec, ...] = ()
    currency: str = DEFAULT_CURRENCY
    exchange_rates: Mapping[str, tuple[ExchangeRateSpec, ...]] = msgspec.field(default_factory=dict)
    is_partial: bool = False
    prompts: Mapping[str, PromptSpec] = msgspec.field(default_factory=dict)

    def rate_at(self, currency: str, wall_s: float) -> ExchangeRateSpec | None:
        """The rate in force at that moment; None = not known. The reporting currency's own is never needed."""
        for rate in self.exchange_rates.get(currency, ()):
            if rate.valid_from <= wall_s:
                return rate
        return None
