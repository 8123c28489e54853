"""The auditor's pages: timeline, filters, before and after, the history of an object, files; and that nobody can change anything there."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from access.models import Team
from monitoring import audit, audit_context
from monitoring.audit_context import Actor
from monitoring.models import AuditEvent

pytestmark = pytest.mark.django_db
LIST = "/admin/monitoring/auditevent/"


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def staff() -> Callable[..., Client]:
    def make(*permissions: str) -> Client:
        from django.contrib.auth.models import Permission

        user = User.objects.create_user("staff", is_staff=True)
        for permission in permissions:
            app, codename = permission.split(".")
            user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
        client = Client()
        client.force_login(user)
        return client

    return make


def by(name: str, **fields: Any) -> Any:
    return audit_context.acting(lambda: Actor(**{"source": "api", "name": name, **fields}))


def test_nobody_has_a_permission_to_change_the_trail(root: Client) -> None:
    from django.contrib.auth.models import Permission

    known = set(Permission.objects.filter(content_type__model="auditevent").values_list("codename", flat=True))
    assert known == {"view_auditevent", "export_auditevent"}
    row = AuditEvent.objects.latest("sequence")
    assert root.get(f"{LIST}add/").status_code == 403
    for url in (f"{LIST}{row.pk}/delete/", f"{LIST}{row.pk}/change/"):
        assert root.post(url, {"actor": "nobody", "post": "yes"}).status_code == 403
    root.post(LIST, {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    assert AuditEvent.objects.get(pk=row.pk).actor == row.actor


def test_filters_and_paging_without_counting(root: Client, django_assert_max_num_queries: Any) -> None:
    with by("ann", address="192.0.2.7", request_id="req-7"):
        teams = [Team.objects.create(name=f"team {number}") for number in range(60)]
    with by("bob"):
        gone = str(teams[0].pk)
        teams[0].delete()
    with django_assert_max_num_queries(12):
        page = root.get(LIST, {"actor": "ann"})
    assert len(page.context["cl"].result_list) == 50
    older = root.get(LIST + page.context["cl"].older)
    assert len(older.context["cl"].result_list) == 10

    def found(**query: str) -> int:
        return len(root.get(LIST, query).context["cl"].result_list)

    assert found(actor="bob") == 1
    assert found(action__exact="deleted") == 1
    assert found(object=gone, type="access.Team") == 2
    assert found(address="192.0.2.7") == 50
    assert found(q="req-7") == 50
    assert found(since="1h", source="admin") == 0


def test_an_event_shows_before_and_after_as_text(root: Client) -> None:
    team = Team.objects.create(name="search")
    team.name = "<script>alert(1)</script>"
    team.save()
    row = AuditEvent.objects.latest("sequence")
    page = root.get(f"{LIST}{row.pk}/change/").content.decode()
    assert "<del>search</del>" in page
    assert "<ins>&lt;script&gt;alert(1)&lt;/script&gt;</ins>" in page
    assert f"/admin/access/team/{team.pk}/history/" in page


def test_a_row_that_was_tampered_with_still_opens() -> None:
    from monitoring.audit_admin import shown

    assert shown(AuditEvent(changes="{not json"))["fields"] == []
    assert shown(AuditEvent(changes='["x"]'))["fields"] == []
    assert shown(AuditEvent(changes='{"a": 5}'))["fields"][0]["after"] == "5"


def test_history_of_one_object(root: Client) -> None:
    team, other = Team.objects.create(name="search"), Team.objects.create(name="other")
    team.name = "find"
    team.save()
    url = f"/admin/access/team/{team.pk}/history/"
    assert url in root.get(f"/admin/access/team/{team.pk}/change/").content.decode()
    page = root.get(url)
    assert [event["row"].action for event in page.context["events"]] == ["changed", "created"]
    assert other.name not in page.content.decode()
    team.delete()
    page = root.get(url)
    assert [event["row"].action for event in page.context["events"]] == ["deleted", "changed", "created"]
    assert root.get("/admin/access/nothing/7/history/").status_code == 404
    assert root.get(url, {"before": "x"}).status_code == 200


def test_who_sees_a_history(staff: Callable[..., Client]) -> None:
    team = Team.objects.create(name="search")
    url = f"/admin/access/team/{team.pk}/history/"
    client = staff("access.view_team")
    assert client.get(url).status_code == 200
    assert client.get(f"/admin/auth/user/{User.objects.get().pk}/history/").status_code == 403
    assert client.get(LIST).status_code == 403
    team.delete()
    assert client.get(url).status_code == 403


def test_export_is_what_the_filters_leave_and_is_recorded(root: Client) -> None:
    with by("ann"):
        Team.objects.create(name='=HYPERLINK("http://x")')
    answer = root.get(f"{LIST}export.csv", {"actor": "ann"})
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert [row["object_label"] for row in rows] == ['\'=HYPERLINK("http://x")']
    recorded = AuditEvent.objects.latest("sequence")
    assert (recorded.action, json.loads(recorded.changes)["query"]) == ("exported", [None, "actor=ann"])
    lines = [json.loads(line) for line in root.get(f"{LIST}export.jsonl").content.decode().splitlines()]
    assert [line["sequence"] for line in lines] == list(range(AuditEvent.objects.count(), 0, -1))
    assert root.get(f"{LIST}export.exe").status_code == 404


def test_looking_is_not_exporting(staff: Callable[..., Client]) -> None:
    client = staff("monitoring.view_auditevent")
    page = client.get(LIST)
    assert page.status_code == 200
    assert "Export CSV" not in page.content.decode()
    assert client.get(f"{LIST}export.csv").status_code == 403
    audit.record("refused")
    assert AuditEvent.objects.latest("sequence").action == "refused"
