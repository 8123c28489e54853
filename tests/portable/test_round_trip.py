"""Out of one house and into another: nothing is lost, nothing is shown that must not be, and a second time changes nothing."""

from __future__ import annotations

import json

import pytest

from llmcontrol.portable.registry import KINDS
from monitoring.models import AuditEvent
from tests.portable.conftest import PLANTED, config, emptied, enter_secrets, given, sections

pytestmark = pytest.mark.usefixtures("house")


def test_into_an_empty_house_and_out_again() -> None:
    before = config()
    assert all(json.loads(before)[name] for name in KINDS), "a section without an entry proves nothing"
    emptied()
    plan = given(json.loads(before))
    assert plan.counts == {"created": sum(len(json.loads(before)[name]) for name in KINDS), "changed": 0, "unchanged": 0, "left": 0}
    notes = {outcome.name: outcome.notes for outcome in plan.outcomes if outcome.notes}
    assert set(notes) == {"openai-main", "on call"}
    assert "main, spare" in notes["openai-main"][0]
    enter_secrets()
    again = given(json.loads(before))
    assert [(outcome.name, outcome.verb) for outcome in again.outcomes if outcome.verb != "unchanged"] == [("openai-main", "changed")]
    assert {change.field for change in again.outcomes[1].changes} == {"keys[0].weight", "keys[1].is_active"}
    assert config() == before


def test_but_for_keys_that_are_not_entered_yet_it_is_the_same_at_once() -> None:
    before = sections()
    emptied()
    given(before)
    for provider in before["providers"]:
        provider["keys"] = []
    assert config() == (json.dumps(before, indent=2, ensure_ascii=False) + "\n").encode()


def test_no_secret_is_in_it() -> None:
    text = config().decode()
    assert PLANTED not in text
    assert "access_token" not in text
    assert PLANTED[-4:] not in text.replace("shows", "")
    assert [key["secret"] for provider in sections()["providers"] for key in provider["keys"]] == ["needed", "needed"]


def test_a_second_time_changes_nothing_and_records_nothing() -> None:
    document = sections()
    events = AuditEvent.objects.count()
    plan = given(document)
    assert plan.changes_nothing
    assert plan.counts["unchanged"] == sum(len(document[name]) for name in KINDS)
    assert AuditEvent.objects.count() == events


def test_what_is_over_or_belongs_to_one_house_stays_there() -> None:
    document = sections()
    assert [price["per_million"]["input"] for price in document["prices"] if price["model_id"] == "gpt-4o-2024-08-06"] == [
        "1.0",
        "2.5",
        "2.0",
    ]
    assert ["valid_from" in price for price in document["prices"]] == [False, False, False, True]
    assert [rate["rate"] for rate in document["exchange_rates"]] == ["0.1404"]
    assert not [budget for budget in document["budgets"] if "key" in budget["scope"]]
    assert len(document["grants"]) == 4
