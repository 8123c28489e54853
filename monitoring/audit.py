"""Recording what happened, in the transaction in which it happens: `record`, and the one place that writes rows of the trail.

What is recorded waits until the transaction is about to end, and is then written as its last statement. So the lock that puts all
writers of the chain in a row is taken last and never held while another lock is waited for; and what was rolled back to a savepoint
is not told. Where the trail cannot be written, the transaction is rolled back: a change that nobody could trace does not happen.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, OperationalError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone, translation

from monitoring import audit_chain, audit_context
from monitoring.audit_chain import GENESIS, Keys, Row
from monitoring.models import AuditEvent

log = logging.getLogger(__name__)

Changes = Mapping[str, tuple[Any, Any]]

_LOCK = 0x6C6C6D61  # any number that nobody else takes
_ROWS_PER_INSERT = 200


class AuditUnavailable(OperationalError):
    """The trail could not be written, and so the change was not made. `__cause__` is what the driver said, as of other errors."""


@lru_cache(maxsize=1)
def keys() -> Keys:
    return Keys.derived(settings.AUDIT_KEY)


def record(action: str, row: models.Model | None = None, changes: Changes | None = None, *, using: str = DEFAULT_DB_ALIAS) -> None:
    """Notes that `action` was done with `row`, in the transaction that is open, or one of its own. Raises AuditUnavailable when that ends.

    `changes`: field → (before, after), fit for JSON and free of secrets.
    """
    named = ("", "", "") if row is None else (row._meta.label, str(row.pk), label_of(row))
    note(Event(action, named, changes or {}), using)


def label_of(row: models.Model) -> str:
    """What people know it by."""
    try:
        with translation.override(settings.LANGUAGE_CODE):  # whoever did it reads it in
            return str(row)
    except Exception:  # a row that came past the forms may not even have a name
        return f"{row._meta.verbose_name} {row.pk}"


class Event:
    """What will be a row when its transaction ends. It waits among Django's `on_commit` callbacks, which forget what is rolled back."""

    def __init__(self, action: str, named: tuple[str, str, str], changes: Changes) -> None:
        self.action = action
        self.named = named
        self.changes = changes
        self.actor = audit_context.current()
        self.written = False
        self.head: Row | None = None

    def __call__(self) -> None:
        """After the commit: the last row of a transaction is told to the second sink."""
        if self.head is not None:
            from monitoring.audit_checkpoints import write

            write(self.head)


def note(event: Event, using: str) -> None:
    with transaction.atomic(using=using, savepoint=False):
        connections[using].on_commit(event, robust=True)


def one_line(text: str, limit: int) -> str:
    """Printable characters only: no line break, escape sequence or surrogate reaches a log or a terminal from here."""
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)[:limit]


def write_waiting(connection: BaseDatabaseWrapper) -> None:
    """Writes what the open transaction has recorded. Raises AuditUnavailable."""
    callbacks: list[Any] = connection.run_on_commit
    waiting = [event for _, event, _ in callbacks if isinstance(event, Event) and not event.written]
    if not waiting:
        return
    try:
        _append(connection, waiting)
    except DatabaseError as exc:
        log.error("the audit trail cannot be written, so a change was refused: %s", exc)
        sentence = f"The audit trail cannot be written ({type(exc).__name__}), so nothing was changed."
        raise AuditUnavailable(sentence) from (exc.__cause__ or exc)


def _row(event: Event, actor: audit_context.Actor) -> Row:
    """Without its place in the chain."""
    object_type, object_id, label = event.named
    return Row(
        sequence=0,
        at="",
        actor_id=actor.user_id[: _most("actor_id")],
        actor=one_line(actor.name, _most("actor")),
        source=actor.source,
        address=one_line(actor.address, _most("address")),
        request_id=one_line(actor.request_id, _most("request_id")),
        action=event.action,
        object_type=object_type,
        object_id=one_line(object_id, _most("object_id")),
        object_label=one_line(label, _most("object_label")),
        changes=json.dumps(event.changes, ensure_ascii=True, separators=(",", ":"), default=str),
        prev="",
        hash="",
    )


@lru_cache
def _most(column: str) -> int:
    """Characters."""
    field = AuditEvent._meta.get_field(column)
    assert isinstance(field, models.CharField)
    assert field.max_length
    return field.max_length


def _append(connection: BaseDatabaseWrapper, waiting: list[Event]) -> None:
    rows = AuditEvent.objects.using(connection.alias)
    # Before the lock: who is asking may have to be read from the database.
    actors = [event.actor() for event in waiting]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    last = rows.order_by("-sequence").values_list("sequence", "hash").first()
    sequence, prev = last or (0, GENESIS)
    now, new = timezone.now(), []
    for number, (event, actor) in enumerate(zip(waiting, actors, strict=True), sequence + 1):
        row = _row(event, actor)._replace(sequence=number, at=audit_chain.written_moment(now), prev=prev)
        row = row._replace(hash=audit_chain.link(keys().chain, row))
        prev = row.hash
        new.append(row)
    rows.bulk_create([AuditEvent(**{**row._asdict(), "at": now}) for row in new], batch_size=_ROWS_PER_INSERT)
    for event in waiting:
        event.written = True
    waiting[-1].head = new[-1]
