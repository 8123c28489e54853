"""What a document may change and what it may not; and that a bad entry keeps all others out."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone

from access.models import Budget, Team
from access.roles import ADMINISTRATOR, ROLES
from llmcontrol.portable import document, taking
from llmcontrol.portable.document import DocumentRefused, TooLarge
from llmcontrol.portable.kind import Scene
from llmcontrol.portable.plan import differences
from llmcontrol.portable.registry import KINDS
from llmcontrol.portable.taking import PlanOutdated
from models_registry.models import ExchangeRate, LLMModel, Price, PromptTemplate, Route
from models_registry.services import set_price
from monitoring.models import AuditEvent
from providers.models import Provider
from tests.portable.conftest import PLANTED, config, given, sections

pytestmark = pytest.mark.usefixtures("house")


def refused(whole: dict[str, Any], user: Any = None) -> dict[str, str]:
    """Path → sentence, after a look that nothing has changed."""
    before = config()
    with pytest.raises(DocumentRefused) as raised:
        given(whole, user=user)
    assert config() == before
    return {fault.path: fault.sentence for fault in raised.value.faults}


# What changes ------------------------------------------------------------------------------------------------------------
def test_a_change_says_field_before_and_after_and_touches_nothing_else() -> None:
    whole = {"providers": sections()["providers"]}
    whole["providers"][1]["rate_limit"]["capacity"] = 40
    plan = given(whole)
    assert [(outcome.name, outcome.verb) for outcome in plan.outcomes] == [("desk", "unchanged"), ("openai-main", "changed")]
    assert [(change.field, change.before, change.after) for change in plan.outcomes[1].changes] == [("rate_limit.capacity", 20.0, 40.0)]
    assert Provider.objects.get(name="openai-main").keys.count() == 2


def test_what_is_left_out_of_an_entry_or_of_the_document_is_left_alone() -> None:
    plan = given({"teams": [{"name": "search", "max_key_days": 30}], "routes": []})
    assert [(outcome.section, outcome.name, outcome.verb) for outcome in plan.outcomes] == [
        ("routes", "main", "left"),
        ("teams", "search", "changed"),
    ]
    assert (Team.objects.get().requests_per_minute, Team.objects.get().max_key_days) == (100, 30)


def test_a_dry_run_says_the_same_and_writes_nothing() -> None:
    whole = {"teams": [{"name": "new"}], "routes": [{"alias": "main", "description": "for all"}]}
    before, events = config(), AuditEvent.objects.count()
    dry = given(whole, dry_run=True)
    assert config() == before
    assert AuditEvent.objects.count() == events + 1, "this export alone"
    assert given(whole).fingerprint == dry.fingerprint
    assert Team.objects.filter(name="new").exists()


def test_it_is_on_record_with_the_digest_of_the_document(django_capture_on_commit_callbacks: Any) -> None:
    plan = given({"teams": [{"name": "new"}]})
    event = AuditEvent.objects.filter(object_type="gateway_config.ConfigVersion").latest("sequence")
    assert json.loads(event.changes)["sha256"] == [None, plan.sha256]
    assert AuditEvent.objects.filter(object_type="access.Team", object_label="new", action="created").exists()


def test_a_price_is_superseded_and_never_edited() -> None:
    whole = {"prices": [price for price in sections()["prices"] if price["alias"] == "small"]}
    whole["prices"][0]["per_million"]["input"] = "0.5"
    old = Price.objects.get(model__alias="small")
    plan = given(whole)
    assert [(change.field, change.before, change.after) for change in plan.outcomes[0].changes] == [("per_million.input", "0.0", "0.5")]
    old.refresh_from_db()
    new = Price.objects.get(model__alias="small", valid_to=None)
    assert (old.input_micros, old.valid_to) == (0, new.valid_from)
    assert given(whole).changes_nothing


def test_a_document_older_than_its_announcement_does_not_bring_the_old_price_back() -> None:
    model = LLMModel.objects.get(alias="small")
    entry = {"provider": "desk", "model_id": "qwen", "alias": "small", "currency": "USD"}
    begun = timezone.now() - timedelta(hours=1)
    set_price(model, currency="USD", per_million={"input": "1", "output": "1"}, valid_from=begun - timedelta(days=1))
    set_price(model, currency="USD", per_million={"input": "2", "output": "2"}, valid_from=begun)
    plan = given(
        {
            "prices": [
                {**entry, "per_million": {"input": "1", "output": "1"}},
                {**entry, "valid_from": begun.isoformat(), "per_million": {"input": "2", "output": "2"}},
            ]
        }
    )
    assert plan.changes_nothing
    assert "taken its place" in plan.outcomes[0].notes[0]


def test_rates_that_are_written_otherwise_are_the_same() -> None:
    assert given({"exchange_rates": [{"base": "CNY", "quote": "USD", "rate": "0.14040"}]}).changes_nothing
    assert not given({"exchange_rates": [{"base": "CNY", "quote": "USD", "rate": "0.15"}]}).changes_nothing
    assert ExchangeRate.objects.count() == 3


def test_versions_of_a_prompt_are_added_and_never_edited() -> None:
    whole = {"prompts": sections()["prompts"]}
    greeting = whole["prompts"][-1]
    assert greeting["name"] == "greeting"
    greeting["versions"].append({"number": 3, "messages": [{"role": "user", "content": "Hi"}]})
    greeting["labels"]["production"] = 3
    given(whole)
    row = PromptTemplate.objects.get(name="greeting")
    assert (row.labels, row.versions.count()) == ({"production": 3, "staging": 2}, 3)
    greeting["versions"][0]["messages"][0]["content"] = "Otherwise"
    assert "a version is never edited" in refused(whole)["prompts[0].versions[0]"]
    greeting["versions"] = [{"number": 9, "messages": [{"role": "user", "content": "Later"}]}]
    assert "numbers have no gaps" in refused(whole)["prompts[0].versions[0]"]


def test_what_one_route_gives_up_another_takes_whatever_their_order() -> None:
    given({"routes": [{"alias": "a-first", "targets": ["small"], "task_types": ["translation"]}, {"alias": "main", "task_types": []}]})
    assert Route.objects.get(alias="a-first").task_types == ["translation"]


def test_two_budgets_of_one_kind_are_told_apart_by_their_order() -> None:
    whole = {"budgets": [budget for budget in sections()["budgets"] if budget["scope"] == {"team": "search"}]}
    assert [budget["limit"] for budget in whole["budgets"]] == ["200.0", "250.5"]
    whole["budgets"][1]["limit"] = "300"
    assert given(whole).counts["changed"] == 1
    assert sorted(Budget.objects.filter(team__name="search").values_list("limit", flat=True)) == [200_000_000, 300_000_000]


# What is refused -----------------------------------------------------------------------------------------------------------
def test_every_fault_is_named_and_one_keeps_everything_out() -> None:
    found = refused(
        {
            "providers": [{"name": "new", "provider_type": "nonsense"}, {"name": "desk", "config": {"base_url": "ftp://x"}}, 7],
            "models": [
                {"provider": "nobody", "model_id": "m", "alias": "m"},
                {"provider": "desk", "model_id": "n", "alias": "n", "odd": 1},
            ],
            "teams": [{"name": "fine"}, {"name": "twice"}, {"name": "twice"}, {"max_key_days": 3}],
            "grants": [{"team": "search", "user": "person"}],
            "budgets": [{"scope": {"key": "crawler"}, "kind": "requests", "limit": 3, "period": "day"}],
            "alert_rules": [{"name": "slow answers", "channels": ["nobody"]}],
        }
    )
    assert set(found) == {
        *("providers[0].provider_type", "providers[1].config.base_url", "providers[2]"),
        *(
            "models[0].provider",
            "models[1].odd",
            "teams[2]",
            "teams[3].name",
            "grants[0].user",
            "budgets[0].scope",
            "alert_rules[0].channels",
        ),
    }
    assert found["models[0].provider"] == "There is no provider 'nobody', neither here nor in the document."


@pytest.mark.parametrize(
    "whole",
    [
        {"providers": [{"name": "new", "provider_type": "openai", "config": {"api_key": PLANTED}}]},
        {"providers": [{"name": "desk", "config": {"api_keys": [PLANTED]}}]},
        {"providers": [{"name": "desk", "keys": [{"name": "main", "secret": PLANTED}]}]},
        {"alert_channels": [{"name": "new", "kind": "feishu", "secret": PLANTED}]},
        {"alert_channels": [{"name": "new", "kind": "feishu", "url": f"https://hooks.example.com/{PLANTED}"}]},
    ],
)
def test_secrets_are_not_taken_and_not_repeated(whole: dict[str, Any]) -> None:
    (sentence,) = refused(whole).values()
    assert PLANTED not in sentence


def test_keys_do_not_follow_to_another_host() -> None:
    assert (
        "belong to the old address"
        in refused({"providers": [{"name": "openai-main", "config": {"base_url": "https://evil.example/v1"}}]})[
            "providers[0].config.base_url"
        ]
    )


def test_nobody_does_by_a_document_what_they_may_not_do_by_hand() -> None:
    user = User.objects.create_user("importer")
    user.user_permissions.add(Permission.objects.get(codename="import_configversion"), Permission.objects.get(codename="add_team"))
    found = refused({"teams": [{"name": "new"}, {"name": "search", "max_key_days": 3}]}, User.objects.get(pk=user.pk))
    assert found == {"teams[1]": "You may not do this: it needs the permission access.change_team."}
    assert given({"teams": [{"name": "new"}, {"name": "search"}]}, user=User.objects.get(pk=user.pk)).counts["created"] == 1


def test_the_administrators_role_may_take_all_of_it() -> None:
    kinds = [kind(Scene(timezone.now())) for kind in KINDS.values()]
    assert {kind.permission(verb) for kind in kinds for verb in ("add", "change")} | {taking.PERMISSION} <= ROLES[ADMINISTRATOR][1]


def test_only_what_was_agreed_to_happens() -> None:
    whole = {"teams": [{"name": "search", "max_key_days": 3}]}
    agreed = given(whole, dry_run=True).fingerprint
    Team.objects.update(max_key_days=9)
    with pytest.raises(PlanOutdated) as outdated:
        given(whole, agreed=agreed)
    assert Team.objects.get().max_key_days == 9
    assert given(whole, agreed=outdated.value.plan.fingerprint).counts["changed"] == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"[]", "not valid JSON"),
        (b'{"format": "x"', "not valid JSON"),
        (b'{"format": "\xff"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"format": "x"}', '"format" is not'),
        (b'{"format": "llmcontrol-configuration", "version": 2}', "of version 1"),
        (b'{"format": "llmcontrol-configuration", "version": 1, "persons": []}', "There is no such section"),
        (b'{"format": "llmcontrol-configuration", "version": 1, "teams": {}}', "is a list"),
        (b'{"format": "llmcontrol-configuration", "version": 1, "teams": [{"name": "\\u0000"}]}', "NUL"),
    ],
)
def test_what_is_no_document_is_refused_in_a_sentence(text: bytes, sentence: str) -> None:
    with pytest.raises(DocumentRefused, match=sentence):
        document.read(text, KINDS, 10**6)


def test_a_document_has_a_size() -> None:
    text = document.written({})
    assert document.read(text, KINDS, len(text)).sections == {}
    with pytest.raises(TooLarge, match="LLM_CONFIG_FILE_MAX_BYTES"):
        document.read(text, KINDS, len(text) - 1)


def test_differences_say_the_smallest_place() -> None:
    before = {"a": {"b": 1, "c": [1]}, "l": [{"x": 1}], "o": {}}
    after = {"a": {"b": 2, "c": [2]}, "l": [{"x": 1}, {"x": 2}], "o": {"y": 1}}
    assert [(change.field, change.before, change.after) for change in differences(before, after)] == [
        ("a.b", 1, 2),
        ("a.c", [1], [2]),
        ("l[1].x", None, 2),
        ("o", {}, {"y": 1}),
    ]
