"""Prompt templates on their way into the snapshot, and to whom they are open."""

from __future__ import annotations

from typing import Any

import pytest

from access.models import Grant
from core.config import Snapshot
from gateway.config.loader import load
from gateway.config.publisher import current_version
from models_registry.models import PromptTemplate, PromptVersion
from models_registry.prompt_services import Wording, add_shipped_prompts, save_prompt
from models_registry.shipped_prompts import SHIPPED
from tests.gateway_config.rows import a_prompt, a_team, an_api_key

pytestmark = pytest.mark.django_db


def hidden(snapshot: Snapshot, name: str) -> bool:
    (caller,) = (caller for caller in snapshot.callers.values() if caller.key_name == name)
    return bool(caller.hidden_prompts)


def test_a_template_is_there_by_name_and_by_id() -> None:
    row = a_prompt()
    save_prompt(row, Wording([{"role": "user", "content": "Hello {{who}}!"}], [{"name": "who"}], 900))
    row.labels = {"production": 1, "staging": 2}
    save_prompt(row)
    prompts = load(None).prompts
    spec = prompts["greeting"]
    assert prompts == {"greeting": spec, str(row.pk): spec}
    assert (spec.labels, sorted(spec.versions), spec.versions[2].max_input_tokens) == ({"production": 1, "staging": 2}, [1, 2], 900)
    assert spec.versions[2].messages[0].literals == ("Hello ", "!")


@pytest.mark.parametrize(
    "change",
    [
        lambda row: a_prompt("another"),
        lambda row: save_prompt(row, Wording([{"role": "user", "content": "new"}], [])),
        lambda row: PromptTemplate.objects.update(labels={"staging": 1}),
        lambda row: row.delete(),
    ],
)
def test_every_change_is_another_version_of_the_configuration(change: Any) -> None:
    row = a_prompt()
    before = current_version()
    change(row)
    assert current_version() > before


def test_what_is_off_is_not_there() -> None:
    a_prompt(is_active=False)
    assert load(None).prompts == {}


def test_a_damaged_row_keeps_its_last_good_form_and_the_others_stand() -> None:
    row = a_prompt()
    a_prompt("other")
    good = load(None)
    PromptVersion.objects.filter(template=row).update(messages=[{"role": "user", "content": "{{"}])
    kept = load(good)
    assert kept.prompts == good.prompts
    assert "Prompt greeting" in kept.alarms[0]
    assert set(load(None).prompts) == {"other", str(PromptTemplate.objects.get(name="other").pk)}
    PromptTemplate.objects.filter(pk=row.pk).update(labels=[1])
    assert "greeting" in load(good).prompts


def test_a_name_that_cannot_stand_in_a_header_is_left_out() -> None:
    PromptTemplate.objects.filter(pk=a_prompt().pk).update(name="x\r\ny")
    assert load(None).prompts == {}


def test_a_closed_prompt_is_open_to_teams_with_a_grant_alone() -> None:
    row = a_prompt(visibility="granted")
    a_prompt("open")
    ours, theirs = a_team("ours"), a_team("theirs")
    an_api_key(ours, "our-key")
    an_api_key(theirs, "their-key")
    Grant.objects.create(team=ours, prompt=row)
    snapshot = load(None)
    assert (hidden(snapshot, "our-key"), hidden(snapshot, "their-key")) == (False, True)
    Grant.objects.all().delete()
    assert hidden(load(snapshot), "our-key")


def test_what_is_shipped_is_added_once_and_then_left_alone() -> None:
    names = [shipped.name for shipped in SHIPPED]
    assert add_shipped_prompts() == names
    rag = PromptTemplate.objects.get(name="rag")
    save_prompt(rag, Wording([{"role": "user", "content": "ours"}], []), by="ann")
    PromptTemplate.objects.filter(name="simple").delete()
    assert add_shipped_prompts() == ["simple"]
    assert [version.number for version in rag.versions.all()] == [2, 1]
    spec = load(None).prompts["rag"]
    meant = spec.version(None)
    assert meant is not None
    assert (meant.number, spec.labels) == (1, {"production": 1})
