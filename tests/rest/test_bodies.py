"""What was asked and answered, over REST and in the admin: for those with a permission of its own, one request at a time."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from rest_framework.test import APIClient

from access.roles import ROLES, TEAM_ROLES
from monitoring import audit
from monitoring.audit import AuditUnavailable
from monitoring.body_queue import AttemptHeaders, Headers
from monitoring.models import AuditEvent, RequestBody
from tests.rest.conftest import MOMENT, World

pytestmark = pytest.mark.usefixtures("standing_world")

URL = "/api/v1/requests/req-1/bodies"
ASKED = b'{"messages":[{"role":"user","content":"<script>alert(1)</script>"}]}'


HEADERS = Headers(
    [("user-agent", "<script>alert(1)</script>")],
    [("content-type", "application/json")],
    [AttemptHeaders(1, 200, [("x-request-id", "req_of_vendor")])],
)


@pytest.fixture
def kept(world: World) -> RequestBody:
    return RequestBody.objects.create(
        request_id="req-1",
        started_at=MOMENT,
        key_id=str(world.api_key.pk),
        request=zlib.compress(ASKED),
        response=zlib.compress(b"data: [DO"),
        headers=zlib.compress(msgspec.json.encode(HEADERS)),
        request_bytes=len(ASKED),
        response_bytes=14,
    )


def reads() -> list[str]:
    return [f"{event.actor} {event.object_label}" for event in AuditEvent.objects.filter(action="body_read")]


def test_one_is_read_and_that_is_recorded(root: APIClient, kept: RequestBody) -> None:
    assert root.get(URL).json() == {
        "request_id": "req-1",
        "request": {"text": ASKED.decode(), "bytes": len(ASKED), "cut": False},
        "response": {"text": "data: [DO", "bytes": 14, "cut": True},
        "headers": {
            "request": [{"name": "user-agent", "value": "<script>alert(1)</script>"}],
            "response": [{"name": "content-type", "value": "application/json"}],
            "attempts": [{"attempt": 1, "status": 200, "headers": [{"name": "x-request-id", "value": "req_of_vendor"}]}],
        },
    }
    assert reads() == ["root req-1"]
    RequestBody.objects.update(headers=None)
    assert root.get(URL).json()["headers"] is None


def test_no_list_and_no_log_holds_them(root: APIClient, kept: RequestBody) -> None:
    for url in ("/api/v1/requests", "/api/v1/requests/req-1", "/api/v1/usage/records"):
        assert "script" not in root.get(url).content.decode()
    assert reads() == []


def test_it_takes_a_permission_of_its_own(allowed: Callable[..., APIClient], kept: RequestBody) -> None:
    assert allowed("monitoring.view_requestlog", "monitoring.view_usagerecord").get(URL).status_code == 403
    assert reads() == []
    every = frozenset().union(*(permissions for _, permissions in (*ROLES.values(), *TEAM_ROLES.values())))
    assert "monitoring.view_requestbody" not in every


def test_who_has_it_by_a_group_of_their_own(allowed: Callable[..., APIClient], kept: RequestBody) -> None:
    assert allowed("monitoring.view_requestbody").get(URL).status_code == 200


def test_where_none_is_kept_it_says_so(root: APIClient, world: World) -> None:
    answer = root.get(URL)
    assert answer.status_code == 404
    assert "No bodies are kept" in answer.content.decode()
    assert root.get("/api/v1/requests/nobody/bodies").status_code == 404


def test_where_the_trail_cannot_be_written_nothing_is_shown(root: APIClient, kept: RequestBody, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise AuditUnavailable("The audit trail cannot be written.")

    monkeypatch.setattr(audit, "record", broken)
    answer = root.get(URL)
    assert answer.status_code == 503
    assert "script" not in answer.content.decode()


@pytest.fixture
def admin(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    return client


def test_the_page_of_a_request_leads_to_them(admin: Client, kept: RequestBody, world: World) -> None:
    page = admin.get(f"/admin/monitoring/requestlog/{world.request.pk}/change/").content.decode()
    link = f"/admin/monitoring/requestlog/{world.request.pk}/bodies/"
    assert link in page
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page, "that of the header"
    assert "messages" not in page.partition("What was said")[2].partition("Headers")[0], "no body is shown here"
    assert "req_of_vendor" in page
    assert reads() == []
    shown = admin.get(link).content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "<script>alert(1)" not in shown
    assert "only the first ones were kept" in shown
    assert reads() == ["boss req-1"]
    RequestBody.objects.update(headers=None)
    assert "before headers were kept" in admin.get(f"/admin/monitoring/requestlog/{world.request.pk}/change/").content.decode()
    RequestBody.objects.all().delete()
    assert "nor of the headers" in admin.get(link).content.decode()


def test_the_page_is_closed_to_others(kept: RequestBody, world: World) -> None:
    client, user = Client(), User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_requestlog"))
    client.force_login(user)
    page = client.get(f"/admin/monitoring/requestlog/{world.request.pk}/change/").content.decode()
    assert "/bodies/" not in page
    assert "req_of_vendor" not in page
    assert client.get(f"/admin/monitoring/requestlog/{world.request.pk}/bodies/").status_code == 403
    assert reads() == []


def test_a_key_stores_none_unless_it_is_told_to(root: APIClient, world: World) -> None:
    team = str(world.team.pk)
    keys = "/api/v1/llm/keys"
    assert root.post(keys, {"name": "quiet", "team": team}, format="json").json()["store_bodies"] is False
    made = root.post(keys, {"name": "loud", "team": team, "store_bodies": True}, format="json").json()
    assert made["store_bodies"] is True
    assert root.patch(f"{keys}/{made['id']}", {"store_bodies": False}, format="json").json()["store_bodies"] is False
