"""What the ledger knows of the gateway's own probes of models (`gateway.probing`), and of the calls that make them needless."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from django.conf import settings
from django.db.models import Sum

from core.config import PROBER
from monitoring.models import Rollup, UsageRecord

# A model to which none of so many calls of its alias went has hardly any: its probe is not needless then.
_LOOKED_AT = 1_000


def spent_micros(provider_ids: Iterable[str], now: datetime) -> Mapping[str, int]:
    """By provider, since midnight (UTC), in the reporting currency. Whoever is not in it has spent nothing."""
    today = Rollup.objects.filter(
        span_s=Rollup.Span.DAY,
        start=now.replace(hour=0, minute=0, second=0, microsecond=0),
        team_id=PROBER.team_id,
        key_id=PROBER.key_id,
        provider_id__in=list(provider_ids),
        reporting_currency=settings.REPORTING_CURRENCY,
    )
    return dict(today.values_list("provider_id").annotate(Sum("cost_reporting_micros")))


def was_called(alias: str, provider_id: str, model_id: str, since: datetime) -> bool:
    """Whether a call of that model began since then, a probe or another."""
    latest = UsageRecord.objects.filter(alias=alias).order_by("-id").values_list("provider_id", "model_id", "started_at")
    return any(row[:2] == (provider_id, model_id) and row[2] >= since for row in latest[:_LOOKED_AT])
