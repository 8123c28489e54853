"""Prompt templates in the admin: an editor that makes versions, a preview, a comparison; everything is shown as text."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from models_registry.models import PromptTemplate, PromptVersion
from models_registry.prompt_services import Wording, save_prompt
from tests.admin.conftest import World

pytestmark = pytest.mark.usefixtures("standing_world")

ADD = "/admin/models_registry/prompttemplate/add/"
FIELDS = {
    "name": "support",
    "description": "For the help page.",
    "is_active": "on",
    "visibility": "everyone",
    "messages": "[system]\r\nBe brief.\r\n\r\n[history: before]\r\n\r\n[user]\r\n{{question}}",
    "variables": json.dumps([{"name": "question"}, {"name": "before", "type": "history", "required": False}]),
    "max_input_tokens": "",
    "note": "",
    "labels": "",
}


def url_of(page: str, prompt: PromptTemplate, query: str = "") -> str:
    return reverse(f"admin:models_registry_prompttemplate_{page}", args=[prompt.pk]) + query


@pytest.fixture
def prompt(root: Client, world: World) -> PromptTemplate:
    response = root.post(ADD, FIELDS)
    assert response.status_code == 302, response.context["adminform"].form.errors
    return PromptTemplate.objects.get(name="support")


def test_a_prompt_is_written_changed_and_labelled(root: Client, prompt: PromptTemplate) -> None:
    (first,) = prompt.versions.all()
    assert first.messages == [
        {"role": "system", "content": "Be brief."},
        {"history": "before"},
        {"role": "user", "content": "{{question}}"},
    ]
    assert (first.number, first.created_by) == (1, "root")
    assert root.post(url_of("change", prompt), {**FIELDS, "labels": "production = 1", "note": "none"}).status_code == 302
    assert prompt.versions.count() == 1, "what says the same is no version"
    changed = {
        **FIELDS,
        "messages": FIELDS["messages"].replace("brief", "kind"),
        "labels": "production = 1\r\nstaging = 2",
        "note": "kinder",
    }
    answer = root.post(url_of("change", prompt), {**changed, "_continue": "on"}, follow=True)
    assert answer.redirect_chain, answer.context["adminform"].form.errors
    told = [str(message) for message in answer.context["messages"]]
    assert "Version 2 was made. Requests that name none get version 1, as labelled." in told
    page = answer.content.decode()
    prompt.refresh_from_db()
    assert prompt.labels == {"production": 1, "staging": 2}
    assert "kinder" in page
    assert "Be kind." in page
    assert [version.note for version in prompt.versions.all()] == ["kinder", ""]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "rag"}, "name"),
        ({"name": "two words"}, "name"),
        ({"messages": ""}, "messages"),
        ({"messages": "no head"}, "messages"),
        ({"messages": "[user]\n{{question.x}}"}, "messages"),
        ({"messages": "[user]\n{{unknown}}"}, "variables"),
        ({"variables": "{"}, "variables"),
        ({"variables": "{}"}, "variables"),
        ({"labels": "production"}, "labels"),
        ({"labels": "production = 2"}, "labels"),
        ({"labels": "a = 1\na = 1"}, "labels"),
        ({"max_input_tokens": "0"}, "max_input_tokens"),
    ],
)
def test_what_cannot_work_stands_on_its_field(root: Client, world: World, change: dict[str, str], field: str) -> None:
    response = root.post(ADD, {**FIELDS, **change})
    assert response.status_code == 200
    assert set(response.context["adminform"].form.errors) == {field}
    assert not PromptTemplate.objects.filter(name="support").exists()


def test_a_preview_shows_what_would_be_sent_as_text(root: Client, prompt: PromptTemplate) -> None:
    page = root.get(url_of("preview", prompt)).content.decode()
    assert "&quot;question&quot;" in page, "a sample to begin with"
    values = {"question": "<script>alert(1)</script>{{before}}", "before": [{"role": "user", "content": "earlier"}]}
    asked = {"version": "1", "variables": json.dumps(values), "room_tokens": ""}
    page = root.post(url_of("preview", prompt), asked).content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{before}}" in page
    assert "<script>alert(1)" not in page
    assert "earlier" in page
    short = root.post(url_of("preview", prompt), {**asked, "room_tokens": "20"}).content.decode()
    assert "prompt.variables.before[0]" in short
    refused = root.post(url_of("preview", prompt), {**asked, "variables": '{"question": 1}'})
    assert "must be a text" in str(refused.context["form"].errors["variables"])
    assert root.post(url_of("preview", prompt), {**asked, "version": "9"}).context["form"].errors["version"]
    assert root.get(url_of("preview", prompt, "?version=9")).status_code == 404


def test_versions_are_compared(root: Client, prompt: PromptTemplate) -> None:
    assert "say the same" in root.get(url_of("compare", prompt)).content.decode()
    save_prompt(prompt, Wording([{"role": "user", "content": "<b>{{question}}</b>"}], [{"name": "question"}]))
    page = root.get(url_of("compare", prompt)).content.decode()
    assert "<del>Be brief.</del>" in page
    assert "<ins>&lt;b&gt;{{question}}&lt;/b&gt;</ins>" in page
    assert "<ins>Be brief.</ins>" in root.get(url_of("compare", prompt, "?before=2&after=1")).content.decode()
    assert root.get(url_of("compare", prompt, "?after=7")).status_code == 404


def test_who_may_only_look_sees_the_texts_and_changes_nothing(staff: Callable[..., Client], prompt: PromptTemplate) -> None:
    looker = staff("models_registry.view_prompttemplate")
    page = looker.get(url_of("change", prompt)).content.decode()
    assert "Be brief." in page
    assert "textarea" not in page
    assert looker.post(url_of("change", prompt), FIELDS).status_code == 403
    assert looker.get(url_of("preview", prompt)).status_code == 200


def test_rows_that_came_past_the_forms_can_still_be_looked_at(root: Client, prompt: PromptTemplate) -> None:
    PromptVersion.objects.filter(template=prompt).update(messages={"not": "a list"}, variables="x")
    PromptTemplate.objects.filter(pk=prompt.pk).update(labels=["x"])
    for page in ("change", "compare"):
        assert root.get(url_of(page, prompt)).status_code == 200
    assert root.get(url_of("preview", prompt)).status_code == 302
    assert root.get(reverse("admin:models_registry_prompttemplate_changelist")).status_code == 200
