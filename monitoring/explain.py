"""Why a request was answered by the model that answered it, from what is on record: the stored decision, and the attempts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.utils.translation import ngettext

from core import choice
from monitoring.models import RequestLog, UsageRecord

MAX_ATTEMPTS = 50
_BY_NAME = "by name"


def explanation(row: RequestLog, attempts: Sequence[UsageRecord] | None = None) -> dict[str, Any]:
    """`candidates` in the order in which they were to be asked, then the rejected ones; each with the reason. Where the request named
    its model, nothing was chosen, and the candidates are those that were asked. `attempts`: of this row, where they have been read."""
    decision = choice.read(row.decision) if row.decision else None
    attempts = attempts_of(row) if attempts is None else attempts
    return {
        "request_id": row.request_id,
        "asked": row.alias,
        "task_type": row.task_type,
        "config_version": row.config_version,
        "status_code": row.status_code,
        "error": {"code": row.error_code, "message": row.error_message} if row.error_code else None,
        "answered_by": {"provider": row.provider_name, "model": row.model_id} if row.status_code < 400 and row.model_id else None,
        "chosen": decision is not None,
        "needs": list(decision.needs) if decision else [],
        "input_tokens": decision.input_tokens if decision else None,
        "output_tokens": decision.output_tokens if decision else None,
        "draw": decision.draw if decision else None,
        "candidates": _candidates(decision) if decision else _asked(attempts),
        "attempts": [_attempt(attempt) for attempt in attempts],
    }


def chosen(row: RequestLog) -> str:
    """In a few words, of a row with a decision."""
    decision = choice.read(row.decision)
    lines = choice.explained(decision) if decision else []
    rejected = sum(line.place is None for line in lines)
    said = ngettext(
        "%(count)d candidate, %(rejected)d rejected: why this model",
        "%(count)d candidates, %(rejected)d rejected: why this model",
        len(lines),
    )
    return said % {"count": len(lines), "rejected": rejected}


def attempts_of(row: RequestLog) -> list[UsageRecord]:
    return list(UsageRecord.objects.filter(request_id=row.request_id).order_by("attempt", "pk")[:MAX_ATTEMPTS])


def _candidates(decision: choice.Decision) -> list[dict[str, Any]]:
    return [
        {
            "place": line.place,
            "alias": line.candidate.alias,
            "provider": line.candidate.provider,
            "model": line.candidate.model,
            "stage": line.stage,
            "strategy": line.strategy,
            "rejected": line.place is None,
            "reason": line.reason,
        }
        for line in choice.explained(decision)
    ]


def _asked(attempts: Sequence[UsageRecord]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for attempt in attempts:
        place = len(found) + 1
        known = {
            "place": place,
            "alias": attempt.alias,
            "provider": attempt.provider_name,
            "model": attempt.model_id,
            "stage": _BY_NAME,
            "strategy": choice.PRIORITY,
            "rejected": False,
            "reason": "named by the request" if place == 1 else "the next of that name",
        }
        found.setdefault((attempt.alias, attempt.provider_name, attempt.model_id), known)
    return list(found.values())


def _attempt(row: UsageRecord) -> dict[str, Any]:
    return {
        "attempt": row.attempt,
        "alias": row.alias,
        "provider": row.provider_name,
        "model": row.model_id,
        "status": row.status,
        "error_code": row.error_code,
        "vendor_status": row.vendor_status,
        "finish_reason": row.finish_reason,
        "started_at": row.started_at,
        "duration_ms": row.duration_ms,
        "first_token_ms": row.first_token_ms,
    }
