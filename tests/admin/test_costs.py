"""The page of costs: its sums, its forecast, and who may see it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from llmcontrol.costs import budgets_now, figures
from monitoring import rollups
from tests.admin.conftest import World, make_request

NOW = datetime(2026, 3, 11, 12, tzinfo=UTC)


def spend(number: int, at: datetime, micros: int | None, **columns: Any) -> None:
    make_request(f"req_{number}", started_at=at, cost_micros=micros, currency="USD" if micros is not None else "", **columns)


@pytest.fixture
def month(db: None) -> None:
    """One dollar a day at noon, from the 1st of March to the 10th, by two models and two teams; ten dollars in February."""
    spend(0, NOW - timedelta(days=20), 10_000_000)
    for day in range(1, 11):
        alias, team = ("gpt-4o", "search") if day % 2 else ("qwen", "ads")
        spend(day, datetime(2026, 3, day, 12, 30, tzinfo=UTC), 1_000_000, alias=alias, team_name=team)
    spend(99, NOW - timedelta(days=1), None)
    rollups.rebuild()


def test_the_month_and_what_it_will_have_cost(month: None) -> None:
    found = figures(NOW, 30)
    assert found["costs"] == ["20.00 USD"]
    assert found["month"] == "10.00 USD"
    # A dollar a day for twenty and a half days more.
    assert found["forecast"] == "30.50 USD"
    assert found["unpriced"] == 1
    assert figures(NOW, 7)["costs"] == ["6.00 USD"]


def test_the_first_moment_of_a_month_has_a_forecast_too(month: None) -> None:
    found = figures(datetime(2026, 4, 1, tzinfo=UTC), 30)
    assert (found["month"], found["forecast"]) == ("0.00 USD", "0.00 USD")


def test_the_chart_stacks_models_by_day(month: None) -> None:
    chart = json.loads(figures(NOW, 7)["by_model"])
    assert chart["labels"] == ["03-05", "03-06", "03-07", "03-08", "03-09", "03-10", "03-11"]
    assert {bar["label"]: bar["data"] for bar in chart["datasets"]} == {
        "gpt-4o": [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0],
        "qwen": [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0],
    }


def test_of_many_models_the_dearest_are_shown_and_the_others_together(db: None) -> None:
    for number in range(9):
        spend(number, NOW - timedelta(days=1), 1_000_000 * (number + 1), alias=f"model-{number}")
    rollups.rebuild()
    bars = json.loads(figures(NOW, 7)["by_model"])["datasets"]
    assert [bar["label"] for bar in bars] == [*(f"model-{number}" for number in range(8, 2, -1)), "all others"]
    assert sum(bars[-1]["data"]) == 1 + 2 + 3


def test_teams_and_models(month: None) -> None:
    found = figures(NOW, 30)
    assert [(team["name"], team["cost"], team["percent"]) for team in found["teams"]] == [
        ("search", "15.00 USD", 100),
        ("ads", "5.00 USD", 33),
    ]
    gpt, qwen = found["models"]
    assert (gpt["name"], gpt["answers"], gpt["cost"], gpt["unpriced"]) == ("gpt-4o", 7, "15.00 USD", 1)
    assert (qwen["per_1k"], qwen["cached"]) == ("1,000.00 USD", "0.0 %")


def test_nothing_happened_yet(root: Client) -> None:
    page = root.get("/admin/costs/").content.decode()
    assert "Nothing has cost anything yet" in page


def test_the_page_has_charts_and_no_script_of_its_own(root: Client, month: None, django_assert_max_num_queries: Any) -> None:
    spend(100, datetime.now(UTC), 5_000_000)
    rollups.rebuild()
    with django_assert_max_num_queries(12) as queries:
        page = root.get("/admin/costs/?days=90").content.decode()
    assert page.count('<canvas class="chart"') == 2
    assert not re.findall(r"<script(?![^>]*\bsrc=)", page)
    assert not any("monitoring_usagerecord" in query["sql"] for query in queries.captured_queries)


def test_budgets_show_what_is_used_and_reserved_now(root: Client, world: World) -> None:
    from access.budgets import standing_of
    from access.models import Budget
    from core.periods import period_at
    from monitoring.models import BudgetAccount

    budget = Budget.objects.create(team=world.team, kind="money", currency="USD", limit=100_000_000, period="month")
    start = period_at("month", datetime.now(UTC).timestamp()).start
    BudgetAccount.objects.create(budget_id=str(budget.pk), period_start=start, spent=60_000_000, leased=5_000_000)
    assert standing_of(budget).used == 60_000_000
    (row,) = (row for row in budgets_now() if row["budget"] == budget)
    assert (row["used"], row["reserved"], row["limit"]) == ("60.00 USD", "5.00 USD", "100.00 USD")
    assert (row["used_percent"], row["reserved_percent"], row["near"]) == (60, 5, False)
    assert "60.00 USD used, 5.00 USD reserved now, of 100.00 USD" in root.get("/admin/costs/").content.decode()


def test_the_page_is_for_those_who_may_see_usage(staff: Callable[..., Client], world: World) -> None:
    assert staff("providers.view_provider").get("/admin/costs/").status_code == 403
    auditor = staff("monitoring.view_usagerecord", username="auditor").get("/admin/costs/")
    assert auditor.status_code == 200
    assert "Spend against budget" not in auditor.content.decode()


@pytest.mark.parametrize("asked", ["", "1", "nonsense", "7"])
def test_any_span_shows_a_page(root: Client, asked: str) -> None:
    assert root.get("/admin/costs/", {"days": asked}).status_code == 200
