"""What the gateway's processes have learnt of providers: which breakers are open, which keys rest, why, and until when; and whose
list of models could not be had, and which models did not answer a probe.

Each process writes down what is not well (`write`); a provider that nobody speaks of is well. What people see is put
together from all processes that have written lately (`statuses`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from monitoring.models import UsageRecord
from monitoring.probes import spent_micros
from providers.models import Provider, ProviderKey, ProviderState

# Worst last.
BREAKER_STATES = ("closed", "half-open", "open")
STALE_AFTER = timedelta(seconds=30)
_USAGE_LOOKED_AT = timedelta(minutes=5)
_MAX_RECORDS = 5_000
_MAX_TROUBLED = 20


def write(process: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Replaces what `process` said. `found`: by provider id
    `{"breakers": [{"key", "model", "state", "failures", "reason", "next_try_at"}], "rests": [{"key", "model", "reason", "next_try_at"}],
    "listing": {"reason", "since"}, "probes": {"failed": [{"model", "reason", "since"}], "note"}}`, the last two where there is
    something to say,
    times in wall seconds. What silent processes left is cleared. Raises DatabaseError."""
    now = timezone.now()
    rows = [ProviderState(process=process, provider_id=provider_id, state=state, updated_at=now) for provider_id, state in found.items()]
    with transaction.atomic():
        ProviderState.objects.filter(updated_at__lt=now - STALE_AFTER).delete()
        ProviderState.objects.filter(process=process).delete()
        ProviderState.objects.bulk_create(rows)


def statuses(providers: Sequence[Provider]) -> list[dict[str, Any]]:
    """One for each provider, in their order; shape: `providers.api.serializers.ProviderStatusSerializer`.

    Two queries, and their keys; where the latest calls are very many, one more for each provider."""
    said: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    since = timezone.now() - STALE_AFTER
    for row in ProviderState.objects.filter(provider__in=providers, updated_at__gte=since).order_by("process"):
        said[row.provider_id].append(row.state)
    usage = _usage([str(provider.pk) for provider in providers])
    spent = spent_micros((str(provider.pk) for provider in providers if provider.probe_budget_micros), timezone.now())
    return [
        {
            **_status(provider, said[provider.pk], usage[str(provider.pk)]),
            "probes": _probes(provider, [state["probes"] for state in said[provider.pk] if "probes" in state], spent),
        }
        for provider in providers
    ]


def not_well() -> dict[str, Any]:
    """`providers`: how many there are and are on; `troubled`: of those with an open breaker, a resting key
    or a list of models that could not be had, the statuses, each with its `pk`. Raises DatabaseError."""
    since = timezone.now() - STALE_AFTER
    on = Provider.objects.filter(is_active=True)
    spoken_of = on.filter(pk__in=ProviderState.objects.filter(updated_at__gte=since).values("provider_id"))
    rows = list(spoken_of.prefetch_related("keys")[:_MAX_TROUBLED])
    found = [{"pk": row.pk, **status} for row, status in zip(rows, statuses(rows), strict=True)]
    return {"providers": on.count(), "troubled": [status for status in found if _is_troubled(status)]}


def _is_troubled(status: Mapping[str, Any]) -> bool:
    resting = any(key["rests"] for key in status["keys"])
    return status["breaker"] != BREAKER_STATES[0] or resting or status["listing"] is not None


def _status(provider: Provider, said: list[dict[str, Any]], usage: list[tuple[str, int]]) -> dict[str, Any]:
    keys = list(provider.keys.all())
    breakers = _breakers(said, {str(key.pk): key for key in keys})
    errors = sum(status == UsageRecord.Status.ERROR for status, _ in usage)
    durations = sorted(duration for _, duration in usage)
    return {
        "name": provider.name,
        "kind": provider.provider_type,
        "active": provider.is_active,
        "breaker": max((breaker["state"] for breaker in breakers), key=BREAKER_STATES.index, default="closed"),
        "breakers": breakers,
        "listing": _since([state["listing"] for state in said if "listing" in state]),
        "limiter": {
            "type": provider.rate_type,
            "capacity": provider.rate_capacity,
            "refill_rate": provider.rate_refill_per_s,
            "max_concurrency": provider.max_concurrency,
        },
        "keys": [_key(key, [rest for state in said for rest in state["rests"] if rest["key"] == str(key.pk)]) for key in keys],
        "attempts": len(usage),
        "error_rate": errors / len(usage) if usage else None,
        "latency_ms": {"p50": _percentile(durations, 0.5), "p95": _percentile(durations, 0.95)},
    }


def _breakers(said: list[dict[str, Any]], keys: Mapping[str, ProviderKey]) -> list[dict[str, Any]]:
    """Of the processes' words about one breaker the worst, and how many of them speak of it."""
    by_place: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for state in said:
        for breaker in state["breakers"]:
            by_place[breaker["key"], breaker["model"]].append(breaker)
    found = []
    for (key_id, model), words in sorted(by_place.items()):
        if key_id and key_id not in keys:
            continue  # it was deleted a moment ago
        worst = max(words, key=lambda breaker: (BREAKER_STATES.index(breaker["state"]), breaker["failures"]))
        found.append(
            {
                "key_id": key_id,
                "last4": keys[key_id].last4 if key_id else "",
                "label": keys[key_id].label if key_id else "no key",
                "model": model,
                "state": worst["state"],
                "failures": worst["failures"],
                "reason": worst["reason"],
                "next_try_at": _moment(worst["next_try_at"]),
                "processes": len(words),
            }
        )
    return found


def _since(words: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Since when the first process has doubted, and what the last one to find out was told; None = nobody doubts."""
    if not words:
        return None
    latest = max(words, key=lambda word: word["since"])
    return {"reason": latest["reason"], "since": _moment(min(word["since"] for word in words)), "processes": len(words)}


def _probes(provider: Provider, words: list[dict[str, Any]], spent: Mapping[str, int]) -> dict[str, Any] | None:
    """None = it is not probed."""
    if not provider.probe_budget_micros:
        return None
    by_model: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for word in words:
        for failure in word["failed"]:
            by_model[failure["model"]].append(failure)
    return {
        "budget_micros": provider.probe_budget_micros,
        "spent_micros": spent.get(str(provider.pk), 0),
        "currency": settings.REPORTING_CURRENCY,
        "failed": [{"model": model, **(_since(found) or {})} for model, found in sorted(by_model.items())],
        "note": next((word["note"] for word in words if word["note"]), ""),
    }


def _key(key: ProviderKey, rests: list[dict[str, Any]]) -> dict[str, Any]:
    """A key that rests in several processes is shown once for each model, with the longest rest."""
    longest = {rest["model"]: rest for rest in sorted(rests, key=lambda rest: rest["next_try_at"])}
    return {
        "id": str(key.pk),
        "last4": key.last4,
        "label": key.label,
        "state": "off" if not key.is_active else "resting" if longest else "active",
        "weight": key.weight,
        "rests": [
            {"model": model, "reason": rest["reason"], "next_try_at": _moment(rest["next_try_at"])}
            for model, rest in sorted(longest.items())
        ],
    }


def _usage(provider_ids: list[str]) -> dict[str, list[tuple[str, int]]]:
    """(status, milliseconds) of each provider's latest calls; of a provider with many calls fewer, so that it hides no other."""
    recent = UsageRecord.objects.filter(started_at__gte=timezone.now() - _USAGE_LOOKED_AT).order_by("-started_at")
    columns = ("provider_id", "status", "duration_ms")
    rows = list(recent.filter(provider_id__in=provider_ids).values_list(*columns)[:_MAX_RECORDS])
    if len(rows) == _MAX_RECORDS:
        share = _MAX_RECORDS // len(provider_ids)
        rows = [row for name in provider_ids for row in recent.filter(provider_id=name).values_list(*columns)[:share]]
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for provider_id, status, duration_ms in rows:
        found[provider_id].append((status, duration_ms))
    return found


def _percentile(ordered: Sequence[int], share: float) -> int | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def _moment(wall_s: float | None) -> datetime | None:
    return None if wall_s is None else datetime.fromtimestamp(wall_s, UTC)
