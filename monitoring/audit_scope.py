"""Which changes the audit trail records: those of every model, unless it stands here with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.db import models

EXEMPT = {
    "monitoring.AuditEvent": "the trail itself; triggers refuse every change to it",
    "monitoring.UsageRecord": "the ledger, written by the data plane and never edited",
    "monitoring.RequestLog": "the ledger, written by the data plane and never edited",
    "monitoring.RequestBody": "written by the data plane and never edited; that somebody read one is recorded",
    "monitoring.Rollup": "sums of the ledger",
    "monitoring.LabelRollup": "sums of the ledger",
    "monitoring.LedgerHour": "which ids of the ledger an hour has",
    "monitoring.OpenRequest": "which requests are under way, as gateway processes say while somebody watches",
    "monitoring.OpenRequestsWanted": "until when somebody watches",
    "monitoring.Pruned": "how far the ledger was pruned",
    "monitoring.BudgetAccount": "sums of the ledger",
    "monitoring.BudgetLease": "what gateway processes hold of a budget",
    "monitoring.BudgetEntry": "the ledger; a correction by a person is recorded by the service that makes it",
    "providers.ProviderState": "what gateway processes say every few seconds; the trail records breakers that open and close",
    "tasks.Task": "work that programs submit, with a history of its own",
    "tasks.TaskEvent": "that history",
    "telling.Webhook": "the outbox, written by the data plane; a person who sends one again is recorded by the service that does it",
    "telling.WebhookTry": "what came of each try, written by the data plane",
    "telling.Alert": "what rules found, kept as a history of its own; the rules are recorded",
    "telling.AlertTurn": "which process looks next",
    "telling.AlertSample": "sums of the ledger",
    "telling.JournalBacklog": "what gateway processes say of their journals",
    "telling.Event": "what sockets are told of changes that are on record elsewhere",
    "telling.SocketTicket": "opens one socket within seconds, and is gone then",
    "gateway_config.ConfigVersion": "a number that triggers raise with each recorded change",
    "access.LoginTries": "counts tries of passwords, at each login anew; logins, failed ones too, are recorded",
    "sessions.Session": "logins and logouts are recorded",
    "admin.LogEntry": "Django's own history of the admin, of which the trail has more",
    "contenttypes.ContentType": "written by `migrate` alone",
    "auth.Permission": "written by `migrate` alone; who is granted one is recorded",
}
# Set by the act that is recorded anyway.
_IGNORED = {"auth.User": {"last_login"}}
_SECRET_ENDINGS = ("password", "secret", "digest", "token")


def audited(model: type[models.Model]) -> bool:
    """Models of migrations are not: they speak of tables as they once were, before there was a trail too."""
    meta = model._meta
    return meta.apps is apps and meta.managed and meta.label not in EXEMPT


def recorded_fields(model: type[models.Model]) -> Iterable[models.Field[Any, Any]]:
    ignored = _IGNORED.get(model._meta.label, set())
    return [field for field in model._meta.concrete_fields if field.name not in ignored and not getattr(field, "auto_now", False)]


def is_secret(field: models.Field[Any, Any]) -> bool:
    """Bytes (sealed secrets, digests) and what is called a secret; a keyed hash stands for them."""
    return isinstance(field, models.BinaryField) or field.name.endswith(_SECRET_ENDINGS)


def owner_side(model: type[models.Model]) -> tuple[models.ManyToManyField[Any, Any], str, str] | None:
    """Of the table behind a many-to-many field: the field, and the columns of its owner and its targets. None for other models."""
    owner: Any = model._meta.auto_created
    if not owner:
        return None
    field = next(field for field in owner._meta.local_many_to_many if field.remote_field.through is model)
    return field, f"{field.m2m_field_name()}_id", f"{field.m2m_reverse_field_name()}_id"
