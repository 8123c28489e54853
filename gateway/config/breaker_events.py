"""Breakers that open and close, in the audit trail: found by comparing what a process knew with what it knows, off the hot path.

Best effort: what could not be recorded is a line of the log, since a vendor's outage must not depend on the trail. Each process
tells of its own; one that opens and closes between two looks (a second) is not seen.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.db import Error

from monitoring import audit, audit_context
from monitoring.models import AuditEvent
from monitoring.signals import breakers_changed
from monitoring.threads import in_one_line
from providers.models import Provider

log = logging.getLogger(__name__)
Found = Mapping[str, Mapping[str, Any]]

# A vendor that comes and goes for a day must not fill the trail.
MAX_EVENTS_PER_LOOK = 20


def record_breakers(process: str, before: Found, after: Found) -> None:
    """`before` and `after` as `providers.states.write` takes them. One event for each provider whose breakers changed. Never raises."""
    changed = {
        provider_id: (old, new)
        for provider_id in sorted({*before, *after})
        if (old := _open(before.get(provider_id))).keys() != (new := _open(after.get(provider_id))).keys()
    }
    if not changed:
        return
    try:
        names = dict(Provider.objects.filter(pk__in=list(changed)[:MAX_EVENTS_PER_LOOK]).values_list("pk", "name"))
        with audit_context.acting(audit_context.data_plane):
            for pk, name in names.items():
                old, new = changed[str(pk)]
                changes = {"open breakers": (_told(old, old), _told(new, old)), "process": (None, process)}
                audit.note(audit.Event(AuditEvent.Action.BREAKER, (Provider._meta.label, str(pk), name), changes), "default")
                breakers_changed.send_robust(Provider, process=process, provider_id=str(pk), provider=name, open=_told(new, new))
    except Error as exc:
        log.warning("breakers that changed could not be recorded in the audit trail (%s)", in_one_line(exc))


def _open(state: Mapping[str, Any] | None) -> dict[tuple[str, str], str]:
    """(key, model) → why, of breakers that are not closed. A trial that failed is no change."""
    breakers = state["breakers"] if state else ()
    return {(each["key"], each["model"]): each["reason"] or "" for each in breakers if each["state"] != "closed"}


def _told(breakers: Mapping[tuple[str, str], str], known: Mapping[tuple[str, str], str]) -> list[str]:
    """Why is told once, when it opens."""
    return [
        f"model {model}{f' at key {key}' if key else ''}" + (f": {why[:200]}" if why and (key, model) not in known else "")
        for (key, model), why in sorted(breakers.items())
    ]
