"""The log of events behind `WS /ws`: rows whose order is that of their commits, so that whoever has read up to a number has missed none."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.db import connection, transaction
from django.db.models import Max, Min, TextField
from django.db.models.functions import Cast

from access.models import ApiKey
from core.config import BudgetSpec
from monitoring.signals import breakers_changed, budget_reached
from tasks.models import Task
from tasks.signals import changed
from telling import topics
from telling.models import Event

log = logging.getLogger(__name__)
_LOCK = 0x6C6C6D65  # any number that nobody else takes
_PRUNED_AT_ONCE = 5_000


class Told(msgspec.Struct, frozen=True):
    """An event as sockets get it."""

    seq: int
    topics: frozenset[str]
    text: bytes  # once for all who hear of it


class _Text(msgspec.Struct):
    seq: int
    type: str
    at: datetime
    data: msgspec.Raw


_encoder = msgspec.json.Encoder()
_topics = msgspec.json.Decoder(frozenset[str])


def listen() -> None:
    changed.connect(_on_tasks, dispatch_uid="telling.events")
    breakers_changed.connect(_on_breakers, dispatch_uid="telling.events")
    budget_reached.connect(_on_budget, dispatch_uid="telling.events")


def add(events: Iterable[Event]) -> None:
    """As the last statement of a transaction, where possible: on PostgreSQL numbers are given out under a lock that is held until the
    commit, or a lower number could appear after a higher one was read. SQLite has one writer anyway."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        Event.objects.bulk_create(events)


def _on_tasks(tasks: Sequence[Task], **signal: Any) -> None:
    now = datetime.now(UTC)
    add(Event(type="task", topics=_topics_of(task), data={"task_id": task.public_id, "status": task.status}, at=now) for task in tasks)


def _topics_of(task: Task) -> list[str]:
    own = f"task.key.{task.key_id}" if task.key_id else f"task.user.{task.user_id}"
    return [topics.ALL_TASKS, own]


def _on_breakers(process: str, provider_id: str, provider: str, open: Sequence[str], **signal: Any) -> None:
    data = {"provider_id": provider_id, "provider": provider, "process": process, "open_breakers": list(open)}
    add([Event(type="provider", topics=[topics.ALL_PROVIDERS], data=data, at=datetime.now(UTC))])


def _on_budget(budget: BudgetSpec, percent: int, spent: int, **signal: Any) -> None:
    who = [topics.ALL_ALERTS]
    if budget.scope == "team":
        who.append(f"alert.team.{budget.holder}")
    elif budget.scope == "key":
        teams = ApiKey.objects.filter(pk=budget.holder).values_list("team_id", flat=True)
        who += [f"alert.key.{budget.holder}", *(f"alert.team.{team}" for team in teams)]
    units = {"kind": budget.kind, "currency": budget.currency, "limit": budget.limit, "spent": spent}
    data = {"alert": "budget", "budget_id": budget.id, "budget": budget.name, "percent": percent, **units}
    add([Event(type="alert", topics=who, data=data, at=datetime.now(UTC))])


def held() -> tuple[int, int]:
    """The lowest and the highest number there is; (0, 0) where there is none."""
    found = Event.objects.aggregate(low=Min("seq"), high=Max("seq"))
    return found["low"] or 0, found["high"] or 0


def after(seq: int, most: int, up_to: int | None = None) -> list[Told]:
    """Many a second at times, in each process: no objects are made of rows, and JSON stays the text that the database has."""
    found = Event.objects.filter(seq__gt=seq).order_by("seq")
    if up_to is not None:
        found = found.filter(seq__lte=up_to)
    columns = found.values_list("seq", "type", *(Cast(name, TextField()) for name in ("at", "data", "topics")))
    return [_told(*row) for row in columns[:most]]


def _told(seq: int, type: str, at: str, data: str, topics: str) -> Told:
    moment = datetime.fromisoformat(at)
    if moment.tzinfo is None:  # SQLite's are UTC and do not say so
        moment = moment.replace(tzinfo=UTC)
    return Told(seq, _topics.decode(topics), _encoder.encode(_Text(seq, type, moment, msgspec.Raw(data.encode()))))


def prune(now: datetime, keep_s: float) -> int:
    """Removes what is older, thousands at a time; the newest stays, so that numbers go on. Returns how many."""
    _, newest = held()
    old = Event.objects.filter(at__lt=now - timedelta(seconds=keep_s), seq__lt=newest).order_by("seq")
    ids = list(old.values_list("pk", flat=True)[:_PRUNED_AT_ONCE])
    if ids:
        Event.objects.filter(pk__lte=ids[-1], pk__gte=ids[0]).delete()
    return len(ids)
