"""An API key on the routes of REST that take one: who it is in the audit trail, and what it may not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from access.models import ApiKey, Team
from access.services import create_api_key
from monitoring import audit_people
from monitoring.models import AuditEvent

TASK = {"type": "custom", "prompt": "hi"}
pytestmark = pytest.mark.django_db


def client_of(*, scopes: tuple[str, ...] = ("tasks",), **fields: Any) -> tuple[APIClient, ApiKey]:
    key, plaintext = create_api_key(name="bot", team=Team.objects.create(name="search"), scopes=scopes, **fields)
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {plaintext}")
    return client, key


def test_a_key_without_the_scope_is_refused_by_name_in_the_trail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_people, "_sampler", None)
    client, key = client_of(scopes=("chat",))
    assert client.post("/api/v1/tasks", TASK, format="json").status_code == 403
    refused = AuditEvent.objects.latest("sequence")
    assert (refused.action, refused.actor) == ("refused", f"key {key}")


def test_a_key_is_none_beyond_its_networks() -> None:
    client, _ = client_of(source_networks=["10.1.0.0/16"])
    assert client.post("/api/v1/tasks", TASK, format="json", REMOTE_ADDR="10.2.0.1").status_code == 401
    assert client.post("/api/v1/tasks", TASK, format="json", REMOTE_ADDR="10.1.2.3").status_code == 202


def test_a_key_that_has_ended_is_none() -> None:
    client, key = client_of()
    assert client.get("/api/v1/tasks").status_code == 200
    ApiKey.objects.filter(pk=key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert client.get("/api/v1/tasks").status_code == 401
    ApiKey.objects.filter(pk=key.pk).update(expires_at=None, revoked_at=timezone.now())
    assert client.get("/api/v1/tasks").status_code == 401


def test_a_key_is_held_within_what_its_team_has_become() -> None:
    """As at the gateway, whatever the team was when the key was made."""
    client, _ = client_of(scopes=("tasks", "usage"))
    Team.objects.update(scopes=["chat", "usage"])
    assert client.post("/api/v1/tasks", TASK, format="json").status_code == 403
    assert client.get("/api/v1/tasks").status_code == 403
    Team.objects.update(scopes=None)
    assert client.get("/api/v1/tasks").status_code == 200


def test_a_key_lasts_no_longer_than_those_of_its_team_may() -> None:
    client, key = client_of()
    ApiKey.objects.filter(pk=key.pk).update(created_at=timezone.now() - timedelta(days=8))
    assert client.get("/api/v1/tasks").status_code == 200
    Team.objects.update(max_key_days=7)
    assert client.get("/api/v1/tasks").status_code == 401
