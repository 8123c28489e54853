"""Budgets in the admin: money is typed as money, and what is used stands beside it."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from access.models import Budget
from monitoring.accounts import Posting, post
from monitoring.models import BudgetAccount
from tests.admin.conftest import World

pytestmark = pytest.mark.usefixtures("standing_world")

ADD = "/admin/access/budget/add/"


def fields(world: World, **changes: str) -> dict[str, str]:
    values = {"team": str(world.team.pk), "user": "", "kind": "money", "currency": "USD", "limit": "12.50", "period": "total", "hard": "on"}
    return {**values, **changes}


def test_a_budget_is_added_used_and_changed(root: Client, world: World) -> None:
    response = root.post(ADD, fields(world))
    assert response.status_code == 302, response.context["errors"]
    row = Budget.objects.get(kind="money")
    assert row.limit == 12_500_000
    post([Posting(str(row.pk), 0, 0, 10_250_000)])
    BudgetAccount.objects.update(leased=1_000_000, alerted_percent=80)
    at = reverse("admin:access_budget_change", args=[row.pk])
    for page in (reverse("admin:access_budget_changelist"), at):
        shown = root.get(page).content.decode()
        assert not [text for text in ("12.5", "10.25 USD", "1.00 USD", "1.25 USD", "80 %", "never") if text not in shown]
    assert root.post(at, {"limit": "20", "hard": "on"}).status_code == 302
    row.refresh_from_db()
    assert (row.limit, row.period) == (20_000_000, "total")


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"team": ""}, "team"),
        ({"user": "ann"}, "user"),
        ({"currency": "ABC"}, "currency"),
        ({"limit": "0"}, "limit"),
        ({"limit": "much"}, "limit"),
        ({"period": "year"}, "period"),
    ],
)
def test_what_cannot_work_stands_on_its_field(root: Client, world: World, changes: dict[str, str], at: str) -> None:
    response = root.post(ADD, fields(world, **changes))
    assert set(response.context["adminform"].form.errors) == {at}
