"""Models and prices over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from models_registry.models import ExchangeRate, LLMModel, Price
from tests.rest.conftest import World, attrs

pytestmark = pytest.mark.usefixtures("standing_world")

MODELS, PRICES = "/api/v1/llm/models", "/api/v1/llm/prices"


def body(world: World, **fields: Any) -> dict[str, Any]:
    return {
        "provider": str(world.provider.id),
        "model_id": "gpt-4o",
        "alias": "gpt-4o",
        "model_type": "chat",
        "is_active": True,
        "visibility": "everyone",
        "context_window": 128_000,
        "max_output_tokens": 16_384,
        "capabilities": ["tools", "images"],
        "quality": 80,
        "cache_ttl_s": None,
        **fields,
    }


def price(world: World, **fields: Any) -> dict[str, Any]:
    return {"model": str(world.model.id), "currency": "USD", "per_million": {"input": "3", "output": "12.50"}, **fields}


def test_a_model_round_trips(root: APIClient, world: World) -> None:
    response = root.post(MODELS, body(world))
    assert response.status_code == 201
    row = LLMModel.objects.get(alias="gpt-4o")
    assert response.json() == {
        "id": str(row.id),
        "priority": 100,
        "unsupported_params": "refuse",
        "over_long": "refuse",
        "rate_limit": {"requests_per_minute": None, "tokens_per_minute": None, "max_concurrency": None},
        "tested": {},
        "tested_at": None,
        **body(world),
    }
    assert root.get(f"{MODELS}/{row.id}").json() == response.json()
    assert [shown["alias"] for shown in root.get(MODELS).json()["results"]] == ["echo", "gpt-4o"]
    assert [shown["alias"] for shown in root.get(f"{MODELS}?alias=echo").json()["results"]] == ["echo"]


def test_a_models_limits_round_trip(root: APIClient, world: World) -> None:
    limits = {"requests_per_minute": 60, "tokens_per_minute": 90_000, "max_concurrency": 4}
    shown = root.post(MODELS, body(world, rate_limit=limits)).json()
    assert shown["rate_limit"] == limits
    changed = root.patch(f"{MODELS}/{shown['id']}", {"rate_limit": {"max_concurrency": None}}).json()
    assert changed["rate_limit"] == {**limits, "max_concurrency": None}


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"provider": None}, {"provider"}),
        ({"provider": "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0001"}, {"provider"}),
        ({"provider": 7}, {"provider"}),
        ({"alias": "with space"}, {"alias"}),
        ({"alias": ""}, {"alias"}),
        ({"model_type": "chatty"}, {"model_type"}),
        ({"quality": 101}, {"quality"}),
        ({"rate_limit": {"requests_per_minute": 0}}, {"rate_limit.requests_per_minute"}),
        ({"rate_limit": {"tokens_per_minute": -5}}, {"rate_limit.tokens_per_minute"}),
        ({"rate_limit": {"max_concurrency": "NaN"}}, {"rate_limit.max_concurrency"}),
        ({"context_window": -1}, {"context_window"}),
        ({"capabilities": "tools"}, {"capabilities"}),
        ({"capabilities": [{"tools": True}]}, {"capabilities.0"}),
        ({"model_id": "echo-1", "alias": "echo"}, {"non_field_errors"}),
        ({"gone_at": None}, {"gone_at"}),
        ({"id": "x"}, {"id"}),
    ],
)
def test_a_bad_model_names_the_field(root: APIClient, world: World, fields: dict[str, Any], at: set[str]) -> None:
    assert attrs(root.post(MODELS, body(world, **fields))) == at
    assert LLMModel.objects.count() == 1


def test_switching_a_model_by_hand_makes_it_a_persons_decision(root: APIClient, world: World) -> None:
    LLMModel.objects.update(is_active=False, gone_at=timezone.now())
    assert root.patch(f"{MODELS}/{world.model.id}", {"is_active": False}).status_code == 200
    assert LLMModel.objects.get().gone_at is None


def test_a_price_supersedes(root: APIClient, world: World) -> None:
    start = timezone.now().replace(microsecond=0) + timedelta(hours=1)
    response = root.post(PRICES, price(world, valid_from=start.isoformat(), source="price page"))
    assert response.status_code == 201
    shown = response.json()
    assert shown["per_million"] == {"input": "3.0", "cached_input": "3.0", "cache_write": "3.0", "output": "12.5"}
    assert (shown["model"], shown["currency"], shown["valid_to"], shown["source"]) == (str(world.model.id), "USD", None, "price page")
    old = root.get(f"{PRICES}/{world.price.id}").json()
    assert old["valid_to"] == shown["valid_from"]
    assert [row["id"] for row in root.get(PRICES).json()["results"]] == [shown["id"], str(world.price.id)]


def test_amounts_are_text_in_the_answer_whatever_they_were(root: APIClient, world: World) -> None:
    shown = root.post(PRICES, price(world, per_million={"input": 2, "cached_input": "0.000001", "output": 0.1})).json()
    assert shown["per_million"] == {"input": "2.0", "cached_input": "0.000001", "cache_write": "2.0", "output": "0.1"}


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"currency": "usd"}, {"currency"}),
        ({"currency": "ABC"}, {"currency"}),
        ({"service_tier": "fast"}, {"service_tier"}),
        ({"min_input_tokens": -1}, {"min_input_tokens"}),
        ({"min_input_tokens": "many"}, {"min_input_tokens"}),
        ({"currency": None}, {"currency"}),
        ({"model": "nonsense"}, {"model"}),
        ({"valid_from": "yesterday"}, {"valid_from"}),
        ({"valid_from": "2020-01-01T00:00:00Z"}, {"valid_from"}),
        ({"valid_to": "2030-01-01T00:00:00Z"}, {"valid_to"}),
        ({"per_million": None}, {"per_million"}),
        ({"per_million": {}}, {"per_million.input", "per_million.output"}),
        ({"per_million": {"input": "1"}}, {"per_million.output"}),
        ({"per_million": {"input": "-1", "output": "NaN"}}, {"per_million.input", "per_million.output"}),
        ({"per_million": {"input": "1", "output": "1", "image": "1"}}, {"per_million.image"}),
        ({"per_million": {"input": "1000000.1", "output": "0.0000001"}}, {"per_million.input", "per_million.output"}),
        ({"per_million": {"input": True, "output": "1e999999"}}, {"per_million.input", "per_million.output"}),
        ({"input_micros": 1}, {"input_micros"}),
    ],
)
def test_a_bad_price_names_the_field(root: APIClient, world: World, fields: dict[str, Any], at: set[str]) -> None:
    assert attrs(root.post(PRICES, price(world, **fields))) == at
    assert Price.objects.get().valid_to is None


def test_a_price_of_a_tier_stands_beside_the_one_for_everything(root: APIClient, world: World) -> None:
    shown = root.post(PRICES, price(world, service_tier="flex", min_input_tokens=200_001, valid_from="2020-01-01T00:00:00Z")).json()
    assert (shown["service_tier"], shown["min_input_tokens"], shown["valid_to"]) == ("flex", 200_001, None)
    assert root.get(f"{PRICES}/{world.price.id}").json()["valid_to"] is None
    assert [row["id"] for row in root.get(f"{PRICES}?service_tier=flex").json()["results"]] == [shown["id"]]


RATES = "/api/v1/llm/exchange-rates"


def test_an_exchange_rate_supersedes(root: APIClient, world: World) -> None:
    response = root.post(RATES, {"base": "CNY", "quote": "USD", "rate": "0.1412345678", "source": "bank"})
    assert response.status_code == 201
    assert {"base": "CNY", "quote": "USD", "rate": "0.1412345678", "source": "bank"}.items() <= response.json().items()
    assert [row["rate"] for row in root.get(f"{RATES}?base=CNY").json()["results"]] == ["0.1412345678", "0.1404"]
    for method in ("put", "patch", "delete"):
        assert getattr(root, method)(f"{RATES}/{response.json()['id']}", {"rate": "2"}).status_code == 405


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"base": "YUA"}, "base"),
        ({"quote": "usd"}, "quote"),
        ({"quote": "EUR"}, "quote"),
        ({"rate": "0"}, "rate"),
        ({"rate": "-1"}, "rate"),
        ({"rate": "0.00000000001"}, "rate"),
        ({"rate": "NaN"}, "rate"),
        ({"rate": None}, "rate"),
        ({"valid_from": "soon"}, "valid_from"),
        ({"base": "CNY", "quote": "USD", "valid_from": "2001-01-01T00:00:00Z"}, "valid_from"),
        ({"rate_e10": 7}, "rate_e10"),
    ],
)
def test_a_bad_exchange_rate_names_the_field(root: APIClient, world: World, fields: dict[str, Any], at: str) -> None:
    assert attrs(root.post(RATES, {"base": "EUR", "quote": "USD", "rate": "1.1", **fields})) == {at}
    assert ExchangeRate.objects.count() == 1


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_prices_are_never_edited_or_removed(root: APIClient, world: World, method: str) -> None:
    assert getattr(root, method)(f"{PRICES}/{world.price.id}", price(world)).status_code == 405
    assert Price.objects.get().input_micros == 2_500_000
