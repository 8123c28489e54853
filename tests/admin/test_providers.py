"""Entering, changing and trying out vendors."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from core.config import BreakerSpec
from models_registry.models import LLMModel
from providers import services, states
from providers.models import Provider, ProviderKey
from providers.report import CHAT_CHECKS
from tests.admin.conftest import PLANTED, World

ADD = "/admin/providers/provider/add/"
FIELDS = {
    "name": "second",
    "provider_type": "openai_compatible",
    "base_url": "https://llm.example.org/v1",
    "is_active": "on",
    "visibility": "everyone",
    "rate_type": "token_bucket",
    "rate_capacity": "20",
    "rate_refill_per_s": "3",
    "max_concurrency": "50",
    "price_adjustment_bp": "-1500",
    "probe_budget_micros": "20000",
    "breaker_fail_max": "5",
    "breaker_reset_timeout_s": "60",
    "breaker_max_reset_timeout_s": "120",
    "breaker_failure_rate": "0.5",
    "breaker_window_s": "30",
    "breaker_min_calls": "10",
    "breaker_keep_last": "on",
    "connect_timeout_s": "3",
    "first_byte_timeout_s": "30",
    "idle_timeout_s": "60",
    "total_timeout_s": "600",
}
NEW_KEY = "sk-another-secret-of-some-length-1234"


def _inline(provider: Provider) -> dict[str, str]:
    keys = list(provider.keys.all())
    data = {"keys-TOTAL_FORMS": str(len(keys)), "keys-INITIAL_FORMS": str(len(keys))}
    for index, key in enumerate(keys):
        data |= {f"keys-{index}-id": str(key.pk), f"keys-{index}-provider": str(provider.pk), f"keys-{index}-weight": "1"}
        data |= {f"keys-{index}-is_active": "on", f"keys-{index}-name": ""}
    return data


def _change_url(provider: Provider) -> str:
    return reverse("admin:providers_provider_change", args=[provider.pk])


def test_add_stores_the_keys_sealed_and_all_limits(root: Client) -> None:
    response = root.post(ADD, {**FIELDS, "new_keys": f"{NEW_KEY}\n\n  {PLANTED}  \n"})
    assert response.status_code == 302, response.context["errors"]
    provider = Provider.objects.get(name="second")
    assert [key.open().reveal() for key in provider.keys.order_by("created_at")] == [NEW_KEY, PLANTED]
    assert (provider.rate_capacity, provider.rate_refill_per_s, provider.max_concurrency) == (20, 3, 50)
    assert (provider.price_adjustment_bp, provider.probe_budget_micros) == (-1500, 20_000)
    page = root.get(_change_url(provider)).content.decode()
    assert "…1234" in page
    assert NEW_KEY not in page


def test_a_refused_form_does_not_give_the_key_back(root: Client) -> None:
    response = root.post(ADD, {**FIELDS, "name": "not a name!", "new_keys": NEW_KEY})
    assert response.status_code == 200
    assert "Use letters, digits" in response.content.decode()
    assert NEW_KEY not in response.content.decode()
    assert not Provider.objects.exists()


def test_what_the_service_refuses_stands_on_its_field_and_nothing_is_saved(root: Client) -> None:
    response = root.post(ADD, {**FIELDS, "new_keys": "a key with spaces"})
    assert response.status_code == 200
    assert response.context["adminform"].form.errors["new_keys"]
    assert "a key with spaces" not in response.content.decode()
    assert not Provider.objects.exists()


def test_an_address_that_cannot_work_stands_on_its_field(root: Client) -> None:
    response = root.post(ADD, {**FIELDS, "base_url": "https://user:password@example.org/v1"})
    assert response.status_code == 200
    assert response.context["adminform"].form.errors["base_url"]


def test_an_unknown_type_is_refused(root: Client) -> None:
    response = root.post(ADD, {**FIELDS, "provider_type": "carrier-pigeon"})
    assert response.context["adminform"].form.errors["provider_type"]


def test_another_host_asks_for_the_key_again(root: Client, world: World) -> None:
    data = {**FIELDS, **_inline(world.provider), "name": "vendor", "provider_type": "openai", "base_url": "https://thief.example.org/v1"}
    response = root.post(_change_url(world.provider), data)
    assert response.status_code == 200
    assert response.context["adminform"].form.errors["base_url"]
    world.provider.refresh_from_db()
    assert world.provider.base_url == ""
    assert world.provider.keys.get().open().reveal() == PLANTED


def test_another_host_with_its_own_key_is_saved(root: Client, world: World) -> None:
    data = {**FIELDS, **_inline(world.provider), "name": "vendor", "provider_type": "openai", "base_url": "https://proxy.example.org/v1"}
    assert root.post(_change_url(world.provider), {**data, "new_keys": NEW_KEY}).status_code == 302
    world.provider.refresh_from_db()
    assert world.provider.base_url == "https://proxy.example.org/v1"
    assert [key.open().reveal() for key in world.provider.keys.all()] == [NEW_KEY]


def test_replaced_keys_do_not_come_back_through_the_table_below(root: Client, world: World) -> None:
    data = {**FIELDS, **_inline(world.provider), "name": "vendor", "provider_type": "openai", "base_url": ""}
    response = root.post(_change_url(world.provider), {**data, "keys-0-name": "renamed meanwhile", "new_keys": NEW_KEY})
    assert response.status_code == 302
    assert [key.open().reveal() for key in world.provider.keys.all()] == [NEW_KEY]


def test_keys_that_another_host_did_away_with_are_not_lost_in_silence(root: Client) -> None:
    provider = services.create_provider(
        name="second", provider_type="openai_compatible", base_url="https://a.example.org/v1", secrets=[PLANTED]
    )
    data = {**FIELDS, **_inline(provider), "keys-0-name": "renamed meanwhile", "base_url": "https://b.example.org/v1"}
    page = root.post(_change_url(provider), data, follow=True).content.decode()
    assert provider.keys.count() == 0
    assert "belonged to the old address" in page


def test_a_key_is_renamed_and_switched_off_in_the_table(root: Client, world: World) -> None:
    data = {**FIELDS, **_inline(world.provider), "name": "vendor", "provider_type": "openai", "base_url": ""}
    del data["keys-0-is_active"]
    assert root.post(_change_url(world.provider), {**data, "keys-0-name": "main", "keys-0-weight": "3"}).status_code == 302
    key = world.provider.keys.get()
    assert (key.name, key.weight, key.is_active, key.open().reveal()) == ("main", 3, False, PLANTED)
    assert "no key" in root.get("/admin/providers/provider/").content.decode()


def test_saving_without_a_new_key_keeps_the_old_one_and_the_options(root: Client, world: World) -> None:
    services.update_provider(world.provider, {"options": {"organization": "org-1"}})
    data = {**FIELDS, **_inline(world.provider), "name": "renamed", "provider_type": "openai", "base_url": ""}
    assert 'value="org-1"' in root.get(_change_url(world.provider)).content.decode()
    assert root.post(_change_url(world.provider), {**data, "option_organization": "org-2"}).status_code == 302
    world.provider.refresh_from_db()
    assert world.provider.name == "renamed"
    assert world.provider.options == {"organization": "org-2"}
    assert world.provider.keys.get().open().reveal() == PLANTED


def test_declared_options_become_fields_and_are_stored(root: Client) -> None:
    assert 'name="option_organization"' in root.get(ADD).content.decode()
    data = {**FIELDS, "provider_type": "openai", "base_url": "", "option_organization": "org-1", "new_keys": NEW_KEY}
    assert root.post(ADD, data).status_code == 302
    assert Provider.objects.get().options == {"organization": "org-1"}


def test_an_option_of_another_type_is_no_option(root: Client) -> None:
    assert root.post(ADD, {**FIELDS, "option_organization": "org-1"}).status_code == 302
    assert Provider.objects.get().options == {}


def test_a_server_beside_us_needs_no_dot_in_its_name(root: Client) -> None:
    assert root.post(ADD, {**FIELDS, "base_url": "http://vllm:8000/v1"}).status_code == 302


def test_a_type_that_needs_an_address_says_so_on_the_field(root: Client) -> None:
    response = root.post(ADD, {**FIELDS, "base_url": ""})
    assert response.context["adminform"].form.errors["base_url"]


def test_the_history_names_fields_and_holds_no_secret(root: Client) -> None:
    root.post(ADD, {**FIELDS, "new_keys": NEW_KEY})
    provider = Provider.objects.get()
    root.post(reverse("admin:providers_provider_rotate_key", args=[provider.pk]), {"key": provider.keys.get().pk, "new_secret": PLANTED})
    entries = [f"{entry.object_repr} {entry.change_message}" for entry in LogEntry.objects.all()]
    assert len(entries) == 2
    assert not [entry for entry in entries if NEW_KEY in entry or PLANTED in entry]


def test_rotate_replaces_the_secret_of_one_key(root: Client, world: World) -> None:
    key = world.provider.keys.get()
    url = reverse("admin:providers_provider_rotate_key", args=[world.provider.pk])
    assert root.post(url, {"key": key.pk, "new_secret": NEW_KEY}).status_code == 302
    assert ProviderKey.objects.get().open().reveal() == NEW_KEY
    refused = root.post(url, {"key": key.pk, "new_secret": "with a space"})
    assert refused.status_code == 200
    assert refused.context["form"].errors["new_secret"]
    assert "with a space" not in refused.content.decode()


def test_rotate_takes_no_key_of_another_provider(root: Client, world: World) -> None:
    other = services.create_provider(name="other", provider_type="openai", secrets=[NEW_KEY])
    url = reverse("admin:providers_provider_rotate_key", args=[world.provider.pk])
    assert root.post(url, {"key": other.keys.get().pk, "new_secret": "sk-thief-thief-thief"}).status_code == 200
    assert other.keys.get().open().reveal() == NEW_KEY


def test_add_key_adds_one(root: Client, world: World) -> None:
    url = reverse("admin:providers_provider_add_key", args=[world.provider.pk])
    assert root.post(url, {"name": "spare", "new_secret": NEW_KEY}).status_code == 302
    assert sorted(key.open().reveal() for key in world.provider.keys.all()) == sorted([PLANTED, NEW_KEY])


def test_disable_and_enable(root: Client, world: World) -> None:
    for verb, active in (("disable", False), ("enable", True)):
        assert root.post(reverse(f"admin:providers_provider_{verb}", args=[world.provider.pk])).status_code == 302
        world.provider.refresh_from_db()
        assert world.provider.is_active is active
        page = root.get(_change_url(world.provider)).content.decode()
        offered = "enable" if not active else "disable"
        assert reverse(f"admin:providers_provider_{offered}", args=[world.provider.pk]) in page
        assert reverse(f"admin:providers_provider_{verb}", args=[world.provider.pk]) not in page


def test_the_connection_test_runs_on_post_only_and_says_what_it_found(root: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Provider, str]] = []

    def tested(provider: Provider, model: str) -> SimpleNamespace:
        calls.append((provider, model))
        checks = [SimpleNamespace(name="chat", result="fail", detail="The vendor said <script>alert(1)</script>.")]
        return SimpleNamespace(ok=False, latency_ms=41, checks=checks, tokens_used=17, model="gpt-4o-2024-08-06")

    monkeypatch.setattr(services, "test_connection", tested)
    url = reverse("admin:providers_provider_test_connection", args=[world.provider.pk])
    assert root.get(url).status_code == 200
    assert calls == []
    page = root.post(url, {"model": "gpt-4o"}).content.decode()
    assert calls == [(world.provider, "gpt-4o")]
    assert "It does not work" in page
    assert "gpt-4o-2024-08-06 · 41 ms · 17 tokens used" in page
    assert "&lt;script&gt;" in page
    assert "<script>alert" not in page


def test_the_connection_test_shows_every_check_and_keeps_it_at_the_model(root: Client) -> None:
    provider = services.create_provider(name="echo", provider_type="echo")
    model = LLMModel.objects.create(provider=provider, model_id="echo-1", alias="echo")
    page = root.post(reverse("admin:providers_provider_test_connection", args=[provider.pk]), {"model": ""}).content.decode()
    assert "It works" in page
    assert all(f"<td>{name}</td>" in page for name in CHAT_CHECKS)
    assert "not offered" in page
    shown = root.get(reverse("admin:models_registry_llmmodel_change", args=[model.pk])).content.decode()
    assert "parallel_tools not offered" in shown


def test_a_model_of_another_provider_is_no_choice(root: Client, world: World) -> None:
    provider = services.create_provider(name="echo", provider_type="echo")
    response = root.post(reverse("admin:providers_provider_test_connection", args=[provider.pk]), {"model": "gpt-4o"})
    assert response.context["form"].errors["model"]
    assert response.context["report"] is None


def test_who_may_only_look_sees_the_provider_without_its_secret_field(staff: Callable[..., Client], world: World) -> None:
    page = staff("providers.view_provider").get(_change_url(world.provider)).content.decode()
    assert "new_keys" not in page
    assert PLANTED not in page


def test_the_list_costs_the_same_for_many_providers(root: Client, django_assert_max_num_queries: Callable[..., object]) -> None:
    for number in range(12):
        services.create_provider(name=f"p{number}", provider_type="openai", secrets=[f"{NEW_KEY}{number}"])
    with django_assert_max_num_queries(12):
        assert root.get("/admin/providers/provider/").status_code == 200


def test_a_missing_provider_is_no_crash(root: Client) -> None:
    gone = "00000000-0000-0000-0000-000000000000"
    assert root.get(f"/admin/providers/provider/{gone}/test/").status_code == 404
    assert root.get("/admin/providers/provider/not-an-id/rotate/").status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [("breaker_fail_max", "0"), ("breaker_failure_rate", "1.5"), ("breaker_min_calls", "0"), ("breaker_window_s", "0")],
)
def test_a_breaker_that_cannot_work_stands_on_its_field(root: Client, field: str, value: str) -> None:
    response = root.post(ADD, {**FIELDS, field: value})
    assert response.context["adminform"].form.errors[field]
    assert not Provider.objects.exists()


def test_the_breakers_numbers_are_stored(root: Client) -> None:
    assert root.post(ADD, FIELDS).status_code == 302
    breaker = services.spec_of(Provider.objects.get(), []).breaker
    assert breaker == BreakerSpec(5, 60, 120, failure_rate=0.5, window_s=30, min_calls=10, keep_last=True)


def test_the_page_says_which_breaker_is_open_and_why_a_key_rests(root: Client, world: World) -> None:
    assert "closed" in root.get(_change_url(world.provider)).content.decode()
    key = str(world.provider.keys.get().pk)
    breaker = {"key": key, "model": "gpt-4o", "state": "open", "failures": 5, "reason": "It <b>failed</b>.", "next_try_at": 1e9}
    rest = {"key": key, "model": "", "reason": "It was refused.", "next_try_at": 1e9}
    states.write("p", {str(world.provider.pk): {"breakers": [breaker], "rests": [rest]}})
    page = root.get(_change_url(world.provider)).content.decode()
    for text in ("It &lt;b&gt;failed&lt;/b&gt;.", "tried again at", "It was refused.", "Reset breaker"):
        assert text in page


def test_reset_breaker_asks_first(root: Client, world: World) -> None:
    url = reverse("admin:providers_provider_reset_breaker", args=[world.provider.pk])
    assert root.get(url).status_code == 200
    world.provider.refresh_from_db()
    assert world.provider.breaker_reset_at is None
    assert root.post(url).status_code == 302
    world.provider.refresh_from_db()
    assert world.provider.breaker_reset_at is not None
