"""Providers over REST: the bodies of the contract."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from rest_framework.test import APIClient

from providers.models import Provider, ProviderKey
from tests.rest.conftest import SECRET, World, attrs
from tests.rest.provider_body import BODY, URL


def test_the_contracts_body_round_trips(root: APIClient) -> None:
    response = root.post(URL, BODY)
    assert response.status_code == 201
    shown = response.json()
    key = ProviderKey.objects.get()
    expected = copy.deepcopy(BODY)
    del expected["config"]["api_key"]
    assert shown == {**expected, "id": str(Provider.objects.get().id), "keys": [{"id": str(key.id), "last4": "1234", "state": "active"}]}
    assert root.get(f"{URL}/{shown['id']}").json() == shown
    assert root.get(URL).json() == {"next": None, "previous": None, "results": [shown]}
    assert key.open().reveal() == SECRET


def test_defaults_are_filled_in(root: APIClient) -> None:
    shown = root.post(URL, {"name": "e", "provider_type": "echo"}).json()
    assert shown["rate_limit"] == {"type": "token_bucket", "capacity": 0.0, "refill_rate": 0.0, "tokens_per_minute": None}
    assert shown["breaker"] == {
        "fail_max": 5,
        "reset_timeout_s": 15.0,
        "max_reset_timeout_s": 60.0,
        "failure_rate": 0.0,
        "window_s": 60.0,
        "min_calls": 20,
        "keep_last": True,
    }
    assert shown["timeouts"] == {"connect_s": 3.0, "first_byte_s": 30.0, "idle_s": 60.0, "total_s": 600.0}
    assert (shown["max_concurrency"], shown["is_active"], shown["config"], shown["keys"]) == (100, True, {"base_url": ""}, [])


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"name": None}, "name"),
        ({"name": "no spaces here"}, "name"),
        ({"name": {}}, "name"),
        ({"provider_type": "telepathy"}, "provider_type"),
        ({"provider_type": ["openai"]}, "provider_type"),
        ({"config": "sk-planted"}, "config"),
        ({"config": {}}, "config.api_key"),
        ({"config": {"api_key": ""}}, "config.api_key"),
        ({"config": {"api_key": 7}}, "config.api_key"),
        ({"config": {"api_key": f"{SECRET}\n"}}, "config.api_key"),
        ({"config": {"api_keys": []}}, "config.api_keys"),
        ({"config": {"api_keys": SECRET}}, "config.api_keys"),
        ({"config": {"api_keys": [SECRET, None]}}, "config.api_keys"),
        ({"config": {"api_key": SECRET, "api_keys": [SECRET]}}, "config.api_keys"),
        ({"config": {"api_key": SECRET, "base_url": "file:///etc/passwd"}}, "config.base_url"),
        ({"config": {"api_key": SECRET, "base_url": ["https://a.example"]}}, "config.base_url"),
        ({"config": {"api_key": SECRET, "apikey2": SECRET}}, "config"),
        ({"is_active": "perhaps"}, "is_active"),
        ({"rate_limit": {"type": "sliding"}}, "rate_limit.type"),
        ({"rate_limit": {"capacity": -1}}, "rate_limit.capacity"),
        ({"rate_limit": {"capacity": "nan"}}, "rate_limit.capacity"),
        ({"rate_limit": {"capacity": 5}}, "rate_limit.refill_rate"),
        ({"rate_limit": {"burst": 5}}, "rate_limit.burst"),
        ({"rate_limit": []}, "rate_limit.non_field_errors"),
        ({"breaker": {"fail_max": 0}}, "breaker.fail_max"),
        ({"breaker": {"fail_max": 1.5}}, "breaker.fail_max"),
        ({"timeouts": {"idle_s": "inf"}}, "timeouts.idle_s"),
        ({"timeouts": {"connect_s": 61}}, "timeouts.connect_s"),
        ({"max_concurrency": -1}, "max_concurrency"),
        ({"price_adjustment_bp": -10_001}, "price_adjustment_bp"),
        ({"price_adjustment_bp": 100_001}, "price_adjustment_bp"),
        ({"probe_budget_micros": -1}, "probe_budget_micros"),
        ({"probe_budget_micros": 1_000_000_001}, "probe_budget_micros"),
        ({"ca_certificates": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"}, "ca_certificates"),
        ({"ca_certificates": "x" * 65_537}, "ca_certificates"),
        ({"max_concurrency": 10**30}, "max_concurrency"),
        ({"id": "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0001"}, "id"),
        ({"keys": []}, "keys"),
        ({"created_at": "2026-01-01"}, "created_at"),
        ({"rate_capacity": 5}, "rate_capacity"),
    ],
)
def test_bad_input_names_the_field_and_creates_nothing(root: APIClient, change: dict[str, Any], at: str) -> None:
    response = root.post(URL, {**BODY, **change})
    assert attrs(response) == {at}
    assert SECRET not in response.content.decode()
    assert not Provider.objects.exists()


def test_several_mistakes_are_said_at_once(root: APIClient) -> None:
    assert attrs(root.post(URL, {"nmae": "x", "provider_type": "echo", "breaker": {"fail_max": "five", "foo": 1}})) == {
        "name",
        "nmae",
        "breaker.fail_max",
        "breaker.foo",
    }


def test_patch_merges_config_and_leaves_the_rest(root: APIClient) -> None:
    shown = root.post(URL, BODY).json()
    url = f"{URL}/{shown['id']}"
    changed = root.patch(url, {"config": {"project": "proj_1"}, "timeouts": {"idle_s": 9}}).json()
    assert changed["config"] == {"base_url": "https://api.openai.com/v1", "organization": "org-1", "project": "proj_1"}
    assert changed["timeouts"] == {**shown["timeouts"], "idle_s": 9.0}
    assert changed["keys"] == shown["keys"]
    assert root.patch(url, {"config": {"organization": None}}).json()["config"] == {
        "base_url": "https://api.openai.com/v1",
        "project": "proj_1",
    }
    assert root.put(url, {"name": "n", "provider_type": "openai", "config": {}}).json()["config"] == {"base_url": ""}


@pytest.mark.parametrize("id_", ["nonsense", "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0001"])
def test_what_is_not_there_is_404_in_the_shape_of_errors(root: APIClient, id_: str) -> None:
    response = root.get(f"{URL}/{id_}")
    assert response.status_code == 404
    assert response.json()["errors"][0]["code"] == "not_found"


@pytest.mark.parametrize(
    ("breaker", "at"),
    [
        ({"fail_max": 0}, "breaker.fail_max"),
        ({"fail_max": -1}, "breaker.fail_max"),
        ({"reset_timeout_s": 0}, "breaker.reset_timeout_s"),
        ({"failure_rate": 1.5}, "breaker.failure_rate"),
        ({"failure_rate": -0.1}, "breaker.failure_rate"),
        ({"failure_rate": 0.5, "min_calls": 0}, "breaker.min_calls"),
        ({"window_s": 0}, "breaker.window_s"),
        ({"max_reset_timeout_s": 0}, "breaker.max_reset_timeout_s"),
        ({"keep_last": "perhaps"}, "breaker.keep_last"),
    ],
)
def test_a_breaker_that_cannot_work_is_refused_by_its_field(root: APIClient, breaker: dict[str, Any], at: str) -> None:
    assert attrs(root.post(URL, {**BODY, "breaker": breaker})) == {at}
    assert not Provider.objects.exists()


def test_a_long_first_wait_takes_the_longest_along_unless_that_is_named_too(root: APIClient) -> None:
    made = root.post(URL, {**BODY, "breaker": {"reset_timeout_s": 600}})
    assert made.json()["breaker"]["max_reset_timeout_s"] == 600.0
    url = f"{URL}/{made.json()['id']}"
    assert root.patch(url, {"breaker": {"reset_timeout_s": 900}}).json()["breaker"]["max_reset_timeout_s"] == 900.0
    assert root.patch(url, {"breaker": {"reset_timeout_s": 20}}).json()["breaker"]["max_reset_timeout_s"] == 900.0
    assert attrs(root.patch(url, {"breaker": {"reset_timeout_s": 90, "max_reset_timeout_s": 60}})) == {"breaker.max_reset_timeout_s"}


def test_a_row_that_cannot_work_is_a_failed_check(world: World) -> None:
    Provider.objects.update(breaker_fail_max=0)
    with pytest.raises(SystemCheckError, match=r"providers\.E003\) Provider echo, breaker_fail_max"):
        call_command("check", databases=["default"])


def test_filters_and_a_mistyped_one(root: APIClient, world: World) -> None:
    assert len(root.get(f"{URL}?provider_type=echo").json()["results"]) == 1
    assert root.get(f"{URL}?is_active=false").json()["results"] == []
    assert attrs(root.get(f"{URL}?provider_typ=echo")) == {"provider_typ"}


def test_the_list_costs_the_same_for_many(root: APIClient, world: World, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(3):  # the token, the providers, their keys
        assert len(json.loads(root.get(URL).content)["results"]) == 1
    for number in range(5):
        root.post(URL, {**BODY, "name": f"p{number}"})
    with django_assert_num_queries(3):
        assert len(json.loads(root.get(URL).content)["results"]) == 6
