"""What an attempt used, what that costs, and the records that say so. No I/O: values in, values out."""

from __future__ import annotations

from typing import Protocol

import msgspec

from core.chat import Answer, ChatRequest, Usage
from core.config import CallerSpec, PriceSpec, Snapshot
from core.errors import ClientGone, GatewayError, ProviderError
from core.money import adjusted, converted, cost_micros
from core.usage import SERVICE_TIERS
from gateway.budget import Reservation
from gateway.router import Target
from gateway.upstream import Upstream
from monitoring.journal import AttemptOpened, AttemptSettled, RequestEnded

_BYTES_PER_TOKEN = 4
# A vendor that runs tools itself, or makes several answers, counts the window anew for each.
_WINDOWS_AT_MOST = 4
_NO_USAGE = Usage()
_NO_LABELS = ("", "", "")
_NO_PROMPT = ("", 0)
_SAME_CURRENCY = "1"
_ASKED_TIERS = {b'"%s"' % tier.encode(): tier for tier in SERVICE_TIERS}

# What clients and vendors write is cut to the ledger's columns here: SQLite would keep any length, Postgres refuse it.
_MAX_ALIAS = 200
_MAX_CODE = 60
_MAX_FINISH_REASON = 40
_MAX_MESSAGE = 500
_MAX_REFUSED = 200


class CacheUse(Protocol):
    """See `gateway.cached.Use`."""

    @property
    def recorded(self) -> str: ...

    @property
    def saved_micros(self) -> int | None: ...


class Asked(msgspec.Struct, frozen=True, eq=False):
    """What all records of one request say of it. `started_at` in wall seconds; `version`: of the configuration that it has taken."""

    request_id: str
    started_at: float
    caller: CallerSpec
    request: ChatRequest
    version: int
    labels: tuple[str, str, str] = _NO_LABELS


class Attempt(msgspec.Struct):
    """One try at one target, while it lasts. `noted_bytes`: received when its progress was last noted."""

    request_id: str
    number: int
    target: Target
    started_at: float
    began_s: float
    upstream: Upstream
    reservation: Reservation | None = None
    answer: Answer | None = None
    first_token_s: float | None = None
    noted_bytes: int = 0

    @property
    def id(self) -> str:
        return f"{self.request_id}-{self.number}"

    @property
    def finish_reason(self) -> str:
        if self.answer is not None:
            return self.answer.finish_reason
        return self.upstream.reader.finish_reason if self.upstream.reader else ""


class End(msgspec.Struct, eq=False):
    """How a request ended. `target`, `attempts`: the last one asked, and how many calls there were; `first_token_s` after its
    beginning, None = it was no stream. `decision` and `trace_id`: as `RequestEnded` has them."""

    duration_s: float
    target: Target | None
    attempts: int
    error: GatewayError | None
    first_token_s: float | None = None
    dropped: tuple[str, ...] = ()
    use: CacheUse | None = None
    decision: str = ""
    trace_id: str = ""
    replayed: bool = False


class Charge(msgspec.Struct, frozen=True):
    """`usage` None = nothing was consumed; `tokens` is its total. `cost_micros` None = the price is not known.

    `cost_reporting_micros`, the same at `exchange_rate`, and `charged_micros`, what the team owes for it, are in
    `reporting_currency`; None = the price or the rate is not known.
    """

    usage: Usage | None = None
    cost_micros: int | None = 0
    currency: str = ""
    price_id: str = ""
    tokens: int = 0
    cost_reporting_micros: int | None = 0
    charged_micros: int | None = 0
    reporting_currency: str = ""
    exchange_rate: str = ""


NOTHING = Charge()


def charge(attempt: Attempt, request: ChatRequest, error: GatewayError | None, caller: CallerSpec, snapshot: Snapshot) -> Charge:
    """The vendor's numbers beat ours. Without them, or where they cannot be, we count what was received, and the record says so;
    a call that failed before any content costs nothing, one that the client left costs its prompt. Prices and rates are those of
    the moment at which the attempt began."""
    usage = _usage(attempt, request, error)
    if usage is None:
        return NOTHING
    price = attempt.target.model.price_at(attempt.started_at, usage.prompt_tokens, _service_tier(usage, request))
    if price is None:
        return Charge(usage, None, "", "", usage.total_tokens, None, None, snapshot.currency)
    return _priced(usage, price, attempt, caller, snapshot)


def _service_tier(usage: Usage, request: ChatRequest) -> str:
    """As the vendor says, who may have served another one than was asked for; else as the client asked."""
    if usage.service_tier is not None:
        return usage.service_tier
    asked = request.fields.get("service_tier")
    return _ASKED_TIERS.get(bytes(asked), "") if asked is not None else ""


def _priced(usage: Usage, price: PriceSpec, attempt: Attempt, caller: CallerSpec, snapshot: Snapshot) -> Charge:
    cost = cost_micros(usage, price, attempt.target.provider.price_adjustment_bp)
    tokens = usage.total_tokens
    if price.currency == snapshot.currency:
        reported, rate = cost, _SAME_CURRENCY
    elif not cost:  # is nothing in every currency
        reported, rate = 0, ""
    elif (found := snapshot.rate_at(price.currency, attempt.started_at)) is not None:
        reported, rate = converted(cost, found), found.text
    else:
        return Charge(usage, cost, price.currency, price.id, tokens, None, None, snapshot.currency)
    owed = adjusted(reported, caller.price_adjustment_bp)
    return Charge(usage, cost, price.currency, price.id, tokens, reported, owed, snapshot.currency, rate)


def _usage(attempt: Attempt, request: ChatRequest, error: GatewayError | None) -> Usage | None:
    source = attempt.answer or attempt.upstream.reader
    received, refused = 0, ""
    if source is not None:
        usage, received = source.usage, source.output_bytes
        if usage is None:
            refused = source.refused_counts
        elif _can_be(usage, attempt, request, received):
            return usage
        else:
            refused = f"more than the window and the bytes have room for: {usage.prompt_tokens} in, {usage.completion_tokens} out"
    if error is not None and not received and not isinstance(error, ClientGone):
        return None
    output = (received + _BYTES_PER_TOKEN - 1) // _BYTES_PER_TOKEN
    return Usage(input=request.estimated_input_tokens, output=output, estimated=True, refused=refused)


def _can_be(usage: Usage, attempt: Attempt, request: ChatRequest, received: int) -> bool:
    """Whether the model's window, or the bytes that went and came, have room for what the vendor counted: a token is a byte at least.
    Of a model whose window nobody has entered, everything can be."""
    window = attempt.target.model.context_window
    if window is None or usage.total_tokens <= (most := _WINDOWS_AT_MOST * window):
        return True
    return usage.prompt_tokens <= max(most, request.body_bytes) and usage.completion_tokens <= max(most, received)


# Records are built by position, in the order of their fields: by name it takes 2 µs more for each request.


def opened(attempt: Attempt, asked: Asked) -> AttemptOpened:
    caller, request = asked.caller, asked.request
    model, provider = attempt.target.model, attempt.target.provider
    return AttemptOpened(
        request.estimated_input_tokens,
        attempt.started_at,
        asked.request_id,
        attempt.number,
        caller.team_id,
        caller.team_name,
        caller.key_id,
        caller.key_name,
        provider.id,
        provider.name,
        model.alias,
        model.model_id,
        request.stream,
        asked.version,
        attempt.reservation.holds() if attempt.reservation else (),
        *asked.labels,
    )


def settled(attempt: Attempt, charged: Charge, error: GatewayError | None, now: float, charges: tuple[int, ...] = ()) -> AttemptSettled:
    """`now` in monotonic seconds; `charges`: of each part of its reservation."""
    first_token_s = attempt.first_token_s
    usage = charged.usage or _NO_USAGE
    return AttemptSettled(
        attempt.request_id,
        attempt.number,
        "ok" if error is None else "client_closed" if isinstance(error, ClientGone) else "error",
        attempt.upstream.key.id,
        _text(error.code, _MAX_CODE) if error else "",
        error.vendor_status if isinstance(error, ProviderError) else 200 if error is None else 0,
        _text(attempt.finish_reason, _MAX_FINISH_REASON),
        "none" if charged.usage is None else "refused" if usage.refused else "estimated" if usage.estimated else "vendor",
        usage.input,
        usage.cached_input,
        usage.cache_write,
        usage.cache_write_1h,
        usage.input_audio,
        usage.input_image,
        usage.output,
        usage.reasoning,
        usage.output_audio,
        usage.output_image,
        charged.cost_micros,
        charged.currency,
        charged.price_id,
        _ms(now - attempt.began_s),
        None if first_token_s is None else _ms(first_token_s - attempt.began_s),
        charged.cost_reporting_micros,
        charged.charged_micros,
        charged.reporting_currency,
        charged.exchange_rate,
        charges,
        _text(usage.refused, _MAX_REFUSED),
    )


def ended(asked: Asked, charged: Charge, end: End) -> RequestEnded:
    caller, request, error, target = asked.caller, asked.request, end.error, end.target
    return RequestEnded(
        asked.started_at,
        asked.request_id,
        caller.team_id,
        caller.team_name,
        caller.key_id,
        caller.key_name,
        request.dialect.NAME,
        _text(request.model, _MAX_ALIAS),
        target.provider.name if target else "",
        target.model.model_id if target else "",
        request.stream,
        error.http_status if error else 200,
        _text(error.code, _MAX_CODE) if error else "",
        _text(error.message, _MAX_MESSAGE) if error else "",
        end.attempts,
        charged.tokens,
        charged.cost_micros,
        charged.currency,
        _ms(end.duration_s),
        None if end.first_token_s is None else _ms(end.first_token_s),
        asked.version,
        _text(", ".join(end.dropped), _MAX_MESSAGE),
        *asked.labels,
        *((request.prompt.name, request.prompt.version) if request.prompt is not None else _NO_PROMPT),
        "" if end.use is None else end.use.recorded,
        None if end.use is None else end.use.saved_micros,
        end.decision,
        end.trace_id,
        end.replayed,
    )


def _text(value: str | None, limit: int) -> str:
    """At most `limit` characters of `value`, without NUL, which Postgres takes in no text."""
    return value[:limit].replace("\0", "") if value else ""


def _ms(seconds: float) -> int:
    return round(seconds * 1000) if seconds > 0 else 0
