"""Passwords, and what guessing them costs.

Tries are counted by user name and address, and more loosely by address alone, in the database: so all processes count together. The
count goes up before the password is looked at, so that many tries at once are no way round it. A name that does not exist
is counted, delayed and answered as one that does.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from unfold.forms import AuthenticationForm

from access.models import LoginTries
from core.addresses import client_address, party

# An address may stand for an office: it has so many times the tries that one name has from it.
NAMES_OF_ADDRESS = 10
_FIRST_DELAY_S = 2.0
_MAX_DELAY_S = 900.0
_FORGOTTEN_AFTER = timedelta(days=1)
_MAX_ROWS = 100_000


class _Count(NamedTuple):
    digest: bytes
    free: int


def delay_s(tries: int, free: int) -> float:
    """How long after so many tries in vain the next one has to wait: 0 for the first ones, then doubling to a quarter of an hour."""
    return 0.0 if tries < free else min(_MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(tries - free, 30))


def take(username: str, address: str, now: datetime) -> float:
    """Counts a try. Returns the seconds it came too early, 0 = it may go on: then `forget` it if it was no guess."""
    with transaction.atomic():
        counts = [(count, _row(count.digest, now)) for count in _counts(username, address)]
        early_s = max((row.blocked_until - now).total_seconds() for _, row in counts)
        if early_s > 0:
            return early_s
        for count, row in counts:
            row.tries += 1
            row.last_at, row.blocked_until = now, now + timedelta(seconds=delay_s(row.tries, count.free))
            row.save()
    return 0.0


def forget(username: str, address: str) -> None:
    """The password was right. The address keeps its count less this try: one right guess must not pay for many wrong ones."""
    of_name, of_address = _counts(username, address)
    with transaction.atomic():
        LoginTries.objects.filter(digest=of_name.digest).delete()
        row = LoginTries.objects.select_for_update().filter(digest=of_address.digest).first()
        if row is not None:
            row.tries, row.blocked_until = max(0, row.tries - 1), row.last_at
            row.save()


def _row(digest: bytes, now: datetime) -> LoginTries:
    row = LoginTries.objects.select_for_update().filter(digest=digest).first()
    if row is not None and row.last_at > now - _FORGOTTEN_AFTER:
        return row
    if row is None:
        _make_room(now)
        LoginTries.objects.bulk_create([LoginTries(digest=digest, last_at=now, blocked_until=now)], ignore_conflicts=True)
        return LoginTries.objects.select_for_update().get(digest=digest)
    row.tries, row.blocked_until = 0, now
    return row


def _make_room(now: datetime) -> None:
    """What is forgotten goes; and beyond the bound, what was tried longest ago."""
    LoginTries.objects.filter(last_at__lte=now - _FORGOTTEN_AFTER).delete()
    oldest = LoginTries.objects.order_by("-last_at").values_list("last_at", flat=True)[_MAX_ROWS - 1 : _MAX_ROWS].first()
    if oldest is not None:
        LoginTries.objects.filter(last_at__lte=oldest).delete()


def _counts(username: str, address: str) -> tuple[_Count, _Count]:
    """Digests, so that no list of names and addresses comes about. Names differ by case for Django, not for whoever guesses."""
    of_name, of_address = _digest("name", username.lower(), address), _digest("address", address)
    return _Count(of_name, settings.LOGIN_TRIES), _Count(of_address, settings.LOGIN_TRIES * NAMES_OF_ADDRESS)


def _digest(*parts: str) -> bytes:
    return hmac.digest(settings.API_KEY_PEPPER, "\0".join(("login", *parts)).encode(errors="replace"), "sha256")


def address_of(request: HttpRequest) -> str:
    """The client's, behind proxies that are trusted; of IPv6 the /64 that is one customer's."""
    peer, forwarded = request.META.get("REMOTE_ADDR", ""), request.META.get("HTTP_X_FORWARDED_FOR", "")
    return party(client_address(peer, forwarded, settings.TRUSTED_PROXIES))


class ThrottledBackend(ModelBackend):
    """Django's own, each try of a password counted first. What is not a request from outside (a shell, a test) is not counted."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if request is None or username is None or password is None:
            return super().authenticate(request, username, password, **kwargs)
        address = address_of(request)
        request.login_wait_s = take(username, address, timezone.now())  # type: ignore[attr-defined]
        if request.login_wait_s > 0:  # type: ignore[attr-defined]
            raise PermissionDenied("too many tries")  # which Django takes for a no, and asks no other backend
        user = super().authenticate(request, username, password, **kwargs)
        if user is not None:
            forget(username, address)
        return user


class LoginForm(AuthenticationForm):
    """Says how long to wait, where that is why nobody was let in."""

    def clean(self) -> dict[str, Any]:
        try:
            return super().clean()
        except ValidationError:
            wait_s = getattr(self.request, "login_wait_s", 0.0)
            if wait_s <= 0:
                raise
            seconds = f"{max(1, round(wait_s))} second{'' if round(wait_s) <= 1 else 's'}"
            raise ValidationError(f"Too many tries with this user name: wait {seconds}, then try again.", code="throttled") from None
