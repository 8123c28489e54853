"""What beginners get wrong in the admin's forms, and what they are told."""

from __future__ import annotations

from datetime import timedelta

from django.test import Client
from django.urls import reverse
from django.utils import timezone

from models_registry.models import LLMModel, Route
from tests.admin.conftest import World
from tests.admin.test_providers import ADD, FIELDS

BUDGET = {"kind": "tokens", "currency": "", "period": "month", "hard": "on", "user": ""}


def test_a_price_with_a_comma(root: Client, world: World) -> None:
    page = root.post(f"/admin/models_registry/llmmodel/{world.model.pk}/price/", {"currency": "USD", "input": "2,50", "output": "10"})
    assert page.context["form"].errors["input"] == ["Write a number with a point and without commas, e.g. 2.50."]


def test_a_budget_of_nothing_is_refused_once(root: Client, world: World) -> None:
    page = root.post("/admin/access/budget/add/", {**BUDGET, "team": str(world.team.pk), "limit": "0"})
    assert page.context["adminform"].form.errors == {"limit": ["Write a limit above 0: to allow nothing, revoke the key instead."]}


def test_deleting_or_switching_off_what_a_route_asks(root: Client, world: World) -> None:
    url = reverse("admin:models_registry_llmmodel_delete", args=[world.model.pk])
    assert "Without gpt-4o, these routes have one model less to ask: main." in root.get(url).content.decode()
    LLMModel.objects.create(provider=world.provider, model_id="other", alias="gpt-4o")
    assert "one model less" not in root.get(url).content.decode(), "another model has the name"


def test_a_route_to_a_model_that_is_off(root: Client, world: World) -> None:
    LLMModel.objects.update(is_active=False)
    values = {"alias": "second", "targets": "gpt-4o", "strategy": "priority", "visibility": "everyone", "is_active": "on"}
    page = root.post("/admin/models_registry/route/add/", values, follow=True)
    assert Route.objects.filter(alias="second").exists()
    assert "No model that is on has the name gpt-4o" in page.content.decode()


def test_a_vendor_without_its_key(root: Client, world: World) -> None:
    values = {**FIELDS, "name": "keyless", "provider_type": "openai", "base_url": "", "new_keys": ""}
    page = root.post(ADD, values, follow=True)
    assert "It has no key yet" in page.content.decode()


def test_moments_are_written_one_way(root: Client, world: World) -> None:
    begun = timezone.now() - timedelta(days=1)
    assert f"{begun:%Y-%m-%d %H}" in root.get(reverse("admin:models_registry_llmmodel_change", args=[world.model.pk])).content.decode()
