"""Rules are judged, alerts fire and end. Of all processes and machines one does so at a time, and the database decides which:

- the turn: a conditional update of one row; whoever changed it looks, the others do nothing;
- the alert: a unique constraint lets one process open it, a conditional update lets one close it. What channels and sockets are told
  is written in the same transaction: once for each, whoever else looks at the same time.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec
from django.db import IntegrityError, transaction

from telling import events, topics
from telling.alert_models import Alert, AlertChannel, AlertRule, AlertTurn, JournalBacklog
from telling.alerts import conditions, samples
from telling.alerts.conditions import NotKnown, Reading
from telling.alerts.kinds import KINDS
from telling.alerts.moment import Moment
from telling.channels.base import Message
from telling.models import Event, Webhook
from telling.signals import webhooks_due

MAX_RULES, MAX_SUBJECTS = 500, 200
_PRUNED_AT_ONCE = 500


def take_turn(now: float, interval_s: float) -> bool:
    """Whether it is this process that looks. Raises DatabaseError."""
    due = AlertTurn.objects.filter(pk=1, next_at__lte=now)
    if not due.exists():  # a look that locks nothing
        if AlertTurn.objects.filter(pk=1).exists():
            return False
        AlertTurn.objects.bulk_create([AlertTurn(pk=1)], ignore_conflicts=True)
    return bool(due.update(next_at=now + interval_s))


def look(now: float) -> None:
    """Judges every rule. Raises DatabaseError."""
    samples.take(now)
    moment = Moment(now)
    for rule in AlertRule.objects.filter(is_active=True).order_by("pk")[:MAX_RULES]:
        judge(rule, moment)
    for alert in Alert.objects.filter(resolved_at=None).exclude(rule__is_active=True).select_related("rule")[:MAX_SUBJECTS]:
        resolve(alert, moment, "Its rule was switched off or deleted.")


def judge(rule: AlertRule, moment: Moment) -> None:
    """Fires what is newly beyond the rule's threshold, and ends what is no longer. Raises DatabaseError."""
    try:
        beyond = conditions.read(rule, moment)
    except NotKnown:
        return
    firing = {alert.subject: alert for alert in Alert.objects.filter(rule=rule, resolved_at=None)}
    for subject, reading in list(beyond.items())[:MAX_SUBJECTS]:
        if (alert := firing.get(subject)) is None:
            fire(rule, reading, moment)
        else:
            values = {"value": float(reading.value), "sentence": reading.sentence[:500], "seen_at": moment.at}
            Alert.objects.filter(pk=alert.pk, resolved_at=None).update(**values)
    # A state that comes and goes, as a breaker's does while a vendor recovers, is one alert.
    quiet = timedelta(seconds=rule.window_s if _waits(rule) else 0)
    for alert in firing.values():
        if alert.subject not in beyond and moment.at - alert.seen_at >= quiet:
            resolve(alert, moment, "It is over.")


def _waits(rule: AlertRule) -> bool:
    """A budget goes back only where it renews or somebody gives more."""
    return KINDS[rule.condition].states and rule.condition != "budget"


def fire(rule: AlertRule, reading: Reading, moment: Moment) -> bool:
    """False: another process has done so. Raises DatabaseError."""
    alert = Alert(
        rule=rule,
        rule_name=rule.name,
        condition=rule.condition,
        subject=reading.subject[:200],
        label=reading.about[:300],
        value=float(reading.value),
        sentence=reading.sentence[:500],
        started_at=moment.at,
        seen_at=moment.at,
    )
    try:
        with transaction.atomic():
            alert.save(force_insert=True)
            _tell(alert, "firing", moment, alert.sentence)
    except IntegrityError:
        return False
    return True


def resolve(alert: Alert, moment: Moment, why: str) -> bool:
    """False: another process has done so. Raises DatabaseError."""
    with transaction.atomic():
        if not Alert.objects.filter(pk=alert.pk, resolved_at=None).update(resolved_at=moment.at):
            return False
        lasted = str(timedelta(seconds=round((moment.at - alert.started_at).total_seconds())))
        _tell(alert, "resolved", moment, f"{why} It had lasted {lasted}. Then: {alert.sentence}"[:500])
    return True


def _tell(alert: Alert, event: str, moment: Moment, sentence: str) -> None:
    """Inside the transaction that fires or ends it."""
    rule = alert.rule
    message = Message(
        event=event,
        rule=alert.rule_name,
        condition=alert.condition,
        about=alert.label,
        sentence=sentence,
        at=moment.now,
        value=alert.value,
        threshold=float(rule.threshold) if rule else 0.0,
        unit=KINDS[alert.condition].unit,
    )
    body = msgspec.json.encode(message).decode()
    # One without an address is yet to be completed: see alert_services.save_channel.
    channels = AlertChannel.objects.filter(rules=rule, is_active=True).exclude(shown_address="") if rule else AlertChannel.objects.none()
    rows = [_webhook(channel, f"alert.{event}", body, moment) for channel in channels]
    Webhook.objects.bulk_create(rows)
    if rows:
        transaction.on_commit(lambda: webhooks_due.send_robust(Webhook))
    told = {"alert": "rule", "alert_id": alert.pk, "state": event, "rule": alert.rule_name, "condition": alert.condition}
    data = {**told, "about": alert.label, "value": alert.value, "sentence": sentence}
    events.add([Event(type="alert", topics=[topics.ALL_RULE_ALERTS], data=data, at=moment.at)])


def _webhook(channel: AlertChannel, event_type: str, body: str, moment: Moment) -> Webhook:
    return Webhook(
        channel=channel,
        event_type=event_type,
        url=channel.shown_address,
        # E-mail goes to one server, whomever it is for.
        host="mail" if channel.kind == "email" else channel.shown_address,
        body=body,
        next_at=moment.now,
        created_at=moment.at,
    )


def say_backlog(process: str, waiting_bytes: int, now: float) -> None:
    """What `process` says of its own journal; 0 = all is well, and nothing needs to be kept of it. Raises DatabaseError."""
    if waiting_bytes:
        JournalBacklog.objects.update_or_create(process=process, defaults={"waiting_bytes": waiting_bytes, "updated_at": now})
    else:
        JournalBacklog.objects.filter(process=process).delete()


def prune(now: float, keep_days: int) -> int:
    """Removes alerts that ended longer ago than that, and what dead processes have said. Returns how many alerts."""
    moment = Moment(now)
    JournalBacklog.objects.filter(updated_at__lt=now - conditions.BACKLOG_SAID_FOR_S).delete()
    ids = list(Alert.objects.filter(resolved_at__lt=moment.at - timedelta(days=keep_days)).values_list("pk", flat=True)[:_PRUNED_AT_ONCE])
    if ids:
        Alert.objects.filter(pk__in=ids).delete()
    return len(ids)
