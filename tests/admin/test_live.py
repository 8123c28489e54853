"""Requests as they are recorded: what the page asks for every few seconds, and whom it tells what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.test.utils import CaptureQueriesContext

from access.models import Team, TeamMember
from monitoring.live import AT_ONCE
from monitoring.models import RequestLog
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
    with django_assert_max_num_queries(5) as queries:
        assert root.get(ROWS + query).status_code == 200
    log = [entry["sql"] for entry in queries.captured_queries if "monitoring_requestlog" in entry["sql"]]
    assert not [sql for sql in log if "COUNT(" in sql or "OFFSET" in sql or "decision" in sql]
    assert all("LIMIT" in sql for sql in log)
