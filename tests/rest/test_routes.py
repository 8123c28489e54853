"""Routes over REST."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from models_registry.models import LLMModel, Route
from tests.rest.conftest import World, attrs

pytestmark = pytest.mark.usefixtures("standing_world")

URL = "/api/v1/llm/routes"
BODY: dict[str, Any] = {
    "alias": "support",
    "description": "For the help desk",
    "is_active": True,
    "visibility": "everyone",
    "targets": ["echo", "other"],
    "strategy": "weighted",
    "weights": {"echo": 3},
    "fallbacks": ["third"],
    "task_types": ["translation", "our-own"],
    "degrade_to": "small",
    "fixed_answer": "Please come back later.",
    "cache_ttl_s": None,
}


@pytest.fixture(autouse=True)
def models(world: World) -> None:
    for alias, model_type in (("other", "chat"), ("third", "chat"), ("small", "chat"), ("vectors", "embedding")):
        LLMModel.objects.create(provider=world.provider, model_id=alias, alias=alias, model_type=model_type)


def test_a_route_round_trips(root: APIClient) -> None:
    response = root.post(URL, BODY)
    assert response.status_code == 201
    shown = response.json()
    assert shown == {**BODY, "id": str(Route.objects.get(alias="support").id)}
    assert root.get(f"{URL}/{shown['id']}").json() == shown
    assert root.get(f"{URL}?alias=support").json()["results"] == [shown]


def test_the_least_that_is_needed(root: APIClient) -> None:
    shown = root.post(URL, {"alias": "r", "targets": ["echo"]}).json()
    assert (shown["is_active"], shown["degrade_to"], shown["fixed_answer"], shown["description"]) == (True, "", "", "")
    assert (shown["strategy"], shown["weights"], shown["fallbacks"], shown["task_types"]) == ("priority", {}, [], [])


def test_a_change_and_the_end(root: APIClient, world: World) -> None:
    at = f"{URL}/{world.route.id}"
    assert root.patch(at, {"targets": ["other"], "degrade_to": "small"}).json()["targets"] == ["other"]
    assert attrs(root.patch(at, {"degrade_to": "other"})) == {"degrade_to"}
    world.route.refresh_from_db()
    assert (world.route.targets, world.route.degrade_to) == (["other"], "small")
    assert root.delete(at).status_code == 204
    assert not Route.objects.exists()


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"alias": ""}, "alias"),
        ({"alias": " "}, "alias"),
        ({"alias": "no spaces"}, "alias"),
        ({"alias": "a" * 201}, "alias"),
        ({"alias": "main"}, "alias"),
        ({"targets": []}, "targets"),
        ({"targets": "echo"}, "targets"),
        ({"targets": None}, "targets"),
        ({"targets": ["echo", "nowhere"]}, "targets"),
        ({"targets": ["main"]}, "targets"),
        ({"targets": ["support"]}, "targets"),
        ({"targets": ["echo", "echo"]}, "targets"),
        ({"targets": ["echo", "vectors"], "degrade_to": "", "fixed_answer": ""}, "targets"),
        ({"targets": [f"m{number}" for number in range(11)]}, "targets"),
        ({"degrade_to": "nowhere"}, "degrade_to"),
        ({"degrade_to": "main"}, "degrade_to"),
        ({"degrade_to": "echo"}, "degrade_to"),
        ({"degrade_to": "vectors"}, "degrade_to"),
        ({"degrade_to": ["small"]}, "degrade_to"),
        ({"fixed_answer": "x" * 4001}, "fixed_answer"),
        ({"fixed_answer": None}, "fixed_answer"),
        ({"description": "x" * 501}, "description"),
        ({"is_active": "perhaps"}, "is_active"),
        ({"strategy": "cheapest"}, "strategy"),
        ({"strategy": ""}, "strategy"),
        ({"strategy": None}, "strategy"),
        ({"weights": {"third": 1}}, "weights"),
        ({"weights": {"echo": 0}}, "weights"),
        ({"weights": {"echo": 1001}}, "weights"),
        ({"weights": ["echo"]}, "weights"),
        ({"weights": {"echo": "many"}}, "weights.echo"),
        ({"fallbacks": ["echo"]}, "fallbacks"),
        ({"fallbacks": ["nowhere"]}, "fallbacks"),
        ({"fallbacks": ["vectors"]}, "fallbacks"),
        ({"fallbacks": ["small"]}, "degrade_to"),
        ({"task_types": ["two words"]}, "task_types"),
        ({"task_types": ["a", "a"]}, "task_types"),
        ({"task_types": [f"t{number}" for number in range(51)]}, "task_types"),
    ],
)
def test_bad_input_names_the_field_and_creates_nothing(root: APIClient, change: dict[str, Any], at: str) -> None:
    assert attrs(root.post(URL, {**BODY, **change})) == {at}
    assert Route.objects.count() == 1


def test_a_target_that_is_no_text_is_named_by_its_place(root: APIClient) -> None:
    assert attrs(root.post(URL, {**BODY, "targets": ["echo", {"alias": "other"}]})) == {"targets.1"}


def test_a_task_type_leads_to_one_route(root: APIClient) -> None:
    assert root.post(URL, BODY).status_code == 201
    refused = root.post(URL, {"alias": "second", "targets": ["echo"], "task_types": ["translation"]})
    assert attrs(refused) == {"task_types"}
    assert "'support'" in refused.json()["errors"][0]["detail"]
    at = f"{URL}/{Route.objects.get(alias='support').id}"
    assert root.patch(at, {"task_types": ["translation"], "strategy": "cost"}).status_code == 200
