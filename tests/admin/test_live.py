"""Requests as they come and end: what the page asks for every few seconds, and whom it tells what."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from access.models import Team, TeamMember
from monitoring.live import AT_ONCE
from monitoring.models import OpenRequest, OpenRequestsWanted, RequestLog
from tests.admin.conftest import make_request
from tests.admin.test_ledger import many

__all__ = ["many"]

PAGE, ROWS = "/admin/monitoring/requestlog/live/", "/admin/monitoring/requestlog/live/rows"
HOSTILE = "<script>alert(1)</script>"


def told(client: Client, **query: Any) -> Any:
    return client.get(ROWS, query).json()


def ids(found: Any) -> list[str]:
    return [row["cells"][1]["text"] for row in found["rows"]]


def test_the_newest_come_first_and_the_next_are_those_after_them(root: Client, many: list[str]) -> None:
    first = told(root)
    assert ids(first) == many[:AT_ONCE]
    assert first["more"]
    assert ids(told(root, after=first["last"])) == []
    make_request("req_9998"), make_request("req_9999")
    following = told(root, after=first["last"])
    assert (ids(following), following["more"]) == (["req_9999", "req_9998"], False)


def test_of_too_many_at_once_the_newest_are_told(root: Client, many: list[str]) -> None:
    found = told(root, after=RequestLog.objects.order_by("pk")[20].pk)
    assert (ids(found), found["more"]) == (many[:AT_ONCE], True)


def test_the_filters_are_those_of_the_list(root: Client, many: list[str]) -> None:
    assert ids(told(root, outcome="failed", model="even")) == [row for row in many if int(row[4:]) % 10 == 0]
    assert ids(told(root, model="odd", outcome="failed")) == []
    newest = RequestLog.objects.latest("pk").pk
    assert told(root, model="none of these")["last"] == newest
    refused = root.get(ROWS, {"code": "teapot"})
    assert (refused.status_code, "not an HTTP status code" in refused.json()["error"]) == (400, True)
    assert "teapot" not in root.get(PAGE).content.decode()
    assert root.get(ROWS, {"decision": "x"}).status_code == 400


def test_a_row_is_what_the_list_shows(root: Client, db: None) -> None:
    row, _ = make_request("req_one", team_name=HOSTILE, status_code=502, total_tokens=1234, cost_micros=5, currency="USD")
    (shown,) = told(root)["rows"]
    assert shown["url"] == f"/admin/monitoring/requestlog/{row.pk}/change/"
    assert shown["cells"][2] == {"kind": "", "text": HOSTILE}
    assert shown["cells"][6] == {"kind": "failed", "text": "502"}
    assert [cell["text"] for cell in shown["cells"][7:]] == ["1,234", "0.000005 USD", "1,500 ms"]


def test_the_page_shows_its_filters_as_text_and_keeps_the_others(root: Client, db: None) -> None:
    page = root.get(PAGE, {"team": HOSTILE, "tag": HOSTILE, "after": "5", "outcome": "failed"}).content.decode()
    assert HOSTILE not in page
    assert '<input type="hidden" name="tag"' in page
    assert 'value="failed" selected' in page
    assert "after=5" not in page


def test_a_person_of_a_team_follows_that_team_alone(client: Client, db: None) -> None:
    ours, theirs = Team.objects.create(name="ours"), Team.objects.create(name="theirs")
    user = User.objects.create_user("mia", is_staff=True)
    TeamMember.objects.create(team=ours, user=user, role="member")
    make_request("req_ours", team_id=str(ours.pk))
    make_request("req_theirs", team_id=str(theirs.pk))
    client.force_login(user)
    found = told(client)
    assert ids(found) == ["req_ours"]
    assert found["last"] == RequestLog.objects.get(request_id="req_ours").pk
    TeamMember.objects.update(role="viewer")
    assert client.get(ROWS).status_code == client.get(PAGE).status_code == 403


@pytest.mark.parametrize("query", ["", "?after=1", "?after=100&model=even&outcome=failed", "?team=none"])
def test_no_look_counts_or_skips(
    root: Client, many: list[str], query: str, django_assert_max_num_queries: Callable[..., CaptureQueriesContext]
) -> None:
    OpenRequestsWanted.objects.create(until=timezone.now() + timedelta(hours=1))
    with django_assert_max_num_queries(7) as queries:
        assert root.get(ROWS + query).status_code == 200
    log = [entry["sql"] for entry in queries.captured_queries if "monitoring_requestlog" in entry["sql"]]
    assert not [sql for sql in log if "COUNT(" in sql or "OFFSET" in sql or "decision" in sql]
    assert all("LIMIT" in sql for sql in log)


def begun(request_id: str, **columns: Any) -> OpenRequest:
    now = timezone.now()
    known = {"token": "t", "told_at": now, "started_at": now - timedelta(seconds=5), "attempt": 1, "streamed": False, "alias": "gpt"}
    return OpenRequest.objects.create(request_id=request_id, **{**known, **columns})


def in_progress(found: Any) -> list[str]:
    return [row["cells"][1]["text"] for row in found["open"]]


def test_those_in_progress_are_told_until_they_have_ended(root: Client, db: None) -> None:
    begun("req_1", team_name=HOSTILE, key_name="web", provider_name="vendor", streamed=True, attempt=2)
    begun("req_2", started_at=timezone.now())
    found = told(root)
    assert (in_progress(found), found["rows"], found["more_open"]) == (["req_2", "req_1"], [], False)
    shown = found["open"][1]
    assert 4 < shown["age_s"] < 120
    assert [cell["text"] for cell in shown["cells"][1:6]] == ["req_1", HOSTILE, "web", "gpt", "vendor"]
    assert (shown["cells"][0]["kind"], len(shown["cells"][0]["text"])) == ("age", len("2026-01-31 13:45:00"))
    assert shown["cells"][6] == {"kind": "open", "text": "in progress, streamed, attempt 2"}
    assert [cell["text"] for cell in shown["cells"][7:]] == ["–"] * 3
    make_request("req_2")
    found = told(root)
    assert (in_progress(found), ids(found)) == (["req_1"], ["req_2"])


def test_the_filters_hold_for_those_in_progress_as_far_as_they_can(root: Client, db: None) -> None:
    begun("req_1", alias="mini", key_name="web"), begun("req_2")
    assert in_progress(told(root, model="mini")) == in_progress(told(root, key="web", outcome="")) == ["req_1"]
    assert in_progress(told(root, model="none")) == []
    assert told(root, outcome="failed")["open"] is told(root, code="200")["open"] is told(root, since="1h")["open"] is None


def test_what_was_said_long_ago_is_not_told_and_of_many_the_longest_are(root: Client, db: None) -> None:
    begun("req_old", told_at=timezone.now() - timedelta(seconds=30))
    for number in range(AT_ONCE + 1):
        begun(f"req_{number}", started_at=timezone.now() - timedelta(seconds=number))
    found = told(root)
    assert (len(found["open"]), found["more_open"]) == (AT_ONCE, True)
    assert not {"req_old", "req_0"} & set(in_progress(found))


def test_a_person_of_a_team_sees_of_those_in_progress_that_team_alone(client: Client, db: None) -> None:
    ours, theirs = Team.objects.create(name="ours"), Team.objects.create(name="theirs")
    user = User.objects.create_user("mia", is_staff=True)
    TeamMember.objects.create(team=ours, user=user, role="member")
    begun("req_ours", team_id=str(ours.pk)), begun("req_theirs", team_id=str(theirs.pk))
    client.force_login(user)
    assert in_progress(told(client)) == ["req_ours"]


def test_who_looks_has_it_told_and_a_database_that_refuses_is_no_failure(root: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not OpenRequestsWanted.objects.exists()
    assert told(root)["open"] == []
    assert OpenRequestsWanted.objects.get().until > timezone.now() + timedelta(seconds=20)

    def refuse(*args: Any, **options: Any) -> None:
        raise OperationalError("database is locked")

    OpenRequestsWanted.objects.update(until=timezone.now())
    monkeypatch.setattr(OpenRequestsWanted.objects, "update_or_create", refuse)
    assert told(root)["open"] == []
