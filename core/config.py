"""Configuration as the data plane sees it: frozen, complete, and taken once per request.

The control plane's rows become these specs in `gateway.config.loader`; nothing here knows a database.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from core.secrets import Secret

RATE_TYPES = ("token_bucket", "sliding_window", "adaptive")


class TimeoutSpec(msgspec.Struct, frozen=True):
    """Bounds on one vendor call, in seconds."""

    connect_s: float = 3.0
    first_byte_s: float = 30.0
    idle_s: float = 60.0
    total_s: float = 600.0


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
        found = {}
        if self.type not in RATE_TYPES:
            found["type"] = f"Unknown; the types are {', '.join(RATE_TYPES)}."
        for name, value in (("capacity", self.capacity), ("refill_rate", self.refill_rate)):
            if not (isinstance(value, float | int) and 0 <= value < math.inf):
                found[name] = "Write a finite number, 0 or more."
        if found or not self.capacity:
            return found
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


class LimitSpec(msgspec.Struct, frozen=True):
    """What a key, a team or a model may do. None = no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None

    @property
    def limits_something(self) -> bool:
        return not (self.requests_per_minute is self.tokens_per_minute is self.max_concurrency is None)


class KeySpec(msgspec.Struct, frozen=True):
    """One vendor credential, decrypted. `id` is the row's, `last4` is all that may be shown."""

    id: str
    last4: str
    secret: Secret
    weight: int = 1


class ProviderSpec(msgspec.Struct, frozen=True):
    """One configured vendor. `kind` is a name of `providers.adapters.registry`, `options` its non-secret form fields."""

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


class PriceSpec(msgspec.Struct, frozen=True):
    """Integer micro-units per million tokens, valid from `valid_from` up to, not including, `valid_to` (wall seconds).

    A bucket without a price of its own (None) costs what text does: `input` on the way in, `output` on the way out,
    and `cache_write` for what is cached for an hour.
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


class ModelSpec(msgspec.Struct, frozen=True):
    """One model at one provider. `alias` is what callers say, `model_id` what the vendor says.

    `drop_params`: a parameter that this vendor cannot take is dropped and reported instead of refused.
    `truncate`: a conversation longer than the window loses its oldest turns instead of being refused.
    `limits`: ours, for this model at this provider; beyond them the next target is asked.
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

    def price_at(self, wall_s: float) -> PriceSpec | None:
        """The price in force at that moment; None = unknown, which is never the same as free."""
        for price in self.prices:
            if price.valid_from <= wall_s and (price.valid_to is None or wall_s < price.valid_to):
                return price
        return None


class CallerSpec(msgspec.Struct, frozen=True):
    """One API key as admission sees it. `models` None = every model; `expires_at` in wall seconds.

    `team_limits` hold for all keys of the team together.
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


class Snapshot(msgspec.Struct, frozen=True):
    """Everything the data plane knows, at one version. `callers` is keyed by the HMAC digest of the API key,
    `models` by alias, each with its targets in order of preference."""

    version: int
    loaded_at: float
    callers: Mapping[bytes, CallerSpec] = msgspec.field(default_factory=dict)
    models: Mapping[str, tuple[ModelSpec, ...]] = msgspec.field(default_factory=dict)
    providers: Mapping[str, ProviderSpec] = msgspec.field(default_factory=dict)
    alarms: tuple[str, ...] = ()
