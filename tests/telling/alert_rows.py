"""Rules, channels and what is the matter, for the tests of alerts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from monitoring import rollups
from monitoring.models import RequestLog, UsageRecord
from telling import alert_services
from telling.alert_models import Alert, AlertChannel, AlertRule
from telling.models import Webhook

NOW = 1_800_000_000.0
ROBOT = "https://oapi.dingtalk.com/robot/send?access_token=planted-robot-token"


def at(wall_s: float) -> datetime:
    return datetime.fromtimestamp(wall_s, UTC)


def a_channel(name: str = "on call", kind: str = "dingtalk", url: str = ROBOT, secret: str = "", **fields: Any) -> AlertChannel:
    return alert_services.save_channel(AlertChannel(name=name, kind=kind, **fields), url=url, secret=secret)


def a_rule(condition: str, threshold: str, *channels: AlertChannel, **fields: Any) -> AlertRule:
    """The only one there is."""
    AlertRule.objects.all().delete()
    rule = AlertRule(name=f"rule of {condition}", condition=condition, threshold=Decimal(threshold), **fields)
    rule.full_clean()
    rule.save()
    rule.channels.set(channels)
    return rule


def requests(count: int, wall_s: float, *, failed: int = 0, duration_ms: int = 800, prefix: str = "req", **columns: Any) -> None:
    """Of which the first `failed` failed, and each with its attempt; the sums are made anew."""
    shared = {"started_at": at(wall_s), "provider_name": "vendor", "alias": "gpt", "model_id": "gpt-1", "key_name": "crawler"}
    for number in range(count):
        wrong = number < failed
        request_id = f"{prefix}-{number}"
        status = {"status_code": 502 if wrong else 200, "error_code": "upstream" if wrong else ""}
        RequestLog.objects.create(request_id=request_id, dialect="openai", attempts=1, duration_ms=duration_ms, **status, **shared)
        attempt = {"provider_id": "p", "usage_source": "vendor", "status": "error" if wrong else "ok", **columns}
        UsageRecord.objects.create(request_id=request_id, attempt=1, duration_ms=duration_ms, **attempt, **shared)
    rollups.rebuild()


def told() -> list[str]:
    """What channels are told, in order."""
    return list(Webhook.objects.filter(channel__isnull=False).order_by("created_at", "event_type").values_list("event_type", flat=True))


def firing() -> list[Alert]:
    return list(Alert.objects.filter(resolved_at=None).order_by("subject"))
