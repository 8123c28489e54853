"""Webhooks and their secrets over REST and in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from access.models import Team, TeamMember
from access.services import create_api_key, create_personal_token
from monitoring.models import AuditEvent
from telling import signing
from telling.models import Webhook, WebhookSecret
from tests.telling.rows import a_team, a_webhook

pytestmark = pytest.mark.django_db
SECRETS = "/api/v1/webhook-secrets"


def client_of(user: User) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {create_personal_token(user, 'test')[1]}")
    return client


@pytest.fixture
def root() -> APIClient:
    return client_of(User.objects.create_superuser("root"))


def manager_of(team: Team) -> User:
    user = User.objects.create_user(f"{team.name}-manager", is_staff=True)
    TeamMember.objects.create(team=team, user=user, role="manager")
    return user


def test_a_secret_is_shown_once_and_rotated_by_another(root: APIClient) -> None:
    team = a_team(secret=False)
    first = root.post(SECRETS, {"team": str(team.pk)}, format="json")
    assert first.status_code == 201
    assert first.headers["Cache-Control"] == "no-store"
    signing.headers("id", 1, b"", [first.json()["secret"]])
    second = root.post(SECRETS, {"team": str(team.pk), "overlap_s": 60}, format="json").json()
    assert second["retires_at"] is None
    shown = root.get(SECRETS).json()["results"]
    assert [row["id"] for row in shown] == [second["id"], first.json()["id"]]
    assert shown[1]["retires_at"] is not None
    assert not any("secret" in row for row in shown)
    assert root.delete(f"{SECRETS}/{second['id']}").status_code == 204
    assert WebhookSecret.objects.get(pk=second["id"]).retires_at is not None
    revealed = AuditEvent.objects.filter(action=AuditEvent.Action.REVEALED, object_type="telling.WebhookSecret")
    assert revealed.count() == 2
    assert not any(first.json()["secret"][6:] in event.changes for event in AuditEvent.objects.all())


def test_a_manager_makes_those_of_their_team_alone() -> None:
    mine, theirs = a_team("mine", secret=False), a_team("theirs", secret=False)
    client = client_of(manager_of(mine))
    assert client.post(SECRETS, {"team": str(mine.pk)}, format="json").status_code == 201
    assert client.post(SECRETS, {"team": str(theirs.pk)}, format="json").status_code == 400
    assert client.post(SECRETS, {"team": None}, format="json").status_code == 400
    assert client.post(SECRETS, {}, format="json").status_code == 400
    assert WebhookSecret.objects.count() == 1


@pytest.mark.parametrize("fields", [{"secret": "whsec_mine"}, {"retires_at": None}, {"overlap_s": -1}, {"overlap_s": 1e9}])
def test_nothing_else_can_be_set(root: APIClient, fields: dict[str, Any]) -> None:
    team = a_team(secret=False)
    answer = root.post(SECRETS, {"team": str(team.pk), **fields}, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["attr"]) == (400, next(iter(fields)))


def test_dead_letters_are_listed_shown_and_sent_again(root: APIClient) -> None:
    team = a_team()
    dead, pending = a_webhook(team), a_webhook(team)
    Webhook.objects.filter(pk=dead.pk).update(status="dead", tries=10, last_status=500, last_error="It answered 500.")
    (found,) = root.get("/api/v1/webhooks?status=dead").json()["results"]
    assert (found["webhook_id"], found["tries"], found["last_error"]) == (dead.message_id, 10, "It answered 500.")
    assert found["next_try_at"] is None
    whole = root.get(f"/api/v1/webhooks/{dead.pk}").json()
    assert '"event_type":"completed"' in whole["body"]
    assert whole["history"] == []
    again = root.post(f"/api/v1/webhooks/{dead.pk}/replay")
    assert (again.status_code, again.json()["status"], again.json()["tries"]) == (200, "pending", 0)
    assert AuditEvent.objects.get(object_type="telling.Webhook").object_label == dead.message_id
    for row in (dead, pending):
        refused = root.post(f"/api/v1/webhooks/{row.pk}/replay")
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (409, "webhook_not_dead")
    assert root.get("/api/v1/webhooks?state=dead").status_code == 400


def test_a_callback_to_a_private_address_has_a_refusal_of_its_own() -> None:
    key = create_api_key(name="bot", team=a_team(), scopes=["tasks"])[1]
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    body = {"type": "custom", "prompt": "hi", "callback_url": "https://10.0.0.1/x"}
    for path, sent in (("/api/v1/tasks", body), ("/api/v1/tasks/batch", {"tasks": [{**body, "callback_url": ""}, body]})):
        answer = client.post(path, sent, format="json")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "callback_not_allowed")
        assert "WEBHOOK_ALLOW" in answer.json()["errors"][0]["detail"]
    assert client.post("/api/v1/tasks", {**body, "callback_url": "https://8.8.8.8/x"}, format="json").status_code == 202


def test_the_admin_sends_dead_letters_again_for_those_who_may(admin_client: Client) -> None:
    webhook = a_webhook()
    Webhook.objects.update(status="dead")
    page = admin_client.get("/admin/telling/webhook/")
    assert webhook.message_id in page.content.decode()
    assert admin_client.get(f"/admin/telling/webhook/{webhook.pk}/change/").status_code == 200
    act = {"action": "send_again", "_selected_action": [str(webhook.pk)]}
    other = Client()
    other.force_login(manager_of(a_team("others")))
    other.post("/admin/telling/webhook/", act)
    assert Webhook.objects.get().status == "dead"
    admin_client.post("/admin/telling/webhook/", act)
    assert Webhook.objects.get().status == "pending"


def test_the_admin_shows_a_new_secret_once(admin_client: Client) -> None:
    team = a_team(secret=False)
    made = admin_client.post("/admin/telling/webhooksecret/add/", {"team": str(team.pk)})
    row = WebhookSecret.objects.get()
    assert row.team == team
    assert row.open().reveal() in made.content.decode()
    assert row.open().reveal() not in admin_client.get(f"/admin/telling/webhooksecret/{row.pk}/change/").content.decode()
    assert admin_client.post(f"/admin/telling/webhooksecret/{row.pk}/retire/").status_code == 302
    assert "retired" in admin_client.get("/admin/telling/webhooksecret/").content.decode()


def test_a_manager_in_the_admin_makes_no_secret_for_everybody() -> None:
    team = a_team(secret=False)
    client = Client()
    client.force_login(manager_of(team))
    assert client.post("/admin/telling/webhooksecret/add/", {"team": ""}).status_code == 200
    assert client.post("/admin/telling/webhooksecret/add/", {"team": str(a_team("others", secret=False).pk)}).status_code == 200
    assert not WebhookSecret.objects.exists()
    client.post("/admin/telling/webhooksecret/add/", {"team": str(team.pk)})
    assert WebhookSecret.objects.get().team == team
