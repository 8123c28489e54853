"""Rows become one snapshot; a damaged row keeps its last good form; what was revoked goes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from access.models import ApiKey, Team
from core.clock import FrozenClock
from core.config import LimitSpec, RouteSpec, Snapshot
from gateway.config.loader import load
from gateway.config.models import ConfigVersion
from gateway.config.publisher import CONFIGURATION, current_version
from models_registry.models import LLMModel, Route
from models_registry.services import set_exchange_rate
from providers.models import Provider, ProviderKey
from tests.gateway_config.rows import a_model, a_price, a_prompt, a_provider, a_provider_key, a_team, an_api_key, utc

pytestmark = pytest.mark.django_db


def damage(key: ProviderKey) -> None:
    ProviderKey.objects.filter(pk=key.pk).update(secret=b"\x01\x01" + b"\0" * 120)


def test_an_empty_database_is_an_empty_snapshot() -> None:
    clock = FrozenClock()
    assert load(None, clock=clock) == Snapshot(version=current_version(), loaded_at=clock.wall())


def test_rows_become_specs() -> None:
    provider = a_provider(max_concurrency=7)
    key = a_provider_key(provider, "sk-vendor-secret-0001")
    model = a_model(provider, "gpt-4o", context_window=128_000, max_output_tokens=4096, capabilities=["tools"])
    a_price(model, utc(2026))
    team = a_team()
    caller = an_api_key(team, allowed_models=["gpt-4o"], requests_per_minute=60, expires_at=utc(2030))

    snapshot = load(None)

    spec = snapshot.providers[str(provider.id)]
    assert (spec.id, spec.name, spec.kind, spec.base_url) == (
        str(provider.id),
        "openai-main",
        "openai_compatible",
        "https://vendor.example/v1",
    )
    assert spec.max_concurrency == 7
    assert [(k.id, k.last4, k.secret.reveal()) for k in spec.keys] == [(str(key.id), "0001", "sk-vendor-secret-0001")]
    (model_spec,) = snapshot.models["gpt-4o"]
    assert (model_spec.id, model_spec.model_id, model_spec.provider_id) == (str(model.id), "gpt-4o-2024", str(provider.id))
    assert (model_spec.context_window, model_spec.max_output_tokens, model_spec.capabilities) == (128_000, 4096, ("tools",))
    assert (model_spec.prices[0].input, model_spec.prices[0].output, model_spec.prices[0].currency) == (2_500_000, 10_000_000, "USD")
    caller_spec = snapshot.callers[bytes(caller.digest)]
    assert (caller_spec.key_id, caller_spec.key_name, caller_spec.team_name) == (str(caller.id), "backend", "growth")
    assert (caller_spec.scopes, caller_spec.models) == (frozenset({"chat"}), frozenset({"gpt-4o"}))
    assert caller_spec.limits == LimitSpec(requests_per_minute=60)
    assert caller_spec.expires_at == utc(2030).timestamp()
    assert snapshot.alarms == ()


def test_limits_of_teams_and_models_reach_the_data_plane() -> None:
    model = a_model(a_provider(), requests_per_minute=5, tokens_per_minute=1000)
    caller = an_api_key(a_team(max_concurrency=3), tokens_per_minute=7)
    snapshot = load(None)
    assert snapshot.models[model.alias][0].limits == LimitSpec(5, 1000, None)
    spec = snapshot.callers[bytes(caller.digest)]
    assert (spec.limits, spec.team_limits) == (LimitSpec(None, 7, None), LimitSpec(max_concurrency=3))


@pytest.mark.parametrize(
    "fields",
    [
        {"rate_type": "leaky"},
        {"rate_capacity": -1.0},
        {"rate_capacity": 5.0},
        {"rate_type": "adaptive", "rate_capacity": 0.5, "rate_refill_per_s": 1},
    ],
)
def test_a_rate_that_cannot_work_keeps_the_last_good_one(fields: dict[str, Any]) -> None:
    a_provider()
    good = load(None)
    Provider.objects.update(**fields)
    kept, left_out = load(good), load(None)
    assert (kept.providers, left_out.providers) == (good.providers, {})
    assert "rate." in kept.alarms[0]


def test_a_limit_of_nothing_keeps_the_last_good_one() -> None:
    team = a_team()
    a_model(a_provider())
    an_api_key(team)
    good = load(None)
    Team.objects.update(requests_per_minute=0)
    LLMModel.objects.update(max_concurrency=0)
    kept = load(good)
    assert (kept.models, kept.callers) == (good.models, good.callers)
    assert [alarm for alarm in kept.alarms if "or nothing for no limit" in alarm] == list(kept.alarms)
    assert len(kept.alarms) == 2


def test_routes_come_as_they_are_and_a_broken_one_keeps_its_last_good_form() -> None:
    a_model(a_provider(), "gpt-4o")
    Route.objects.create(alias="r", targets=["gpt-4o", "gone"], degrade_to="mini", fixed_answer="Later.")
    Route.objects.create(alias="off", targets=["gpt-4o"], is_active=False)
    good = load(None)
    assert good.routes == {"r": RouteSpec("r", ("gpt-4o", "gone"), "mini", "Later.")}
    Route.objects.filter(alias="r").update(targets={"gpt-4o": 1})
    kept, left_out = load(good), load(None)
    assert (kept.routes, left_out.routes) == (good.routes, {})
    assert kept.alarms[0].startswith("Route r cannot be used as it is")
    Route.objects.update(is_active=False)
    assert load(good).routes == {}


def test_a_key_for_no_model_is_not_a_key_for_every_model() -> None:
    team = a_team()
    none, every = an_api_key(team, "none", allowed_models=[]), an_api_key(team, "every", allowed_models=None)
    snapshot = load(None)
    assert snapshot.callers[bytes(none.digest)].models == frozenset()
    assert snapshot.callers[bytes(every.digest)].models is None


def test_an_empty_address_is_the_vendors_own() -> None:
    provider = a_provider(base_url="")
    Provider.objects.filter(pk=provider.pk).update(provider_type="openai")
    assert load(None).providers[str(provider.id)].base_url == "https://api.openai.com/v1"


def test_targets_of_an_alias_come_in_order_of_priority() -> None:
    first, second = a_provider("first"), a_provider("second")
    a_model(second, "chat", priority=20)
    a_model(first, "chat", priority=10)
    a_model(first, "chat", model_id="other", priority=30)

    assert [(spec.provider_id, spec.priority) for spec in load(None).models["chat"]] == [
        (str(first.id), 10),
        (str(second.id), 20),
        (str(first.id), 30),
    ]


def test_prices_come_newest_first_and_old_ones_stay_behind() -> None:
    model = a_model(a_provider())
    clock = FrozenClock(utc(2026, 6, 15).timestamp())
    a_price(model, utc(2026, 1), valid_to=utc(2026, 5), input_micros=1)
    a_price(model, utc(2026, 5), valid_to=utc(2026, 6, 14), input_micros=2)
    a_price(model, utc(2026, 7), input_micros=4)
    a_price(model, utc(2026, 6, 14), valid_to=utc(2026, 7), input_micros=3)

    (spec,) = load(None, clock=clock).models["gpt-4o"]

    assert [price.input for price in spec.prices] == [4, 3, 2]
    assert spec.price_at(clock.wall()) == spec.prices[1]


def test_of_prices_the_most_specific_come_first() -> None:
    model = a_model(a_provider())
    a_price(model, utc(2026), input_micros=1)
    a_price(model, utc(2026), input_micros=2, min_input_tokens=200_001)
    a_price(model, utc(2026), input_micros=3, service_tier="flex")

    (spec,) = load(None).models["gpt-4o"]

    assert [(price.input, price.service_tier, price.min_input_tokens) for price in spec.prices] == [
        (3, "flex", 0),
        (2, "", 200_001),
        (1, "", 0),
    ]


def test_exchange_rates_to_the_reporting_currency_reach_back_as_far_as_a_request_can_last() -> None:
    for month, rate in ((1, "0.1"), (5, "0.2"), (6, "0.3"), (7, "0.4")):
        set_exchange_rate(base="CNY", quote="USD", rate=rate, valid_from=utc(2026, month))
    set_exchange_rate(base="USD", quote="CNY", rate="7", valid_from=utc(2026))
    set_exchange_rate(base="EUR", quote="USD", rate="1.1", valid_from=utc(2020))
    set_exchange_rate(base="EUR", quote="CNY", rate="8", valid_from=utc(2020))

    snapshot = load(None, clock=FrozenClock(utc(2026, 6, 2).timestamp()))

    assert snapshot.currency == "USD"
    assert {base: [rate.text for rate in rates] for base, rates in snapshot.exchange_rates.items()} == {
        "CNY": ["0.4", "0.3", "0.2"],
        "EUR": ["1.1"],
    }


def test_a_rate_the_other_way_round_is_one_too_and_the_latest_of_the_two_currencies_holds() -> None:
    set_exchange_rate(base="USD", quote="CNY", rate="7.12", valid_from=utc(2026, 5))
    set_exchange_rate(base="CNY", quote="USD", rate="0.14", valid_from=utc(2026, 4))
    for base, quote, rate in (("USD", "EUR", "0.9"), ("EUR", "USD", "1.1")):
        set_exchange_rate(base=base, quote=quote, rate=rate, valid_from=utc(2026, 5))
    set_exchange_rate(base="USD", quote="JPY", rate="0.0000009", valid_from=utc(2026, 5))

    found = load(None, clock=FrozenClock(utc(2026, 5, 2).timestamp())).exchange_rates

    assert {base: [(rate.text, rate.inverse) for rate in rates] for base, rates in found.items()} == {
        "CNY": [("1/7.12", True), ("0.14", False)],
        "EUR": [("1.1", False), ("1/0.9", True)],
    }, "a yen for more than a million dollars is nobody's rate"


def test_discounts_and_markups_are_in_the_specs_and_one_out_of_bounds_is_an_alarm() -> None:
    provider = a_provider(price_adjustment_bp=-1500, probe_budget_micros=20_000)
    an_api_key(a_team("fine", price_adjustment_bp=500), "fine")
    an_api_key(a_team("odd", price_adjustment_bp=-10_001), "odd")

    snapshot = load(None)

    spec = snapshot.providers[str(provider.id)]
    assert (spec.price_adjustment_bp, spec.probe_budget_micros) == (-1500, 20_000)
    assert [caller.price_adjustment_bp for caller in snapshot.callers.values()] == [500]
    assert "discount or markup" in "".join(snapshot.alarms)


def test_what_is_switched_off_or_revoked_is_left_out() -> None:
    active, inactive = a_provider("active"), a_provider("inactive", is_active=False)
    a_provider_key(active, is_active=False)
    a_model(active, "off", is_active=False)
    a_model(inactive, "unreachable")
    an_api_key(a_team("gone", is_active=False), "of-inactive-team")
    team = a_team()
    an_api_key(team, "revoked", revoked_at=timezone.now())
    expired = an_api_key(team, "expired", expires_at=utc(2020))

    snapshot = load(None)

    assert set(snapshot.providers) == {str(active.id)}
    assert snapshot.providers[str(active.id)].keys == ()
    assert snapshot.models == {}
    assert set(snapshot.callers) == {bytes(expired.digest)}
    assert snapshot.alarms == ()


def test_a_damaged_key_keeps_the_last_good_settings_and_raises_an_alarm() -> None:
    provider, other = a_provider(), a_provider("other")
    key = a_provider_key(provider)
    a_model(provider)
    good = load(None)
    damage(key)
    Provider.objects.filter(pk=other.pk).update(max_concurrency=3)

    snapshot = load(good)

    assert snapshot.providers[str(provider.id)] == good.providers[str(provider.id)]
    assert snapshot.models == good.models
    assert snapshot.providers[str(other.id)].max_concurrency == 3
    (alarm,) = snapshot.alarms
    assert "openai-main" in alarm
    assert "last good settings stay in force" in alarm
    assert load(snapshot).alarms == snapshot.alarms


def test_a_damaged_key_without_a_last_good_form_leaves_the_provider_out() -> None:
    provider, other = a_provider(), a_provider("other")
    damage(a_provider_key(provider))
    a_model(provider, "gone")
    a_model(other, "there")

    snapshot = load(None)

    assert set(snapshot.providers) == {str(other.id)}
    assert set(snapshot.models) == {"there"}
    (alarm,) = snapshot.alarms
    assert "openai-main" in alarm
    assert "left out" in alarm


def test_a_moved_address_does_not_take_the_old_key_along() -> None:
    provider = a_provider()
    a_provider_key(provider)
    good = load(None)
    Provider.objects.filter(pk=provider.pk).update(base_url="https://attacker.example/v1")

    snapshot = load(good)

    assert snapshot.providers[str(provider.id)].base_url == "https://vendor.example/v1"
    assert snapshot.alarms


def test_an_alarm_never_shows_the_secret() -> None:
    provider = a_provider()
    damage(a_provider_key(provider, "sk-vendor-secret-0001"))
    assert "sk-vendor" not in repr(load(None))


def test_revocation_goes_through_beside_damage() -> None:
    provider = a_provider()
    revoked, broken = a_provider_key(provider, "sk-vendor-secret-0001"), a_provider_key(provider, "sk-vendor-secret-0002")
    good = load(None)
    damage(broken)
    ProviderKey.objects.filter(pk=revoked.pk).update(is_active=False)

    snapshot = load(good)
    assert [key.id for key in snapshot.providers[str(provider.id)].keys] == [str(broken.id)]

    broken.delete()
    damage(a_provider_key(provider, "sk-vendor-secret-0003"))
    last = load(snapshot)
    assert last.providers == {}
    assert "left out" in last.alarms[0]


@pytest.mark.parametrize("how", ["switched off", "deleted"])
def test_a_damaged_provider_can_be_removed(how: str) -> None:
    provider = a_provider()
    key = a_provider_key(provider)
    a_model(provider)
    good = load(None)
    damage(key)
    if how == "deleted":
        provider.delete()
    else:
        Provider.objects.update(is_active=False)

    snapshot = load(good)
    assert (snapshot.providers, snapshot.models, snapshot.alarms) == ({}, {}, ())


def test_a_revoked_api_key_is_gone_at_the_next_load() -> None:
    team = a_team()
    key, other = an_api_key(team), an_api_key(team, "other")
    good = load(None)
    assert bytes(key.digest) in good.callers
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=timezone.now(), scopes={"broken": 1})

    assert set(load(good).callers) == {bytes(other.digest)}


@pytest.mark.parametrize("fields", [{"scopes": "chat"}, {"scopes": [1]}, {"allowed_models": {"a": 1}}])
def test_a_damaged_api_key_keeps_its_last_good_form(fields: dict[str, Any]) -> None:
    key = an_api_key(a_team())
    good = load(None)
    ApiKey.objects.update(**fields)

    kept, left_out = load(good), load(None)

    assert kept.callers == good.callers
    assert left_out.callers == {}
    assert key.name in kept.alarms[0]
    assert key.name in left_out.alarms[0]


def test_a_damaged_model_keeps_its_last_good_form() -> None:
    a_model(a_provider())
    good = load(None)
    LLMModel.objects.update(capabilities={"tools": True})

    snapshot = load(good)

    assert snapshot.models == good.models
    assert "gpt-4o" in snapshot.alarms[0]


def test_the_number_of_queries_does_not_grow(django_assert_num_queries: Callable[..., Any]) -> None:
    for number in range(3):
        provider = a_provider(f"p{number}")
        a_provider_key(provider)
        for other in range(3):
            a_price(a_model(provider, f"m{other}"), utc(2026))
        team = a_team(f"t{number}")
        an_api_key(team, f"k{number}")
        a_prompt(f"prompt{number}")

    with django_assert_num_queries(15):
        snapshot = load(None)

    assert (len(snapshot.providers), len(snapshot.models), len(snapshot.callers)) == (3, 3, 3)


def test_every_table_that_is_read_raises_the_version() -> None:
    provider = a_provider()
    a_provider_key(provider)
    a_price(a_model(provider), utc(2026))
    an_api_key(a_team())
    a_prompt()
    with CaptureQueriesContext(connection) as queries:
        load(None)

    read = {table for query in queries for table in re.findall(r'(?:FROM|JOIN) "(\w+)"', query["sql"])}
    assert read == {apps.get_model(label)._meta.db_table for label in CONFIGURATION} | {ConfigVersion._meta.db_table}


@pytest.mark.django_db(transaction=True)
def test_the_snapshot_shows_one_moment_and_holds_no_transaction_afterwards() -> None:
    a_provider()
    with CaptureQueriesContext(connection) as queries:
        snapshot = load(None)

    statements = [query["sql"] for query in queries]
    begin = "BEGIN DEFERRED" if connection.vendor == "sqlite" else "BEGIN"
    assert statements[0] == begin
    assert statements[-1] in ("ROLLBACK", "COMMIT")
    assert connection.vendor == "sqlite" or "REPEATABLE READ" in statements[1]
    assert snapshot.version == current_version()
    assert not connection.in_atomic_block
    a_provider("later")
    assert current_version() == snapshot.version + 1
