"""Types of tasks over REST: added, used by name, and ended."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from tasks.models import Task, TaskType
from tests.rest.conftest import World, attrs

pytestmark = pytest.mark.usefixtures("standing_world")

URL, TASKS = "/api/v1/llm/task-types", "/api/v1/tasks"
SCHEMA = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
BODY: dict[str, Any] = {
    "name": "triage",
    "description": "For the help desk.",
    "prompt": "greeting",
    "prompt_version": "1",
    "result_schema": SCHEMA,
    "model": "main",
    "max_tokens": 50,
    "temperature": 0.5,
    "timeout_s": 9.0,
    "max_concurrency": 4,
}
PLAIN = {"prompt_version": "", "result_schema": None, "model": "", "max_tokens": None, "temperature": None, "timeout_s": None}


@pytest.fixture
def triage(root: APIClient, world: World) -> dict[str, Any]:
    response = root.post(URL, BODY, format="json")
    assert response.status_code == 201, response.content
    return dict(response.json())


def program(world: World) -> APIClient:
    world.api_key.scopes = ["tasks"]
    world.api_key.save()
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {world.api_key_plaintext}")
    return client


def test_what_was_written_is_read(root: APIClient, triage: dict[str, Any]) -> None:
    assert triage == BODY | {"id": str(TaskType.objects.get(name="triage").pk), "is_active": True}
    assert root.get(f"{URL}/{triage['id']}").json() == triage
    assert [row["name"] for row in root.get(URL).json()["results"]] == ["greeting", "triage"]
    assert [row["name"] for row in root.get(f"{URL}?prompt=greeting&name=triage").json()["results"]] == ["triage"]


def test_a_program_names_it_as_any_other(root: APIClient, world: World, triage: dict[str, Any]) -> None:
    asked = {"type": "triage", "data": {"name": "Ann"}}
    client = program(world)
    answers = [client.post(TASKS, asked, format="json"), client.post(f"{TASKS}/batch", {"tasks": [asked, asked]}, format="json")]
    assert [answer.status_code for answer in answers] == [202, 202], answers[0].content
    tasks = Task.objects.filter(kind="triage")
    assert len(tasks) == 3
    assert {(task.model, task.timeout_s, task.template["variables"]["name"]) for task in tasks} == {("main", 9.0, "Ann")}
    shown = client.get(f"{TASKS}?type=triage").json()["results"]
    assert [task["type"] for task in shown] == ["triage"] * 3
    root.patch(f"{URL}/{triage['id']}", {"is_active": False}, format="json")
    refused = client.post(f"{TASKS}/batch", {"tasks": [asked]}, format="json")
    assert attrs(refused) == {"tasks.0.type"}
    assert root.delete(f"{URL}/{triage['id']}").status_code == 204
    assert attrs(client.post(TASKS, asked, format="json")) == {"type"}
    assert tasks.count() == 3


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"name": "custom"}, "name"),
        ({"name": "greeting"}, "name"),
        ({"name": ""}, "name"),
        ({"prompt": "nobody"}, "prompt"),
        ({"prompt_version": "production"}, "prompt_version"),
        ({"result_schema": "text"}, "result_schema"),
        ({"result_schema": []}, "result_schema"),
        ({"result_schema": {"type": "object", "properties": {"a": {"$ref": "#"}}}}, "result_schema"),
        ({"timeout_s": 1e9}, "timeout_s"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": "warm"}, "temperature"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"kind": "x"}, "kind"),
    ],
)
def test_what_a_type_cannot_be_names_the_field(root: APIClient, triage: dict[str, Any], changed: dict[str, Any], field: str) -> None:
    assert attrs(root.post(URL, {**BODY, "name": "another", **changed}, format="json")) == {field}
    assert TaskType.objects.count() == 2


def test_a_type_keeps_its_name_and_loses_what_is_taken_away(root: APIClient, triage: dict[str, Any]) -> None:
    url = f"{URL}/{triage['id']}"
    assert attrs(root.patch(url, {"name": "other"}, format="json")) == {"name"}
    changed = root.patch(url, PLAIN, format="json").json()
    assert changed == triage | PLAIN
