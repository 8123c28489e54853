"""Secrets that webhooks are signed with, and dead letters that are sent again: what admin, REST and the shell share."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from access.models import Team
from core.errors import GatewayError
from core.secrets import Secret
from monitoring import audit
from monitoring.models import AuditEvent
from telling import signing
from telling.models import Webhook, WebhookSecret
from telling.signals import webhooks_due


class NotDead(GatewayError):
    """Only a dead letter is sent again."""

    http_status, code, type = 409, "webhook_not_dead", "invalid_request_error"


def new_secret(team: Team | None, *, overlap_s: float | None = None, now: datetime | None = None) -> tuple[WebhookSecret, str]:
    """The row and the secret itself, which is returned once. What was current signs too for `overlap_s`, by default
    LLM_WEBHOOK_OVERLAP_S; what was older retires now. `team` None: of the tasks that people submit."""
    now = now or datetime.now(UTC)
    until = now + timedelta(seconds=settings.WEBHOOK_OVERLAP_S if overlap_s is None else overlap_s)
    plaintext = signing.new_secret()
    row = WebhookSecret(team=team, created_at=now)
    row.seal(plaintext)
    with transaction.atomic():
        for older in _living(team.pk if team else None, now).select_for_update(of=("self",)):
            older.retires_at = until if older.retires_at is None else now
            older.save(update_fields=["retires_at"])
        row.save(force_insert=True)
        audit.record(AuditEvent.Action.REVEALED, row)
    return row, plaintext


def retire_secret(row: WebhookSecret) -> None:
    """It signs nothing more. A second time changes nothing."""
    with transaction.atomic():
        now = datetime.now(UTC)
        if row.retires_at is None or row.retires_at > now:
            row.retires_at = now
            row.save(update_fields=["retires_at"])


def has_secret(team_id: Any) -> bool:
    return _living(team_id, datetime.now(UTC)).exists()


def secrets_of(team_id: Any, now: datetime) -> list[Secret]:
    """Those that sign now, the newest first. Raises core.secrets.CannotOpen."""
    return [row.open() for row in _living(team_id, now)]


def _living(team_id: Any, now: datetime) -> Any:
    return WebhookSecret.objects.filter(Q(retires_at=None) | Q(retires_at__gt=now), team_id=team_id)


def replay(webhook: Webhook) -> None:
    """A dead letter is due at once, with its id and all of its tries again. Raises NotDead."""
    with transaction.atomic():
        dead = Webhook.objects.filter(pk=webhook.pk, status=Webhook.Status.DEAD)
        if not dead.update(status=Webhook.Status.PENDING, tries=0, next_at=time.time(), lease_until=0, ended_at=None):
            raise NotDead("Only a dead letter can be sent again; this webhook is delivered, or will be tried by itself.")
        audit.record(AuditEvent.Action.CHANGED, webhook, {"status": (Webhook.Status.DEAD, Webhook.Status.PENDING)})
        transaction.on_commit(lambda: webhooks_due.send_robust(Webhook))
    webhook.refresh_from_db()
