"""What an attempt used, what that costs, and the records that say so. No I/O: values in, values out."""

from __future__ import annotations

import msgspec

from core.chat import Answer, ChatRequest, Usage
from core.config import CallerSpec
from core.errors import ClientGone, GatewayError, ProviderError
from core.money import cost_micros
from gateway.router import Target
from gateway.runtime import Upstream
from monitoring.journal import AttemptOpened, AttemptSettled, RequestEnded

_BYTES_PER_TOKEN = 4
_NO_USAGE = Usage()

# What clients and vendors write is cut to the ledger's columns here: SQLite would keep any length, Postgres refuse it.
_MAX_ALIAS = 200
_MAX_CODE = 60
_MAX_FINISH_REASON = 40
_MAX_MESSAGE = 500


class Attempt(msgspec.Struct):
    """One try at one target, while it lasts."""

    id: str
    number: int
    target: Target
    started_at: float
    began_s: float
    upstream: Upstream
    answer: Answer | None = None
    first_token_s: float | None = None

    @property
    def finish_reason(self) -> str:
        if self.answer is not None:
            return self.answer.finish_reason
        return self.upstream.reader.finish_reason if self.upstream.reader else ""


class Charge(msgspec.Struct, frozen=True):
    """`usage` None = nothing was consumed; `tokens` is its total. `cost_micros` None = the price is not known."""

    usage: Usage | None = None
    cost_micros: int | None = 0
    currency: str = ""
    price_id: str = ""
    tokens: int = 0


NOTHING = Charge()


def charge(attempt: Attempt, request: ChatRequest, error: GatewayError | None) -> Charge:
    """The vendor's numbers beat ours. Without them we count what was received, and the record says so; a call that
    failed before any content costs nothing, one that the client left costs its prompt."""
    usage = _usage(attempt, request, error)
    if usage is None:
        return NOTHING
    price = attempt.target.model.price_at(attempt.started_at)
    if price is None:
        return Charge(usage, None, tokens=usage.total_tokens)
    return Charge(usage, cost_micros(usage, price), price.currency, price.id, usage.total_tokens)


def _usage(attempt: Attempt, request: ChatRequest, error: GatewayError | None) -> Usage | None:
    source = attempt.answer or attempt.upstream.reader
    if source is not None and source.usage is not None:
        return source.usage
    received = source.output_bytes if source is not None else 0
    if error is not None and not received and not isinstance(error, ClientGone):
        return None
    output = (received + _BYTES_PER_TOKEN - 1) // _BYTES_PER_TOKEN
    return Usage(input=request.estimated_input_tokens, output=output, estimated=True)


def opened(attempt: Attempt, request_id: str, caller: CallerSpec, request: ChatRequest, version: int) -> AttemptOpened:
    model, provider = attempt.target.model, attempt.target.provider
    return AttemptOpened(
        request_id=request_id,
        attempt=attempt.number,
        started_at=attempt.started_at,
        team_id=caller.team_id,
        team_name=caller.team_name,
        key_id=caller.key_id,
        key_name=caller.key_name,
        provider_id=provider.id,
        provider_name=provider.name,
        alias=model.alias,
        model_id=model.model_id,
        streamed=request.stream,
        estimated_input_tokens=request.estimated_input_tokens,
        config_version=version,
    )


def settled(attempt: Attempt, request_id: str, charged: Charge, error: GatewayError | None, now: float) -> AttemptSettled:
    first_token_s = attempt.first_token_s
    usage = charged.usage or _NO_USAGE
    return AttemptSettled(
        request_id=request_id,
        attempt=attempt.number,
        status="ok" if error is None else "client_closed" if isinstance(error, ClientGone) else "error",
        provider_key_id=attempt.upstream.key.id,
        error_code=_text(error.code, _MAX_CODE) if error else "",
        vendor_status=error.vendor_status if isinstance(error, ProviderError) else 200 if error is None else 0,
        finish_reason=_text(attempt.finish_reason, _MAX_FINISH_REASON),
        usage_source="none" if charged.usage is None else "estimated" if usage.estimated else "vendor",
        input_tokens=usage.input,
        cached_input_tokens=usage.cached_input,
        cache_write_tokens=usage.cache_write,
        cache_write_1h_tokens=usage.cache_write_1h,
        input_audio_tokens=usage.input_audio,
        input_image_tokens=usage.input_image,
        output_tokens=usage.output,
        reasoning_tokens=usage.reasoning,
        output_audio_tokens=usage.output_audio,
        output_image_tokens=usage.output_image,
        cost_micros=charged.cost_micros,
        currency=charged.currency,
        price_id=charged.price_id,
        duration_ms=_ms(now - attempt.began_s),
        first_token_ms=None if first_token_s is None else _ms(first_token_s - attempt.began_s),
    )


def ended(
    *,
    request_id: str,
    started_at: float,
    duration_s: float,
    caller: CallerSpec,
    request: ChatRequest,
    target: Target | None,
    attempts: int,
    charged: Charge,
    error: GatewayError | None,
    first_token_s: float | None,
    version: int,
    dropped: tuple[str, ...],
) -> RequestEnded:
    return RequestEnded(
        request_id=request_id,
        started_at=started_at,
        team_id=caller.team_id,
        team_name=caller.team_name,
        key_id=caller.key_id,
        key_name=caller.key_name,
        dialect=request.dialect.NAME,
        alias=_text(request.model, _MAX_ALIAS),
        provider_name=target.provider.name if target else "",
        model_id=target.model.model_id if target else "",
        streamed=request.stream,
        status_code=error.http_status if error else 200,
        error_code=_text(error.code, _MAX_CODE) if error else "",
        error_message=_text(error.message, _MAX_MESSAGE) if error else "",
        attempts=attempts,
        total_tokens=charged.tokens,
        cost_micros=charged.cost_micros,
        currency=charged.currency,
        duration_ms=_ms(duration_s),
        first_token_ms=None if first_token_s is None else _ms(first_token_s),
        config_version=version,
        dropped=_text(", ".join(dropped), _MAX_MESSAGE),
    )


def _text(value: str | None, limit: int) -> str:
    """At most `limit` characters of `value`, without NUL, which Postgres takes in no text."""
    return value[:limit].replace("\0", "") if value else ""


def _ms(seconds: float) -> int:
    return round(seconds * 1000) if seconds > 0 else 0
