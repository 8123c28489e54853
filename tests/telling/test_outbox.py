"""Webhooks are written in the transaction in which a task ends, and a task is refused whose end could not be told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import transaction

from core.errors import GatewayError
from core.secrets import CannotOpen
from tasks import queue
from tasks.models import Task
from tasks.queue import Ending
from tasks.signals import changed
from tasks.states import Status
from telling import services, signing
from telling.models import Webhook, WebhookSecret
from tests.telling.rows import NOW, URL, a_key, a_task, a_team, a_webhook, ended

pytestmark = pytest.mark.django_db


def told(task: Task) -> list[dict[str, Any]]:
    return [json.loads(row.body) for row in Webhook.objects.filter(task=task)]


def test_what_completed_is_told_with_its_result() -> None:
    team = a_team()
    task = a_task(a_key(team))
    assert told(task) == []
    ended(task)
    row = Webhook.objects.get()
    assert (row.team, row.event_type, row.url, row.host) == (team, "completed", URL, "hooks.example.com:443")
    assert (row.status, row.tries, row.next_at) == ("pending", 0, NOW)
    body = {"event_type": "completed", "task_id": task.public_id, "timestamp": "2027-01-15T08:00:00Z", "data": {"text": "yes"}}
    assert told(task) == [body]


def test_what_failed_is_told_with_its_error_and_a_retry_is_not_an_end() -> None:
    task = a_task(a_key(a_team()))
    ended(task, Ending(Status.FAILED, error_code="upstream_error", error_message="It was down.", again_at=NOW))
    assert told(task) == []
    ended(task, Ending(Status.FAILED, error_code="upstream_error", error_message="It was down."), NOW + 1)
    (body,) = told(task)
    assert (body["event_type"], body["error"]) == ("failed", {"code": "upstream_error", "message": "It was down."})
    assert "data" not in body


def test_what_expired_has_failed_and_what_was_cancelled_is_not_told() -> None:
    key = a_key(a_team())
    late, cancelled = a_task(key, config={"deadline": 5}), a_task(key)
    queue.reap(NOW + 6)
    queue.cancel(cancelled.pk, NOW)
    assert [body["error"]["code"] for body in told(late)] == ["deadline_passed"]
    assert told(cancelled) == []


def test_nobody_is_told_who_did_not_ask() -> None:
    ended(a_task(a_key(a_team()), url=""))
    assert not Webhook.objects.exists()


def test_a_webhook_is_there_exactly_if_the_end_is() -> None:
    task = a_task(a_key(a_team()))
    (claimed,) = queue.claim("w", 1, NOW, 20)
    with transaction.atomic():
        assert queue.end(claimed, Ending(Status.COMPLETED, result={}), NOW)
        assert Webhook.objects.filter(task=task).exists()
        transaction.set_rollback(True)
    assert not Webhook.objects.exists()
    task.refresh_from_db()
    assert task.status == "running"

    def fails(**signal: Any) -> None:
        raise RuntimeError("an extension's own")

    changed.connect(fails)
    try:
        with pytest.raises(RuntimeError), transaction.atomic():
            queue.end(claimed, Ending(Status.COMPLETED, result={}), NOW)
    finally:
        changed.disconnect(fails)
    assert not Webhook.objects.exists()


@pytest.mark.parametrize("url", ["http://hooks.example.com/x", "https://127.0.0.1/x", "https://10.0.0.1/x"])
def test_a_callback_that_may_not_be_called_refuses_the_task(url: str) -> None:
    key = a_key(a_team())
    with pytest.raises(GatewayError) as refused:
        a_task(key, url=url)
    assert (refused.value.http_status, refused.value.code) == (422, "callback_not_allowed")
    assert not Task.objects.exists()


def test_a_callback_that_nobody_could_verify_refuses_the_task() -> None:
    key = a_key(a_team(secret=False))
    with pytest.raises(GatewayError, match="POST /api/v1/webhook-secrets") as refused:
        a_task(key)
    assert (refused.value.http_status, refused.value.code) == (422, "webhook_secret_missing")
    assert not Task.objects.exists()
    services.new_secret(None)
    with pytest.raises(GatewayError, match="team"):
        a_task(key)
    ended(a_task(None))
    assert Webhook.objects.get().team is None


def test_a_rotated_secret_signs_beside_the_new_one_for_a_while(settings: Any) -> None:
    settings.WEBHOOK_OVERLAP_S = 3600
    team = a_team(secret=False)
    first, one = services.new_secret(team)
    _, two = services.new_secret(team, now=first.created_at)
    before, after = first.created_at.timestamp() + 3599, first.created_at.timestamp() + 3601
    assert revealed(team, before) == {one, two}
    assert revealed(team, after) == {two}
    services.new_secret(team, now=queue.moment(before))
    assert one not in revealed(team, before), "at most two sign at once"
    assert len(revealed(team, before)) == 2


def revealed(team: Any, at: float) -> set[str]:
    return {secret.reveal() for secret in services.secrets_of(team.pk, queue.moment(at))}


def test_a_secret_is_sealed_and_bound_to_its_team() -> None:
    mine, theirs = a_team("mine", secret=False), a_team("theirs", secret=False)
    row, plaintext = services.new_secret(mine)
    assert plaintext.encode() not in bytes(row.secret)
    signing.headers("id", 1, b"", [plaintext])
    WebhookSecret.objects.filter(pk=row.pk).update(team=theirs)
    with pytest.raises(CannotOpen):
        WebhookSecret.objects.get().open()


def test_only_a_dead_letter_is_sent_again() -> None:
    webhook = a_webhook()
    with pytest.raises(services.NotDead):
        services.replay(webhook)
    Webhook.objects.update(status="dead", tries=10, ended_at=queue.moment(NOW))
    services.replay(webhook)
    assert (webhook.status, webhook.tries, webhook.ended_at) == ("pending", 0, None)
    with pytest.raises(services.NotDead):
        services.replay(webhook)
