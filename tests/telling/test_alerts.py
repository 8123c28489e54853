"""Rules and channels as people keep them: validated, sealed, audited, tried out for real; and an alert on its whole way to a chat."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.test import Client
from rest_framework.test import APIClient

from access.services import create_personal_token
from core.clock import FrozenClock
from monitoring.models import AuditEvent
from tasks.models import Task
from telling import alert_services, deliveries
from telling.alert_models import Alert, AlertChannel, AlertRule, AlertTurn, JournalBacklog
from telling.alerts import evaluation
from telling.alerts.watch import Watch
from telling.delivery import Sender
from telling.models import Webhook
from telling.outcome import Outcome
from tests.telling.alert_rows import NOW, ROBOT, a_channel, a_rule, at
from tests.telling.receiver import Receiver

pytestmark = pytest.mark.django_db
RULES, CHANNELS, HISTORY = "/api/v1/llm/alerts", "/api/v1/llm/alert-channels", "/api/v1/llm/alert-history"
TOKEN = "planted-robot-token"


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """A robot of DingTalk's that takes everything."""
    running = Receiver("200")
    running.answer = b'{"errcode":0,"errmsg":"ok"}'
    settings.WEBHOOK_ALLOW = [("127.0.0.1/32", running.port)]
    yield running
    running.close()


@pytest.fixture
def rest() -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {create_personal_token(User.objects.create_superuser('root'), 'test')[1]}")
    return client


@pytest.fixture
def admin() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def tasks_wait() -> None:
    Task.objects.create(kind="custom", prompt="hi", timeout_s=60, max_attempts=1, rank=NOW, created_at=at(NOW - 90))


def delivered(delivery: deliveries.Delivery, receiver: Receiver) -> Outcome:
    to = alert_services.receiver_of(delivery.channel_id)
    assert TOKEN not in repr(to)

    async def deliver() -> Outcome:
        sender = Sender([("127.0.0.1/32", receiver.port)], 30, lambda: NOW)
        try:
            return await sender.alert(delivery, to)
        finally:
            await sender.close()

    return asyncio.run(deliver())


def test_an_alert_reaches_a_chat_signed(receiver: Receiver) -> None:
    a_rule("queue_delay", "60", a_channel(url=receiver.url("200"), secret="SECabc"))
    tasks_wait()
    evaluation.look(NOW)
    (delivery,) = deliveries.claim(10, 5, NOW, 30)

    outcome = delivered(delivery, receiver)
    assert deliveries.settle(delivery, outcome, NOW, 10, random.Random(1))
    assert Webhook.objects.get().status == "delivered"
    (heard,) = receiver.heard
    assert "sign=" in heard.path
    assert "one has waited 90 s" in json.loads(heard.body)["text"]["content"]


def test_what_a_chat_refuses_is_tried_again(receiver: Receiver) -> None:
    receiver.answer = b'{"errcode":310000,"errmsg":"sign not match"}'
    a_rule("queue_delay", "60", a_channel(url=receiver.url("200")))
    tasks_wait()
    evaluation.look(NOW)
    (delivery,) = deliveries.claim(10, 5, NOW, 30)
    outcome = delivered(delivery, receiver)
    deliveries.settle(delivery, outcome, NOW, 10, random.Random(1))
    webhook = Webhook.objects.get()
    assert (webhook.status, webhook.tries) == ("pending", 1)
    assert "sign not match" in webhook.last_error


def test_address_and_secret_are_sealed_and_recorded_as_hashes() -> None:
    row = a_channel(secret="SEC-planted-secret")
    stored = bytes(AlertChannel.objects.get().sealed)
    assert TOKEN.encode() not in stored
    assert row.shown_address == "https://oapi.dingtalk.com:443/…"
    event = AuditEvent.objects.get(object_type="telling.AlertChannel", action="created")
    assert "planted" not in event.changes


@pytest.mark.parametrize(
    ("kind", "given", "field"),
    [
        ("dingtalk", {"url": ""}, "url"),
        ("dingtalk", {"url": "http://10.0.0.1/send"}, "url"),
        ("dingtalk", {"url": "https://user:pw@oapi.dingtalk.com/"}, "url"),
        ("wecom", {"url": ROBOT, "secret": "x"}, "secret"),
        ("webhook", {"url": ROBOT, "secret": "short"}, "secret"),
        ("webhook", {"url": ROBOT}, "secret"),
        ("email", {"url": ROBOT}, "url"),
        ("email", {}, "recipients"),
        ("email", {"recipients": "ops@example.com\nnobody"}, "recipients"),
        ("pigeon", {"url": ROBOT}, "kind"),
    ],
)
def test_a_channel_that_cannot_work_is_refused(rest: APIClient, kind: str, given: dict[str, str], field: str) -> None:
    answer = rest.post(CHANNELS, {"name": "x", "kind": kind, **given})
    assert answer.status_code == 400, answer.json()
    assert [error["attr"] for error in answer.json()["errors"]] == [field]
    assert AlertChannel.objects.count() == 0


def test_what_is_left_out_of_a_change_stays(rest: APIClient) -> None:
    made = rest.post(CHANNELS, {"name": "chat", "kind": "dingtalk", "url": ROBOT, "secret": "SECabc"})
    assert made.status_code == 201, made.json()
    assert TOKEN not in made.content.decode()
    assert "SECabc" not in made.content.decode()
    url = f"{CHANNELS}/{made.json()['id']}"
    assert rest.patch(url, {"name": "other"}).json()["name"] == "other"
    assert rest.patch(url, {"kind": "feishu"}).status_code == 400
    assert alert_services.receiver_of(made.json()["id"]).target.url == ROBOT
    rest.patch(url, {"secret": ""})
    target = alert_services.receiver_of(made.json()["id"]).target
    assert (target.url, target.secret) == (ROBOT, "")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"condition": "error_rate", "threshold": "101"}, "threshold"),
        ({"condition": "error_rate", "threshold": "-1"}, "threshold"),
        ({"condition": "budget", "threshold": "0"}, "threshold"),
        ({"condition": "weather", "threshold": "1"}, "condition"),
        ({"condition": "queue_delay", "threshold": "1", "per_provider": True}, "per_provider"),
        ({"condition": "error_rate", "threshold": "1", "window_s": 29}, "window_s"),
        ({"condition": "error_rate", "threshold": "1", "min_requests": 0}, "min_requests"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(rest: APIClient, given: dict[str, Any], field: str) -> None:
    answer = rest.post(RULES, {"name": "x", **given})
    assert answer.status_code == 400
    assert [error["attr"] for error in answer.json()["errors"]] == [field]


def test_a_rule_over_rest_and_its_trail(rest: APIClient) -> None:
    channel = a_channel()
    made = rest.post(RULES, {"name": "late", "condition": "queue_delay", "threshold": "90.5", "channels": [str(channel.pk)]})
    assert made.status_code == 201, made.json()
    assert (made.json()["threshold"], made.json()["unit"]) == ("90.5", "seconds that a task has waited")
    rest.patch(f"{RULES}/{made.json()['id']}", {"channels": []})
    assert AlertRule.objects.get(name="late").channels.count() == 0
    assert AuditEvent.objects.filter(object_type="telling.AlertRule").values_list("action", flat=True).distinct().count() == 2


def test_history_says_what_fires_and_what_did(rest: APIClient) -> None:
    a_rule("queue_delay", "60", window_s=60)
    tasks_wait()
    evaluation.look(NOW)
    assert [row["firing"] for row in rest.get(f"{HISTORY}?firing=true").json()["results"]] == [True]
    Task.objects.update(status="completed")
    evaluation.look(NOW + 60)
    assert rest.get(f"{HISTORY}?firing=true").json()["results"] == []
    (row,) = rest.get(f"{HISTORY}?firing=false").json()["results"]
    assert (row["about"], row["value"], row["firing"]) == ("queued tasks", 90.0, False)


def test_the_test_button_really_sends_and_says_what_came_back(rest: APIClient, receiver: Receiver) -> None:
    rule = a_rule("queue_delay", "60", a_channel(url=receiver.url("200")), a_channel("mail", "email", "", recipients="ops@example.com"))
    chat, mail = rest.post(f"{RULES}/{rule.pk}/test").json()[::-1]
    assert (chat["ok"], chat["detail"][:34]) == (True, "DingTalk took it: it answered 200 ")
    assert (mail["ok"], "EMAIL_HOST" in mail["detail"]) == (False, True)
    assert "This is a test" in json.loads(receiver.heard[0].body)["text"]["content"]
    receiver.answer = b'{"errcode":310000,"errmsg":"keywords not in content"}'
    refused = rest.post(f"{CHANNELS}/{chat['channel']}/test").json()
    assert (refused["ok"], refused["detail"]) == (False, "DingTalk refused it with code 310000: keywords not in content")
    assert Alert.objects.count() == 0


def test_the_button_in_the_admin(admin: Client, receiver: Receiver) -> None:
    rule = a_rule("queue_delay", "60", a_channel(url=receiver.url("200")))
    url = f"/admin/telling/alertrule/{rule.pk}/test/"
    assert "really sends one message" in admin.get(url).content.decode()
    assert receiver.heard == []
    assert "DingTalk took it" in admin.post(url).content.decode()
    assert len(receiver.heard) == 1


def test_a_channel_is_made_and_changed_in_the_admin(admin: Client) -> None:
    form = {"name": "chat", "kind": "dingtalk", "url": ROBOT, "secret": "SECabc", "recipients": "", "is_active": "on"}
    refused = admin.post("/admin/telling/alertchannel/add/", {**form, "url": "http://10.0.0.1/x"})
    assert "This address cannot be called" in refused.content.decode()
    assert admin.post("/admin/telling/alertchannel/add/", form).status_code == 302
    row = AlertChannel.objects.get()
    page = f"/admin/telling/alertchannel/{row.pk}/change/"
    assert TOKEN not in admin.get(page).content.decode()
    assert admin.post(page, {"name": "renamed", "url": "", "secret": "", "is_active": "on"}).status_code == 302
    receiver = alert_services.receiver_of(row.pk)
    assert (AlertChannel.objects.get().name, receiver.target.url, receiver.target.secret) == ("renamed", ROBOT, "SECabc")


def test_what_fires_is_on_the_first_page(admin: Client) -> None:
    a_rule("queue_delay", "60")
    assert "No alert is firing." in admin.get("/admin/").content.decode()
    tasks_wait()
    evaluation.look(NOW)
    assert "one has waited 90 s" in admin.get("/admin/").content.decode()


def test_a_channel_that_cannot_be_opened_says_what_to_do() -> None:
    row = a_channel()
    AlertChannel.objects.update(sealed=b"nonsense")
    row.refresh_from_db()
    assert not alert_services.try_channel(row).ok
    with pytest.raises(ValidationError, match="Enter address and secret again"):
        alert_services.save_channel(row)
    alert_services.save_channel(row, url=ROBOT, secret="")
    assert alert_services.receiver_of(row.pk).target.url == ROBOT


@pytest.mark.parametrize("kind", ["dingtalk", "webhook"])
def test_a_channel_that_waits_for_its_address_is_told_nothing(kind: str) -> None:
    row = alert_services.save_channel(AlertChannel(name="on call", kind=kind), awaited=True)
    a_rule("queue_delay", "60", row)
    tasks_wait()
    evaluation.look(NOW)
    assert Alert.objects.exists()
    assert not Webhook.objects.exists()
    assert alert_services.try_channel(row).sentence == "It has no address yet: enter it, and try again."
    with pytest.raises(ValidationError, match="needs an address"):
        alert_services.save_channel(row)


def test_a_process_looks_in_its_turn_and_says_its_backlog() -> None:
    AlertRule.objects.all().delete()
    clock, waiting = FrozenClock(NOW), [70 * 2**20]
    one, other = (Watch(lambda: waiting[0], clock, interval_s=15, keep_days=90) for _ in range(2))
    assert (one.step(), other.step()) == (True, False)
    assert JournalBacklog.objects.get().waiting_bytes == 70 * 2**20
    waiting[0] = 0
    clock.advance(15)
    assert (other.step(), one.step()) == (True, False)
    assert JournalBacklog.objects.count() == 0
    assert AlertTurn.objects.get().next_at == NOW + 30
