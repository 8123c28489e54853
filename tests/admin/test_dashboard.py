"""The overview: true figures, from few queries, and only for those who may read the log."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from llmcontrol.dashboard import figures
from monitoring import rollups
from tests.admin.conftest import make_request

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
    make_request("req_later", started_at=NOW + timedelta(hours=1), cost_micros=9_000_000, currency="USD")
    rollups.rebuild()


def test_figures_add_up(day: None) -> None:
    found = figures(NOW)
    assert found["requests"] == 7
    assert found["errors"] == 2, "the client that left is no error"
    assert found["tokens"] == 6 * 30
    assert found["costs"] == ["0.0001 EUR", "4.00 USD"], "currencies are not mixed, and sums of a unit or more end at the cent"
    assert found["unpriced"] == 2, "a request that no vendor saw has no price to know"
    assert [(row["alias"], row["requests"], row["share"]) for row in found["models"]] == [("gpt-4o", 4, 100), ("qwen", 2, 50)]


def test_the_chart_has_one_bar_an_hour(day: None) -> None:
    bars = figures(NOW)["bars"]
    assert len(bars) == 25
    assert [bar["requests"] for bar in bars[-4:]] == [1, 2, 2, 1]
    assert (bars[-3]["errors"], bars[-1]["hour"], bars[0]["hour"]) == (1, "12:00", "12:00")
    assert bars[-2]["height"] == max(bar["height"] for bar in bars) == 160


def test_nothing_happened_yet(db: None) -> None:
    found = figures(NOW)
    assert (found["requests"], found["tokens"], found["costs"], found["models"]) == (0, 0, [], [])
    assert {bar["height"] for bar in found["bars"]} == {0}


def test_the_page_needs_few_queries_and_no_script(root: Client, day: None, django_assert_max_num_queries: Callable[..., object]) -> None:
    with django_assert_max_num_queries(9):
        page = root.get("/admin/").content.decode()
    assert "<svg" in page
    assert not re.findall(r"<script(?![^>]*\bsrc=)", page)


def test_figures_are_for_those_who_may_read_the_log(staff: Callable[..., Client], day: None) -> None:
    assert "Requests per hour" not in staff("providers.view_provider").get("/admin/").content.decode()
    assert "Requests per hour" in staff("monitoring.view_requestlog", username="auditor").get("/admin/").content.decode()
