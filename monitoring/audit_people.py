"""Logins, logouts and refusals in the trail. Who knocks often is recorded a few times a minute, with the number of those left out."""

from __future__ import annotations

import logging
import threading
from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import Error

from core.clock import Clock, SystemClock
from monitoring import audit, audit_context
from monitoring.models import AuditEvent
from monitoring.threads import in_one_line

log = logging.getLogger(__name__)
Action = AuditEvent.Action

_MINUTE_S = 60.0
# All addresses together: a crowd must not fill the trail either.
_ADDRESSES = 20


class Sampler:
    """`per_minute` of each address, and _ADDRESSES times that of all. Of one process; in memory."""

    def __init__(self, per_minute: int, clock: Clock = SystemClock()) -> None:  # noqa: B008  (has no state)
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._minute = -1
        self._taken: dict[str, int] = {}
        self._left_out = 0

    def take(self, address: str) -> int | None:
        """None = leave it out; else how many were left out since the last one that was not."""
        with self._lock:
            minute = int(self._clock.monotonic() / _MINUTE_S)
            if minute != self._minute:
                self._minute, self._taken = minute, {}
            mine = self._taken.get(address, 0)
            if mine >= self._per_minute or sum(self._taken.values()) >= self._per_minute * _ADDRESSES:
                self._left_out += 1
                return None
            self._taken[address] = mine + 1
            left_out, self._left_out = self._left_out, 0
            return left_out


_sampler: Sampler | None = None


def watch() -> None:
    """Receives Django's signals from now on."""
    user_logged_in.connect(_logged_in, dispatch_uid="audit")
    user_logged_out.connect(_logged_out, dispatch_uid="audit")
    user_login_failed.connect(_login_failed, dispatch_uid="audit")


def record_refusal(action: str, what: str, status: int) -> None:
    """What was refused has changed nothing, so it stays refused where the trail cannot be written. Never raises."""
    try:
        _record_sampled(action, {"request": (None, audit.one_line(what, 500)), "status": (None, status)})
    except Error as exc:
        log.error("a refusal could not be recorded (%s)", in_one_line(exc))


def _record_sampled(action: str, changes: dict[str, Any]) -> None:
    global _sampler
    if _sampler is None:
        _sampler = Sampler(settings.AUDIT_REFUSALS_PER_MINUTE)
    left_out = _sampler.take(audit_context.current()().address)
    if left_out is None:
        return
    if left_out:
        changes["left_out"] = (None, left_out)
    audit.record(action, changes=changes)


def _logged_in(sender: Any, request: Any, user: Any, **signal: Any) -> None:
    audit.record(Action.LOGIN, user)


def _logged_out(sender: Any, request: Any, user: Any, **signal: Any) -> None:
    if user is not None:
        audit.record(Action.LOGOUT, user)


def _login_failed(sender: Any, credentials: dict[str, Any], **signal: Any) -> None:
    """With the name that was typed: never the password, though people do type that in the wrong field, so no more than a user name has."""
    name = audit.one_line(str(credentials.get("username", "")), 150)
    _record_sampled(Action.LOGIN_FAILED, {"username": (None, name)})
