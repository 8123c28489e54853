"""What the metrics are told of requests and attempts."""

from __future__ import annotations

from core.errors import CallerLimited, ClientGone, GatewayError, ProviderLimited
from gateway.settlement import Attempt, Charge
from monitoring import metrics


def count_attempt(attempt: Attempt, charged: Charge, error: GatewayError | None, now: float) -> None:
    """One call of a vendor that has ended. A client that left says nothing of the vendor. `now` in monotonic seconds."""
    counted = attempt.target.metrics
    if not isinstance(error, ClientGone):
        counted.attempt(now - attempt.began_s, error.code if error else None)
    if charged.usage is not None:
        counted.charged(charged.usage, charged.cost_micros, charged.currency)


def count_error(error: GatewayError) -> None:
    """Of a request, whether a target was found for it or not."""
    metrics.ERRORS.labels(error.code).inc()
    if isinstance(error, CallerLimited | ProviderLimited):
        metrics.RATE_LIMIT_HITS.labels("caller" if isinstance(error, CallerLimited) else "provider").inc()


def count_failure(counted: metrics.TargetMetrics, error: GatewayError, took_s: float) -> None:
    counted.failed(took_s, "client_closed" if isinstance(error, ClientGone) else "error")


def count_answer(counted: metrics.TargetMetrics, attempt: Attempt | None, began_s: float, now: float) -> None:
    """`attempt` None: it was given again, and no vendor was asked. Both moments in monotonic seconds."""
    took_s = now - began_s
    if attempt is None:
        counted.given_again(took_s)
    elif attempt.first_token_s is None:
        counted.answered(took_s, max(0.0, took_s - attempt.upstream.vendor_s))
    else:
        counted.streamed(took_s, attempt.first_token_s - began_s)
