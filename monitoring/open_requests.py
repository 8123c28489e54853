"""Requests that have begun and not ended, for whoever watches: each process says which ones it has, while somebody wants to know.

It is the drainer that says so, of what it reads in the journal anyway: nothing on the way of a request knows of it. So a request is
under way from the opening of its first attempt on, and what still waits for a place is not told. While nobody watches nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db import Error, transaction
from django.db.models import Q, QuerySet

from core.clock import Clock
from monitoring.models import OpenRequest, OpenRequestsWanted
from monitoring.pairing import Unfinished

MOST: Final = 200  # of a process, the longest ones
EVERY_S: Final = 1.0
# What a process said longer ago is of one that died with its machine, or cannot write.
_LAPSES_AFTER = timedelta(seconds=15)
_GONE_AFTER = timedelta(hours=1)
_WANTED_FOR = timedelta(seconds=30)


def want(now: datetime) -> None:
    """Somebody watches. Where that cannot be written, they see what has ended, as before."""
    with suppress(Error):
        if not OpenRequestsWanted.objects.filter(until__gt=now + _WANTED_FOR / 2).exists():
            OpenRequestsWanted.objects.update_or_create(pk=1, defaults={"until": now + _WANTED_FOR})


def told(now: datetime) -> QuerySet[OpenRequest]:
    """What processes have said of late. Some may have ended since."""
    return OpenRequest.objects.filter(told_at__gt=now - _LAPSES_AFTER)


def forget(token: str) -> None:
    """Its process is no more. Raises DatabaseError."""
    OpenRequest.objects.filter(token=token).delete()


class Teller:
    """One per process, in the drainer's thread."""

    def __init__(self, token: str, clock: Clock) -> None:
        self._token = token
        self._clock = clock
        self._told = False
        self._again_s = clock.monotonic()

    def step(self, unfinished: Sequence[Unfinished]) -> None:
        """Says which requests are under way, at intervals and while that is wanted. Raises DatabaseError."""
        if not unfinished:
            self._take_back()
        elif self._clock.monotonic() >= self._again_s:
            self._again_s = self._clock.monotonic() + EVERY_S
            now = _moment(self._clock.wall())
            if OpenRequestsWanted.objects.filter(until__gt=now).exists():
                self._tell(unfinished, now)
            else:
                self._take_back()

    def _tell(self, unfinished: Sequence[Unfinished], now: datetime) -> None:
        rows = [self._row(each, now) for each in unfinished]
        with transaction.atomic():
            OpenRequest.objects.filter(Q(token=self._token) | Q(told_at__lt=now - _GONE_AFTER)).delete()
            OpenRequest.objects.bulk_create(rows)
        self._told = True

    def _take_back(self) -> None:
        if self._told:
            forget(self._token)
            self._told = False

    def _row(self, unfinished: Unfinished, now: datetime) -> OpenRequest:
        opened = unfinished.opened
        return OpenRequest(
            token=self._token,
            told_at=now,
            request_id=opened.request_id,
            attempt=opened.attempt,
            started_at=_moment(unfinished.began_at),
            team_id=opened.team_id,
            team_name=opened.team_name,
            key_name=opened.key_name,
            alias=opened.alias,
            provider_name=opened.provider_name,
            streamed=opened.streamed,
            end_user=opened.end_user,
            tag=opened.tag,
        )


def _moment(wall_s: float) -> datetime:
    return datetime.fromtimestamp(wall_s, UTC)
