"""Webhooks as the database keeps them: claims, leases, outcomes. Time and chance are handed in."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.db import connection, transaction
from django.db.models import F, Min, QuerySet

from telling.models import Webhook, WebhookTry
from telling.outcome import Outcome
from telling.signals import webhook_dead

# After the first failure, the second, …: ten tries take about eleven hours.
WAITS_S = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 10_800.0, 21_600.0)
MAX_TRIES = len(WAITS_S) + 1
LONGEST_WAIT_S = WAITS_S[-1]
_PRUNED_AT_ONCE = 500
_LOCK = 0x6C6C6D77  # any number that nobody else takes


class Delivery(msgspec.Struct, frozen=True):
    """A claimed webhook. `tries`: those that have failed since it was added or sent again."""

    id: Any
    message_id: str
    team_id: Any
    url: str
    body: bytes
    tries: int
    fence: int
    host: str = ""
    channel_id: Any = None  # of an alert


def claim(most: int, per_host: int, now: float, lease_s: float) -> list[Delivery]:
    """Up to `most` that are due, for `lease_s`. Over all processes, at most `per_host` of one host are on lease."""
    if not _due(now).exists():  # a look that locks nothing
        return []
    with transaction.atomic():
        _one_at_a_time()
        rows = list(_with_room(most, per_host, now))
        for row in rows:
            row.fence, row.lease_until = row.fence + 1, now + lease_s
        Webhook.objects.bulk_update(rows, ["fence", "lease_until"])
    return [
        Delivery(row.pk, row.message_id, row.team_id, row.url, row.body.encode(), row.tries, row.fence, row.host, row.channel_id)
        for row in rows
    ]


def _due(now: float) -> QuerySet[Webhook]:
    return Webhook.objects.filter(status=Webhook.Status.PENDING, next_at__lte=now, lease_until__lte=now)


def _with_room(most: int, per_host: int, now: float) -> Iterator[Webhook]:
    """The longest due first, a host with many of them no more often than the others."""
    leased = Webhook.objects.filter(status=Webhook.Status.PENDING, lease_until__gt=now).order_by()
    running = Counter(leased.values_list("host", flat=True))
    full = [host for host, count in running.items() if count >= per_host]
    hosts = _due(now).exclude(host__in=full).order_by().values("host").annotate(first=Min("next_at")).order_by("first")
    for host in hosts[:most].values_list("host", flat=True):
        room = min(most, per_host - running[host])
        for row in _due(now).filter(host=host).order_by("next_at")[:room]:
            yield row
            most -= 1
        if most <= 0:
            return


def _one_at_a_time() -> None:
    """SQLite has one writer; on PostgreSQL two processes that count at once would both find room."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def settle(delivery: Delivery, outcome: Outcome, now: float, max_tries: int, rng: random.Random) -> bool:
    """Writes what came of a try. False: somebody else has claimed it since, and nothing was written."""
    tries = delivery.tries + 1
    values: dict[str, Any] = {"tries": tries, "lease_until": 0, "last_status": outcome.status_code, "last_error": outcome.error[:300]}
    if not outcome.error:
        values |= {"status": Webhook.Status.DELIVERED, "ended_at": _moment(now)}
    elif outcome.final or tries >= max_tries:
        values |= {"status": Webhook.Status.DEAD, "ended_at": _moment(now)}
    else:
        values["next_at"] = now + max(wait_s(tries, rng), min(outcome.wait_s, LONGEST_WAIT_S))
    with transaction.atomic():
        ours = Webhook.objects.filter(pk=delivery.id, fence=delivery.fence, status=Webhook.Status.PENDING)
        if not ours.update(**values):
            return False
        WebhookTry.objects.create(
            webhook_id=delivery.id,
            number=WebhookTry.objects.filter(webhook_id=delivery.id).count() + 1,
            at=_moment(now),
            duration_ms=round(outcome.duration_s * 1000),
            status_code=outcome.status_code,
            error=outcome.error[:300],
        )
    if values.get("status") == Webhook.Status.DEAD:
        webhook_dead.send_robust(Webhook, webhook=Webhook.objects.get(pk=delivery.id))
    return True


def wait_s(tries: int, rng: random.Random) -> float:
    """After so many failures: up to a fifth less than the table says, so that what failed together does not come back together."""
    return WAITS_S[min(tries, len(WAITS_S)) - 1] * rng.uniform(0.8, 1.0)


def release(deliveries: Sequence[Delivery]) -> None:
    """What a process that stops has not finished: it may have arrived, and is sent again with the same id."""
    for each in deliveries:
        Webhook.objects.filter(pk=each.id, fence=each.fence).update(lease_until=0, fence=F("fence") + 1)


def prune(now: float, keep_days: int) -> int:
    """Removes what ended longer ago than that, some hundreds at a time. Returns how many."""
    old = Webhook.objects.filter(ended_at__lt=_moment(now - keep_days * 86_400)).order_by()
    ids = list(old.values_list("pk", flat=True)[:_PRUNED_AT_ONCE])
    if ids:
        Webhook.objects.filter(pk__in=ids).delete()
    return len(ids)


def _moment(wall_s: float) -> datetime:
    return datetime.fromtimestamp(wall_s, UTC)
