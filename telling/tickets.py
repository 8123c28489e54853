"""Tickets of browsers and scripts for one socket: no cookie and no token of a person has to be shown to it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import msgspec
from django.conf import settings
from django.contrib.auth import get_user_model

from access.models import PersonalToken
from access.services import digest_of
from core.errors import NotAuthenticated
from telling import topics
from telling.models import SocketTicket

TTL_S = 30
_REFUSAL = "The ticket is unknown, used or too old; ask POST /api/v1/ws-ticket for another."
_ENDED = "The token or session that this socket was opened with has ended."


class Holder(msgspec.Struct, frozen=True):
    """A person on a socket."""

    user_id: Any
    token_id: Any = None
    session_key: str = ""


def make(user: Any, *, token: PersonalToken | None, session_key: str) -> str:
    """Raises ValueError where neither a token nor a session would end it."""
    if token is None and not session_key:
        raise ValueError("a ticket lasts as long as a token or a session")
    now, ticket = datetime.now(UTC), secrets.token_urlsafe(24)
    SocketTicket.objects.filter(expires_at__lt=now).delete()
    expires_at = now + timedelta(seconds=TTL_S)
    SocketTicket.objects.create(digest=digest_of(ticket), user=user, token=token, session_key=session_key, expires_at=expires_at)
    return ticket


def redeem(ticket: str) -> Holder:
    """Once. Raises NotAuthenticated."""
    row = SocketTicket.objects.filter(digest=digest_of(ticket), expires_at__gt=datetime.now(UTC)).first()
    # Of two who come at once, one deletes it.
    if row is None or not SocketTicket.objects.filter(pk=bytes(row.digest)).delete()[0]:
        raise NotAuthenticated(_REFUSAL)
    return Holder(row.user_id, row.token_id, row.session_key)


def topics_of(holder: Holder) -> frozenset[str]:
    """What that person may hear now. Raises NotAuthenticated once the user, token or session is gone."""
    user = get_user_model().objects.filter(pk=holder.user_id, is_active=True).first()
    if user is None or not _lasts(holder):
        raise NotAuthenticated(_ENDED)
    return topics.of_person(user)


def _lasts(holder: Holder) -> bool:
    if holder.token_id is None:
        return bool(import_module(settings.SESSION_ENGINE).SessionStore().exists(holder.session_key))
    token = PersonalToken.objects.filter(pk=holder.token_id, revoked_at=None).first()
    return token is not None and (token.expires_at is None or token.expires_at > datetime.now(UTC))
