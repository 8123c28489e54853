"""Prompt templates over REST: versions that are never edited, labels that move, a preview."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from models_registry.models import PromptTemplate, PromptVersion
from tests.rest.conftest import World, attrs

pytestmark = pytest.mark.usefixtures("standing_world")

URL = "/api/v1/llm/prompts"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"history": "before"}, {"role": "user", "content": "{{question}}"}]
VARIABLES = [{"name": "question", "max_characters": 100}, {"name": "before", "type": "history", "required": False}]
BODY: dict[str, Any] = {"name": "support", "messages": MESSAGES, "variables": VARIABLES, "description": "For the help page."}


@pytest.fixture
def prompt(root: APIClient, world: World) -> dict[str, Any]:
    response = root.post(URL, BODY, format="json")
    assert response.status_code == 201, response.content
    return dict(response.json())


def test_a_new_prompt_has_version_1(prompt: dict[str, Any]) -> None:
    assert prompt == BODY | {
        "id": str(PromptTemplate.objects.get(name="support").pk),
        "is_active": True,
        "visibility": "everyone",
        "labels": {},
        "version": 1,
        "max_input_tokens": None,
        "note": "",
    }


def test_a_change_of_the_texts_is_another_version_and_the_old_one_stays(root: APIClient, prompt: dict[str, Any]) -> None:
    url = f"{URL}/{prompt['id']}"
    changed = [{"role": "user", "content": "{{question}}!"}]
    body = {"messages": changed, "variables": VARIABLES[:1], "note": "louder", "labels": {"production": 1, "staging": 2}}
    answer = root.patch(url, body, format="json").json()
    assert (answer["version"], answer["messages"], answer["labels"]) == (2, changed, {"production": 1, "staging": 2})
    versions = root.get(f"{url}/versions").json()["results"]
    assert [(each["version"], each["messages"], each["note"], each["created_by"]) for each in versions] == [
        (2, changed, "louder", "root"),
        (1, MESSAGES, "", "root"),
    ]
    assert root.get(f"{url}/versions?page_size=1").json()["next"]


def test_what_says_the_same_makes_no_version(root: APIClient, prompt: dict[str, Any]) -> None:
    url = f"{URL}/{prompt['id']}"
    for method, body in (("put", BODY), ("patch", {"messages": MESSAGES}), ("patch", {"description": "x"}), ("patch", {"labels": {}})):
        assert getattr(root, method)(url, body, format="json").json()["version"] == 1
    assert PromptVersion.objects.filter(template__name="support").count() == 1


def test_labels_move(root: APIClient, prompt: dict[str, Any]) -> None:
    url = f"{URL}/{prompt['id']}"
    assert root.patch(url, {"labels": {"production": 1}}, format="json").json()["labels"] == {"production": 1}
    root.patch(url, {"max_input_tokens": 500}, format="json")
    assert root.patch(url, {"labels": {"production": 2}}, format="json").json()["labels"] == {"production": 2}


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"name": "no spaces"}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "-x"}, "name"),
        ({"name": "greeting"}, "name"),
        ({"name": "0b9e4be4-6f32-4c0e-8f3b-1b6a52dd6b3e"}, "name"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "{{question"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "{{ question.upper }}"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "{% include 'x' %}"}]}, "variables"),
        ({"messages": [{"role": "user", "content": "{{other}}"}]}, "variables"),
        ({"messages": [{"role": "user", "content": "{{question}}{{before}}"}]}, "messages"),
        ({"messages": [*MESSAGES, {"history": "before"}]}, "messages"),
        ({"messages": [*MESSAGES, {"history": "question"}]}, "messages"),
        ({"messages": [*MESSAGES, {"role": "user", "content": "x" * 100_001}]}, "messages"),
        ({"messages": [{"role": "user", "content": "{{question}}"}] * 51}, "messages"),
        ({"variables": [*VARIABLES, {"name": "idle"}]}, "variables"),
        ({"variables": [*VARIABLES, VARIABLES[0]]}, "variables"),
        ({"variables": [{"name": "1st"}]}, "variables"),
        ({"variables": [{"name": "question", "type": "code"}]}, "variables"),
        ({"variables": [{"name": "question", "max_characters": 0}]}, "variables"),
        ({"variables": [{"name": "question", "required": True, "default": "x"}]}, "variables"),
        ({"variables": [{"name": "question", "eval": "x"}]}, "variables"),
        ({"labels": {"production": 2}}, "labels"),
        ({"labels": {"latest": 1}}, "labels"),
        ({"labels": {"Production": 1}}, "labels"),
        ({"labels": {"1": 1}}, "labels"),
        ({"labels": {"production": 0}}, "labels.production"),
        ({"max_input_tokens": 0}, "max_input_tokens"),
        ({"note": "x" * 301}, "note"),
        ({"version": 3}, "version"),
        ({"engine": "jinja"}, "engine"),
    ],
)
def test_bad_input_names_the_field_and_creates_nothing(root: APIClient, world: World, change: dict[str, Any], at: str) -> None:
    assert attrs(root.post(URL, {**BODY, **change}, format="json")) == {at}
    assert PromptTemplate.objects.count() == PromptVersion.objects.count() == 1


def test_a_refused_change_leaves_everything_as_it_was(root: APIClient, prompt: dict[str, Any]) -> None:
    url = f"{URL}/{prompt['id']}"
    body = {"description": "new", "messages": [{"role": "user", "content": "{{question}}"}], "variables": VARIABLES[:1]}
    assert attrs(root.patch(url, {**body, "labels": {"production": 9}}, format="json")) == {"labels"}
    assert root.get(url).json() == prompt
    assert PromptVersion.objects.filter(template__name="support").count() == 1


def test_a_preview_is_what_would_be_sent(root: APIClient, prompt: dict[str, Any]) -> None:
    history = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"}]
    body = {"variables": {"question": "{{before}}", "before": history}}
    answer = root.post(f"{URL}/{prompt['id']}/preview", body, format="json")
    assert answer.status_code == 200, answer.content
    found = answer.json()
    assert found["messages"] == [{"role": "system", "content": "Be brief."}, *history, {"role": "user", "content": "{{before}}"}]
    assert (found["version"], found["left_out"]) == (1, "")
    assert found["tokens"] > 10
    short = root.post(f"{URL}/{prompt['id']}/preview", {**body, "room_tokens": 20}, format="json").json()
    assert (len(short["messages"]), short["left_out"]) == (2, "prompt.variables.before[0..1]")


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({}, "variables.question"),
        ({"variables": {"question": 1}}, "variables.question"),
        ({"variables": {"question": "x" * 101}}, "variables.question"),
        ({"variables": {"question": "x", "more": "y"}}, "variables.more"),
        ({"variables": {"question": "x", "before": [{"role": "system", "content": "y"}]}}, "variables.before"),
        ({"variables": {"question": "x"}, "version": "9"}, "version"),
        ({"variables": {"question": "x"}, "version": "staging"}, "version"),
        ({"variables": {"question": "x"}, "room_tokens": 0}, "room_tokens"),
    ],
)
def test_a_preview_says_what_is_wrong(root: APIClient, prompt: dict[str, Any], body: dict[str, Any], at: str) -> None:
    assert attrs(root.post(f"{URL}/{prompt['id']}/preview", body, format="json")) == {at}


def test_a_row_that_came_past_the_forms_is_told_so(root: APIClient, prompt: dict[str, Any]) -> None:
    PromptVersion.objects.filter(template__name="support").update(messages={"not": "a list"})
    assert root.get(f"{URL}/{prompt['id']}").status_code == 200
    assert attrs(root.post(f"{URL}/{prompt['id']}/preview", {"variables": {}}, format="json")) == {"version"}


def test_versions_need_the_right_to_see_the_prompt(allowed: Callable[..., APIClient], prompt: dict[str, Any]) -> None:
    assert allowed("models_registry.view_route").get(f"{URL}/{prompt['id']}/versions").status_code == 403
