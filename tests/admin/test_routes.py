"""Routes in the admin: one alias a line, and the chain in plain words."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from models_registry.models import LLMModel, Route
from tests.admin.conftest import World

pytestmark = pytest.mark.usefixtures("standing_world")

ADD = "/admin/models_registry/route/add/"
FIELDS = {
    "alias": "support",
    "description": "",
    "is_active": "on",
    "visibility": "everyone",
    "task_types": "translation\r\n",
    "targets": " gpt-4o \r\n\r\nclaude\r\n",
    "strategy": "weighted",
    "weights": "gpt-4o = 3\r\n\r\n",
    "fallbacks": "spare",
    "degrade_to": "mini",
    "fixed_answer": "Later.",
}


@pytest.fixture(autouse=True)
def models(world: World) -> None:
    for alias in ("claude", "mini", "spare"):
        LLMModel.objects.create(provider=world.provider, model_id=alias, alias=alias)


def test_a_route_is_added_and_told_in_plain_words(root: Client) -> None:
    response = root.post(ADD, FIELDS)
    assert response.status_code == 302, response.context["errors"]
    route = Route.objects.get(alias="support")
    assert (route.targets, route.degrade_to, route.fixed_answer) == (["gpt-4o", "claude"], "mini", "Later.")
    assert (route.strategy, route.weights, route.fallbacks, route.task_types) == ("weighted", {"gpt-4o": 3}, ["spare"], ["translation"])
    weights, after = "by weight gpt-4o 3, claude 1", "the smaller mini; after that a fixed answer"
    told = f"{weights}; if none of them answers, spare; if none of them answers, {after}"
    assert told in root.get(reverse("admin:models_registry_route_changelist")).content.decode()
    page = root.get(reverse("admin:models_registry_route_change", args=[route.pk])).content.decode()
    assert told in page
    assert "gpt-4o\nclaude</textarea>" in page
    assert "gpt-4o = 3</textarea>" in page


def test_a_route_is_changed(root: Client, world: World) -> None:
    url = reverse("admin:models_registry_route_change", args=[world.route.pk])
    assert root.post(url, {**FIELDS, "alias": "main", "targets": "claude", "weights": ""}).status_code == 302
    world.route.refresh_from_db()
    assert world.route.targets == ["claude"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"alias": ""}, "alias"),
        ({"alias": "main"}, "alias"),
        ({"targets": ""}, "targets"),
        ({"targets": "nowhere"}, "targets"),
        ({"targets": "support"}, "targets"),
        ({"targets": "claude\nclaude"}, "targets"),
        ({"degrade_to": "nowhere"}, "degrade_to"),
        ({"degrade_to": "claude"}, "degrade_to"),
        ({"fixed_answer": "x" * 4001}, "fixed_answer"),
        ({"strategy": "cheapest"}, "strategy"),
        ({"weights": "gpt-4o"}, "weights"),
        ({"weights": "gpt-4o = many"}, "weights"),
        ({"weights": "gpt-4o = 0"}, "weights"),
        ({"weights": "spare = 3"}, "weights"),
        ({"weights": "gpt-4o = 1\ngpt-4o = 2"}, "weights"),
        ({"fallbacks": "nowhere"}, "fallbacks"),
        ({"fallbacks": "claude"}, "fallbacks"),
        ({"task_types": "two words"}, "task_types"),
    ],
)
def test_what_cannot_work_stands_on_its_field(root: Client, change: dict[str, str], field: str) -> None:
    response = root.post(ADD, {**FIELDS, **change})
    assert response.status_code == 200
    assert set(response.context["adminform"].form.errors) == {field}
    assert Route.objects.count() == 1


def test_a_row_that_came_past_the_forms_can_still_be_looked_at(root: Client) -> None:
    route = Route.objects.create(alias="odd", targets={"not": "a list"}, weights=[1], fallbacks="x", task_types=7, strategy="odd")
    assert root.get(reverse("admin:models_registry_route_change", args=[route.pk])).status_code == 200
    assert root.get(reverse("admin:models_registry_route_changelist")).status_code == 200
