"""The overview: true figures, from few queries, and only for those who may read the log."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from llmcontrol.dashboard import SPANS, figures
from monitoring import last_hour, rollups
from providers import states
from tests.admin.conftest import World, make_request

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def day(db: None) -> None:
    """Seven requests of the last 24 hours, one before them and one after `NOW`."""
    ago = [(0, "gpt-4o", 200, 1_500_000, "USD"), (1, "gpt-4o", 200, 2_504_999, "USD"), (1, "qwen", 200, None, "")]
    ago += [(2, "gpt-4o", 502, 0, "USD"), (2, "gpt-4o", 499, 100, "EUR"), (23, "qwen", 200, None, "")]
    for number, (hours, alias, status, cost, currency) in enumerate(ago):
        moment = NOW - timedelta(hours=hours, minutes=1)
        make_request(f"req_{number}", started_at=moment, alias=alias, status_code=status, cost_micros=cost, currency=currency)
    refused = {"alias": "made-up", "status_code": 404, "attempts": 0, "total_tokens": 0}
    make_request("req_refused", started_at=NOW - timedelta(hours=3), **refused)[1].delete()
    make_request("req_old", started_at=NOW - timedelta(hours=26), cost_micros=9_000_000, currency="USD")
    make_request("req_later", started_at=NOW + timedelta(days=1), cost_micros=9_000_000, currency="USD")
    rollups.rebuild()


def test_figures_add_up(day: None) -> None:
    found = figures(NOW)
    assert found["requests"] == 7
    assert found["errors"] == 2, "the client that left is no error"
    assert found["tokens"] == 6 * 30
    assert found["costs"] == ["0.0001 EUR", "4.00 USD"], "currencies are not mixed, and sums of a unit or more end at the cent"
    assert found["unpriced"] == 2, "a request that no vendor saw has no price to know"
    assert [(row["name"], row["requests"], row["share"]) for row in found["models"]] == [("gpt-4o", 4, 100), ("qwen", 2, 50)]


def chart(found: dict[str, Any], name: str = "requests_chart") -> dict[str, Any]:
    drawn = json.loads(found[name])
    return {"labels": drawn["labels"], **{part["label"]: part["data"] for part in drawn["datasets"]}}


def test_the_chart_has_one_bar_an_hour(day: None) -> None:
    bars = chart(figures(NOW))
    assert len(bars["labels"]) == 25
    assert (bars["labels"][0], bars["labels"][-1]) == ("12:00", "12:00")
    assert [sum(pair) for pair in zip(bars["answered"][-4:], bars["failed"][-4:], strict=True)] == [1, 2, 2, 1]
    assert bars["failed"][-3] == 1


def test_the_last_hour_is_told_by_the_minute(day: None, monkeypatch: pytest.MonkeyPatch) -> None:
    make_request("req_fast", started_at=NOW - timedelta(minutes=5), duration_ms=400, first_token_ms=100, total_tokens=30, team_name="ads")
    found = figures(NOW, "hour")
    bars = chart(found)
    assert (found["requests"], found["note"]) == (2, "")
    assert len(bars["labels"]) == 60
    assert (bars["answered"][-6], bars["answered"][-2]) == (1, 1)
    assert bars["labels"][-1] == "12:30"
    assert {row["name"] for row in found["teams"]} >= {"ads"}
    assert chart(found, "durations_chart")["answer, half within"][-6] == pytest.approx(0.4, rel=0.45)

    monkeypatch.setattr(last_hour, "MAX_REQUESTS", 1)
    assert figures(NOW, "hour")["requests"] == 1
    assert "there were more in this hour" in figures(NOW, "hour")["note"]


def test_a_week_is_told_by_the_day(day: None) -> None:
    found = figures(NOW, "week")
    assert chart(found)["labels"] == ["02-23", "02-24", "02-25", "02-26", "02-27", "02-28", "03-01"]
    assert found["requests"] == 8, "the one of 26 hours ago is in it"


def test_nothing_happened_yet(db: None) -> None:
    for span in SPANS:
        found = figures(NOW, span)
        assert (found["requests"], found["tokens"], found["costs"], found["models"], found["answer"]) == (0, 0, [], [], None)


def test_vendors_and_the_queue_are_for_those_who_may_see_them(staff: Callable[..., Client], world: World) -> None:
    broken = {"key": "", "model": "m", "state": "open", "failures": 5, "reason": "It answered 503.", "next_try_at": None}
    states.write("worker-1", {str(world.provider.pk): {"breakers": [broken], "rests": []}})
    page = staff("providers.view_provider").get("/admin/").content.decode()
    assert "breaker open" in page
    assert "It answered 503." in page
    assert "Queued tasks" not in page
    listed = staff("providers.view_provider", username="other").get("/admin/providers/provider/").content.decode()
    assert "breaker open" in listed
    auditor = staff("monitoring.view_requestlog", "tasks.view_task", username="auditor").get("/admin/?span=week").content.decode()
    assert "breaker open" not in auditor
    assert "Queued tasks" in auditor


def test_the_page_needs_few_queries_and_no_script(root: Client, day: None, django_assert_max_num_queries: Callable[..., object]) -> None:
    with django_assert_max_num_queries(14):
        page = root.get("/admin/").content.decode()
    assert page.count("<canvas") == 2
    assert not re.findall(r"<script(?![^>]*\bsrc=)", page)


def test_figures_are_for_those_who_may_read_the_log(staff: Callable[..., Client], day: None) -> None:
    assert "How long they took" not in staff("providers.view_provider").get("/admin/").content.decode()
    assert "How long they took" in staff("monitoring.view_requestlog", username="auditor").get("/admin/").content.decode()
