"""The trail over REST: read-only, filtered, paged by the edge, and as a file."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from rest_framework.test import APIClient

from access.models import Team
from access.services import create_personal_token
from monitoring import audit_export
from monitoring.models import AuditEvent

pytestmark = pytest.mark.django_db
URL = "/api/v1/audit"


def client_of(user: User) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {create_personal_token(user, 'test')[1]}")
    return client


@pytest.fixture
def root() -> APIClient:
    return client_of(User.objects.create_superuser("root"))


def test_a_row_as_json(root: APIClient) -> None:
    Team.objects.create(name="search").delete()
    row = root.get(URL).json()["results"][0]
    assert (row["action"], row["object_label"], row["changes"]["name"]) == ("deleted", "search", ["search", None])
    assert root.get(f"{URL}/{row['sequence']}").json() == row
    assert root.get(f"{URL}/999999").status_code == 404


def test_filters_and_pages(root: APIClient) -> None:
    team = Team.objects.create(name="search")
    for number in range(5):
        Team.objects.filter(pk=team.pk).update(max_concurrency=number + 1)

    def found(**query: Any) -> list[int]:
        return [row["sequence"] for row in root.get(URL, query).json()["results"]]

    assert len(found(object_type="access.Team", object_id=str(team.pk))) == 6
    assert len(found(action="changed")) == 5
    assert found(actor="nobody") == found(until="2020-01-01T00:00:00Z") == []
    everything = found()
    assert found(after=everything[2]) == everything[:2]
    first = root.get(URL, {"page_size": 2, "action": "changed"}).json()
    assert [row["sequence"] for row in root.get(first["next"]).json()["results"]] == everything[2:4]
    assert root.get(URL, {"colour": "red"}).status_code == 400
    assert root.get(URL, {"action": "exploded"}).status_code == 400


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nobody_writes(root: APIClient, method: str) -> None:
    for url in (URL, f"{URL}/1"):
        assert getattr(root, method)(url, {"actor": "nobody"}, format="json").status_code == 405


def test_files(root: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    Team.objects.create(name="+cmd")
    answer = root.get(URL, headers={"accept": "text/csv"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert next(csv.DictReader(io.StringIO(answer.content.decode())))["action"] == "exported"
    assert ",'+cmd," in answer.content.decode()
    monkeypatch.setattr(audit_export, "MAX_ROWS", 2)
    answer = root.get(URL, {"after": 0}, headers={"accept": "application/x-ndjson"})
    assert [json.loads(line)["sequence"] for line in answer.content.decode().splitlines()] == [1, 2]
    assert answer.headers["x-next-after"] == "2"
    assert AuditEvent.objects.filter(action="exported").count() == 2


def test_an_error_in_place_of_a_file_says_that_it_is_json(root: APIClient) -> None:
    refused = root.get(URL, {"after": "the first"}, headers={"accept": "application/x-ndjson"})
    assert (refused.status_code, refused.headers["Content-Type"]) == (400, "application/json")
    assert refused.json()["errors"][0]["attr"] == "after"


def test_one_event_is_json_alone(root: APIClient) -> None:
    Team.objects.create(name="ads")
    assert root.get(f"{URL}/1").headers["Content-Type"] == "application/json"
    assert root.get(f"{URL}/1", headers={"accept": "text/csv"}).status_code == 406


def test_a_file_needs_a_permission_of_its_own() -> None:
    user = User.objects.create_user("viewer")
    user.user_permissions.add(Permission.objects.get(codename="view_auditevent"))
    client = client_of(user)
    assert client.get(URL).status_code == 200
    refused = client.get(URL, headers={"accept": "text/csv"})
    assert refused.status_code == 403
    assert "export_auditevent" in refused.content.decode()
