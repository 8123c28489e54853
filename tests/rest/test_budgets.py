"""Budgets over REST."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from access.models import Budget
from core.periods import period_at
from llmcontrol.costs import budgets_now
from monitoring.accounts import Posting, post
from monitoring.models import BudgetAccount, BudgetEntry
from tests.rest.conftest import World, attrs

pytestmark = pytest.mark.usefixtures("standing_world")

URL = "/api/v1/llm/budgets"


@pytest.fixture(autouse=True)
def no_budget(world: World) -> None:
    world.budget.delete()


def body(world: World, **changes: Any) -> dict[str, Any]:
    values = {"scope": {"team": str(world.team.id)}, "kind": "money", "currency": "USD", "limit": "12.50", "period": "month", "hard": True}
    return {**values, **changes}


def test_a_budget_round_trips(root: APIClient, world: World) -> None:
    response = root.post(URL, body(world))
    assert response.status_code == 201, response.content
    shown = response.json()
    row = Budget.objects.get()
    assert row.limit == 12_500_000
    assert shown == root.get(f"{URL}/{row.id}").json()
    assert {name: shown[name] for name in body(world)} == {**body(world), "limit": "12.5"}
    assert (shown["used"], shown["reserved"], shown["left"]) == ("0.0", "0.0", "12.5")
    assert shown["name"] == f"The monthly USD budget of team {world.team.name}"
    assert shown["period_start"].endswith("-01T00:00:00Z")
    assert root.get(f"{URL}?team={world.team.id}").json()["results"] == [shown]
    assert root.delete(f"{URL}/{row.id}").status_code == 204


def test_what_is_used_reserved_and_left(root: APIClient, world: World) -> None:
    shown = root.post(URL, body(world, kind="tokens", currency="", limit=1000, period="total")).json()
    post([Posting(shown["id"], 0, 0, 300)])
    BudgetAccount.objects.update(leased=50)
    now = root.get(f"{URL}/{shown['id']}").json()
    assert (now["limit"], now["used"], now["reserved"], now["left"]) == (1000, 300, 50, 650)
    assert (now["period_start"], now["period_end"]) == (None, None)


@pytest.mark.parametrize("scope", ["key", "provider", "user"])
def test_other_scopes(root: APIClient, world: World, scope: str) -> None:
    holder = {"key": str(world.api_key.id), "provider": str(world.provider.id), "user": "ann"}[scope]
    assert root.post(URL, body(world, scope={scope: holder})).json()["scope"] == {scope: holder}


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"scope": {}}, "scope"),
        ({"scope": {"team": "x", "user": "ann"}}, "scope"),
        ({"scope": {"team": "00000000-0000-0000-0000-000000000000"}}, "scope"),
        ({"scope": {"planet": "x"}}, "scope"),
        ({"scope": {"user": ""}}, "scope"),
        ({"scope": "team"}, "scope"),
        ({"currency": "ABC"}, "currency"),
        ({"currency": ""}, "currency"),
        ({"kind": "tokens", "limit": 5}, "currency"),
        ({"kind": "love"}, "kind"),
        ({"period": "year"}, "period"),
        ({"limit": "0"}, "limit"),
        ({"limit": 0}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "0.0000001"}, "limit"),
        ({"limit": "much"}, "limit"),
        ({"limit": "NaN"}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"limit": "1" * 30}, "limit"),
        ({"kind": "requests", "currency": "", "limit": "1.5"}, "limit"),
        ({"hard": "perhaps"}, "hard"),
        ({"colour": "red"}, "colour"),
        ({"used": "0"}, "used"),
    ],
)
def test_what_cannot_work_is_refused_by_name(root: APIClient, world: World, changes: dict[str, Any], at: str) -> None:
    assert attrs(root.post(URL, body(world, **changes))) == {at}
    assert not Budget.objects.exists()


def test_only_the_limit_and_its_hardness_change(root: APIClient, world: World) -> None:
    at = f"{URL}/{root.post(URL, body(world)).json()['id']}"
    changed = root.patch(at, {"limit": "20", "hard": False}).json()
    assert (changed["limit"], changed["hard"]) == ("20.0", False)
    assert root.patch(at, {"hard": True}).json()["limit"] == "20.0"
    assert attrs(root.patch(at, {"period": "day"})) == {"period"}
    assert attrs(root.patch(at, {"currency": "EUR"})) == {"currency"}
    assert "scope" in attrs(root.patch(at, {"scope": {"user": "ann"}}))


def test_a_correction_is_an_entry_of_its_own(root: APIClient, world: World) -> None:
    at = f"{URL}/{root.post(URL, body(world)).json()['id']}"
    post([Posting(at.rpartition("/")[2], period_at("month", timezone.now().timestamp()).start, 0, 2_000_000)])
    assert root.post(f"{at}/correct", {"amount": "-0.5", "note": "vendor's credit"}).json()["used"] == "1.5"
    assert attrs(root.post(f"{at}/correct", {"amount": "0", "note": "x"})) == {"amount"}
    assert attrs(root.post(f"{at}/correct", {"amount": "1"})) == {"note"}
    assert attrs(root.post(f"{at}/correct", {"amount": "much", "note": "x"})) == {"amount"}


@pytest.mark.parametrize("sign", ["", "-"])
def test_corrections_never_bring_an_account_to_the_end_of_its_column(root: APIClient, world: World, sign: str) -> None:
    at = f"{URL}/{root.post(URL, body(world)).json()['id']}"
    most = {"amount": f"{sign}1000000000000", "note": "too many zeros"}
    assert [root.post(f"{at}/correct", most).status_code for _ in range(5)] == [200, 200, 200, 200, 400]
    assert attrs(root.post(f"{at}/correct", most)) == {"amount"}
    assert root.get(at).json()["used"] == f"{sign}4000000000000.0"
    assert BudgetEntry.objects.count() == 4


def test_budgets_that_differ_by_currency_alone_have_names_of_their_own(root: APIClient, world: World) -> None:
    names = {root.post(URL, body(world, currency=currency)).json()["name"] for currency in ("USD", "CNY")}
    assert names == {f"The monthly {currency} budget of team {world.team.name}" for currency in ("USD", "CNY")}


def test_the_budget_nearest_to_its_limit_is_shown_however_old_it_is(world: World, django_assert_num_queries: Any) -> None:
    budgets = [Budget.objects.create(user=f"user-{number}", kind="requests", limit=100, period="day") for number in range(70)]
    start = period_at("day", timezone.now().timestamp()).start
    BudgetAccount.objects.create(budget_id=str(budgets[0].pk), period_start=start, spent=95)
    with django_assert_num_queries(2):
        nearest = budgets_now()[0]
    assert (nearest["budget"], nearest["used_percent"]) == (budgets[0], 95)
