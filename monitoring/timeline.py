"""One request on one axis of time, its attempts as bars; and what became of each attempt, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from django.utils.translation import gettext

from monitoring.models import RequestLog, UsageRecord

_TICKS: Final = 4
_LEAST_MS: Final = 4.0
_SLIVER: Final = 0.003  # of the axis: what took no time is still to be seen

# Code of an attempt's error → what happened, and what to do about it.
MEANINGS: Final = {
    "upstream_timeout": "The vendor did not answer in time. The time limits are on the provider's page.",
    "upstream_unreachable": "The vendor could not be reached. Test the connection on the provider's page.",
    "upstream_tls": "No trusted TLS connection to the vendor. Its certificate, or the provider's own, needs a look.",
    "upstream_address_refused": "The vendor's address is not public. OUTBOUND_ALLOW names the ones that may be called all the same.",
    "upstream_error": "The vendor failed, or broke off. If that goes on, ask the vendor.",
    "upstream_invalid_response": "What the vendor answered was no valid answer, or was cut short.",
    "upstream_paused": "The provider was paused: its breaker was open, or it was disabled.",
    "upstream_credentials_exhausted": "The vendor refused the provider's key, or the account there is empty. See to either.",
    "upstream_model_not_found": "The vendor does not know this model. Sync the provider's models.",
    "upstream_refused": "The vendor called the request itself wrong. The caller has to change it.",
    "rate_limit_exceeded": "A rate limit was reached: the vendor's, or the one that is set for the provider.",
    "insufficient_quota": "A budget had nothing left for it. Raise the budget, or wait for its next period.",
    "model_price_unknown": "The model has no price, and money is limited. Set a price on the model's page.",
    "context_length_exceeded": "The conversation is longer than the model can take.",
    "content_policy_violation": "The vendor refused the content.",
    "invalid_request": "The request cannot be put to this model. The caller has to change it.",
    "server_busy": "The gateway was at its own limit, or shutting down.",
    "accounting_unavailable": "The journal could not be written, so nothing may be spent. See to the disk.",
    "budget_unavailable": "The database did not say whether a budget allows it.",
    "client_closed_request": "The client left before the answer was complete.",
    "process_died": "The gateway's process ended before it could finish this.",
    "never_ended": "No end of this was ever recorded.",
    "server_error": "The gateway itself failed. Its log has more under this request's id.",
}


class Bar(NamedTuple):
    """A stretch of the axis, in percent of it, as SVG writes that."""

    x: str
    width: str
    kind: str
    title: str


class Timeline(NamedTuple):
    """`ticks`: place and label. `whole`: bars of the request; `attempts`: those of each attempt, in their order."""

    ticks: list[tuple[str, str]]
    whole: list[Bar]
    attempts: list[list[Bar]]


def timeline(request: RequestLog, attempts: Sequence[UsageRecord]) -> Timeline:
    """From where the first began to where the last ended: clocks of wall time, so an attempt may seem to outlast its request."""
    rows: list[RequestLog | UsageRecord] = [request, *attempts]
    origin = min(row.started_at for row in rows)
    whole_ms = max(_LEAST_MS, *(_since(origin, row.started_at) + row.duration_ms for row in rows))

    def bars(row: RequestLog | UsageRecord, kind: str) -> list[Bar]:
        begun, waited = _since(origin, row.started_at), row.first_token_ms
        if waited is None or waited > row.duration_ms:
            return [
                _bar(begun, row.duration_ms, whole_ms, kind, gettext("%(ms)s ms, without a first token") % {"ms": f"{row.duration_ms:,}"})
            ]
        told = row.duration_ms - waited
        return [
            _bar(begun, waited, whole_ms, "wait", gettext("%(ms)s ms to the first token") % {"ms": f"{waited:,}"}),
            _bar(begun + waited, told, whole_ms, kind, gettext("%(ms)s ms from the first token to the end") % {"ms": f"{told:,}"}),
        ]

    return Timeline(
        [(_percent(place / _TICKS), f"{whole_ms * place / _TICKS:,.0f} ms") for place in range(_TICKS + 1)],
        bars(request, "ok" if request.status_code < 400 else "error"),
        [bars(row, row.status) for row in attempts],
    )


def meaning(attempt: UsageRecord) -> str:
    """What became of it; "" where all is well."""
    if not attempt.error_code:
        return ""
    happened = MEANINGS.get(attempt.error_code, "It failed.")
    return f"{happened} The vendor's status was {attempt.vendor_status}." if attempt.vendor_status else happened


def _since(origin: datetime, moment: datetime) -> float:
    return (moment - origin).total_seconds() * 1000


def _bar(begun_ms: float, lasted_ms: float, whole_ms: float, kind: str, title: str) -> Bar:
    width = max(_SLIVER, lasted_ms / whole_ms)
    return Bar(_percent(min(begun_ms / whole_ms, 1 - width)), _percent(width), kind, title)


def _percent(part: float) -> str:
    return f"{100 * part:.2f}%"
