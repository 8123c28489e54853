"""Channels of alerts: kept, opened and tried out. What admin, REST and the shell share."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction

from core.secrets import CannotOpen
from telling import callbacks
from telling.alert_models import AlertChannel, AlertRule
from telling.carrier import Carrier
from telling.channels.base import Channel, Message, Target
from telling.channels.registry import CHANNELS
from telling.outcome import Outcome

MAX_SECRET_CHARACTERS = 500
_LABELS = {"url": "an address", "secret": "a secret", "recipients": "recipients"}  # nosec B105 (names of fields)
_SEALED = ("url", "secret")  # nosec B105 (names of fields)


class Receiver(NamedTuple):
    """A channel that is ready to be told something."""

    channel: Channel
    target: Target


class Tried(NamedTuple):
    """What a test message came to."""

    channel: AlertChannel
    ok: bool
    sentence: str


def save_channel(row: AlertChannel, *, url: str | None = None, secret: str | None = None, awaited: bool = False) -> AlertChannel:
    """Adds or changes a channel whose other fields are set on `row`. `url`, `secret` None: as they are. `awaited`: its address may be
    entered later, and until then nothing is sent to it. Raises ValidationError."""
    kept = Target() if row._state.adding else _kept(row, url)
    target = Target(
        url=(kept.url if url is None else url).strip(),
        secret=(kept.secret if secret is None else secret).strip(),
        recipients=_recipients(row),
    )
    # `sealed` is set below; it can be neither sent nor wrong.
    row.full_clean(exclude=["sealed"])
    _check(row.kind, target, awaited=awaited and not target.url)
    row.shown_address = _shown(target)
    row.seal(msgspec.json.encode({"url": target.url, "secret": target.secret}).decode())
    with transaction.atomic():
        row.save()
    return row


def receiver_of(channel_id: Any) -> Receiver:
    """Raises core.secrets.CannotOpen, AlertChannel.DoesNotExist."""
    return _receiver(AlertChannel.objects.get(pk=channel_id))


def try_rule(rule: AlertRule) -> list[Tried]:
    """A test message to each of its channels, one after the other, switched off or not."""
    return [try_channel(row, rule) for row in rule.channels.all()]


def try_channel(row: AlertChannel, rule: AlertRule | None = None) -> Tried:
    """Really sends a message that says that it is a test, once, and waits for what comes back. Raises nothing a receiver can cause."""
    if not row.shown_address:
        return Tried(row, False, "It has no address yet: enter it, and try again.")
    now = time.time()
    message = Message(
        event="test",
        rule=rule.name if rule else "Test",
        condition=rule.condition if rule else "",
        about=f"channel {row.name}",
        sentence="This is a test: nothing is the matter, and nothing needs to be done.",
        at=now,
    )
    try:
        outcome = asyncio.run(_send(_receiver(row), message, f"msg_test_{row.pk.hex}_{int(now * 1000)}"))
    except CannotOpen as error:
        return Tried(row, False, str(error))
    return Tried(row, not outcome.error, _said(row, outcome))


async def _send(receiver: Receiver, message: Message, message_id: str) -> Outcome:
    carrier = Carrier(settings.WEBHOOK_ALLOW, settings.WEBHOOK_TIMEOUT_S, time.time)
    try:
        return await receiver.channel.send(receiver.target, message, message_id, carrier)
    finally:
        await carrier.close()


def _said(row: AlertChannel, outcome: Outcome) -> str:
    if outcome.error:
        return outcome.error
    if row.kind == "email":
        return f"The mail server took it for {', '.join(_recipients(row))}; whether it arrives, their mailboxes say."
    return f"{CHANNELS[row.kind].label} took it: it answered {outcome.status_code} after {outcome.duration_s * 1000:.0f} ms."


def _receiver(row: AlertChannel) -> Receiver:
    return Receiver(CHANNELS[row.kind], _opened(row))


def _kept(row: AlertChannel, url: str | None) -> Target:
    """What cannot be opened any more is no hindrance to a new address. Raises ValidationError."""
    try:
        return _opened(row)
    except CannotOpen as error:
        if url is None and row.kind != "email":
            raise ValidationError({"url": f"{error} Enter address and secret again."}) from None
        return Target()


def _opened(row: AlertChannel) -> Target:
    """Raises CannotOpen."""
    kept = msgspec.json.decode(row.open().reveal(), type=dict[str, str])
    return Target(url=kept.get("url", ""), secret=kept.get("secret", ""), recipients=_recipients(row))


def _recipients(row: AlertChannel) -> tuple[str, ...]:
    return tuple(line.strip() for line in row.recipients.splitlines() if line.strip())


def _check(kind: str, target: Target, *, awaited: bool) -> None:
    """`awaited`: address and secret may be missing yet. Raises ValidationError."""
    channel, given = CHANNELS[kind], {"url": target.url, "secret": target.secret, "recipients": target.recipients}
    for name, value in given.items():
        if value and name not in channel.fields:
            raise ValidationError({name: f"{channel.label} has no use for {_LABELS[name]}; leave it empty."})
        if not value and channel.fields.get(name) and not (awaited and name in _SEALED):
            raise ValidationError({name: f"{channel.label} needs {_LABELS[name]}."})
    if len(target.secret) > MAX_SECRET_CHARACTERS:
        raise ValidationError({"secret": f"A secret has at most {MAX_SECRET_CHARACTERS} characters."})
    if target.url:
        _check_address(target.url)
    if not (awaited and "url" in channel.fields) and (problem := channel.problem(target)):
        raise ValidationError(dict([problem]))


def _check_address(url: str) -> None:
    try:
        callbacks.check(url, settings.WEBHOOK_ALLOW)
    except callbacks.CallbackRefused as refused:
        raise ValidationError({"url": refused.message.replace("callback_url", "This address")}) from None


def _shown(target: Target) -> str:
    """Scheme and host: path and query of a chat's robot are its password."""
    if not target.url:
        return ", ".join(target.recipients)[:300]
    parsed = urlsplit(target.url)
    return f"{parsed.scheme}://{callbacks.host_of(target.url)}/…"[:300]
