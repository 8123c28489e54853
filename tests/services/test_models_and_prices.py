"""Syncing models, and prices that supersede each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.db.models import FloatField
from django.utils import timezone

from core.errors import ProviderNonsense
from models_registry import catalogue, services
from models_registry.models import LLMModel, Price
from models_registry.sync import MAX_VENDOR_MODELS
from providers.models import Provider
from providers.services import create_provider

T0 = datetime(2026, 1, 1, tzinfo=UTC)
pytestmark = pytest.mark.django_db


@pytest.fixture
def provider() -> Provider:
    return create_provider(name="echo", provider_type="echo")


@pytest.fixture
def model(provider: Provider) -> LLMModel:
    return LLMModel.objects.create(provider=provider, model_id="m", alias="m")


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(services, "list_vendor_models", lambda provider: list(names))
    return names


# Sync ---------------------------------------------------------------------------------------------------------------


def test_echo_really_lists_its_model(provider: Provider) -> None:
    assert services.sync_models(provider, apply=True).new == ["echo-1"]
    assert LLMModel.objects.get().alias == "echo-1"


def test_looking_changes_nothing(provider: Provider, model: LLMModel, listed: list[str]) -> None:
    listed += ["b", "a"]
    diff = services.sync_models(provider, apply=False)
    assert (diff.new, diff.gone, diff.changed, diff.applied) == (["a", "b"], ["m"], [], False)
    assert list(LLMModel.objects.values_list("model_id", "is_active")) == [("m", True)]


def test_applied_twice_is_applied_once(provider: Provider, listed: list[str]) -> None:
    listed += ["a", "b"]
    services.sync_models(provider, apply=True)
    diff = services.sync_models(provider, apply=True)
    assert (diff.new, diff.gone, diff.changed, diff.applied) == ([], [], [], True)
    assert LLMModel.objects.count() == 2


def test_what_is_gone_is_switched_off_and_comes_back(provider: Provider, model: LLMModel, listed: list[str]) -> None:
    assert services.sync_models(provider, apply=True).gone == ["m"]
    model.refresh_from_db()
    assert not model.is_active
    assert services.sync_models(provider, apply=True).gone == []
    listed.append("m")
    assert services.sync_models(provider, apply=False).changed == ["m"]
    services.sync_models(provider, apply=True)
    model.refresh_from_db()
    assert model.is_active
    assert services.sync_models(provider, apply=True).changed == []


def test_what_an_admin_switched_off_stays_off(provider: Provider, model: LLMModel, listed: list[str]) -> None:
    listed.append("m")
    LLMModel.objects.update(is_active=False)
    assert services.sync_models(provider, apply=True).changed == []
    model.refresh_from_db()
    assert not model.is_active


def test_a_taken_alias_gets_the_providers_name_in_front(provider: Provider, model: LLMModel, listed: list[str]) -> None:
    other = create_provider(name="other", provider_type="echo")
    listed += ["m", "models/gemini pro", "_odd"]
    services.sync_models(other, apply=True)
    aliases = set(LLMModel.objects.filter(provider=other).values_list("alias", flat=True))
    assert aliases == {"other/m", "models/gemini-pro", "other/_odd"}


@pytest.mark.parametrize("names", [["x" * 201], ["a\nb"], [""], [f"m{number}" for number in range(MAX_VENDOR_MODELS + 1)]])
def test_a_silly_list_is_refused_whole(provider: Provider, listed: list[str], names: list[str]) -> None:
    listed += ["good", *names]
    with pytest.raises(ProviderNonsense):
        services.sync_models(provider, apply=True)
    assert not LLMModel.objects.exists()


@pytest.mark.parametrize(
    ("name", "model_type"), [("nomic-embed-text:v1.5", "embedding"), ("text-embedding-v4", "embedding"), ("qwen3", "chat")]
)
def test_embedding_models_are_told_by_their_name(provider: Provider, listed: list[str], name: str, model_type: str) -> None:
    listed.append(name)
    services.sync_models(provider, apply=True)
    assert LLMModel.objects.get().model_type == model_type


# Proposals ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def vendor() -> Provider:
    return create_provider(name="vendor", provider_type="openai")


def test_a_proposal_fills_gaps_of_every_alias_and_replaces_nothing(vendor: Provider, listed: list[str]) -> None:
    listed.append("gpt-4o")
    bare = LLMModel.objects.create(provider=vendor, model_id="gpt-4o", alias="bare", capabilities=["stream"])
    own = LLMModel.objects.create(
        provider=vendor, model_id="gpt-4o", alias="own", context_window=1, max_output_tokens=2, capabilities=["x"]
    )
    price(own, input="0", output="0")
    diff = services.sync_models(vendor, apply=True, accept=True)
    assert (diff.new, list(diff.taken)) == ([], ["gpt-4o"])
    bare.refresh_from_db()
    own.refresh_from_db()
    assert (bare.context_window, bare.max_output_tokens, bare.prices.get().input_micros) == (128_000, 16_384, 2_500_000)
    assert bare.capabilities == ["stream", "files", "images", "json_schema", "tools"]
    assert (own.context_window, own.max_output_tokens, own.capabilities, own.prices.get().input_micros) == (1, 2, ["x"], 0)
    assert services.sync_models(vendor, apply=False).proposals == []


def test_what_a_connection_test_has_disproved_is_not_proposed(vendor: Provider, listed: list[str]) -> None:
    listed.append("gpt-4o")
    LLMModel.objects.create(provider=vendor, model_id="gpt-4o", alias="m", tested={"tools": "fail", "json_schema": "pass"})
    assert services.sync_models(vendor, apply=False).proposals[0].capabilities == ["files", "images", "json_schema"]


def test_a_future_price_is_a_price(vendor: Provider, listed: list[str]) -> None:
    listed.append("gpt-4o")
    price(LLMModel.objects.create(provider=vendor, model_id="gpt-4o", alias="m"), timezone.now() + timedelta(days=9))
    assert services.sync_models(vendor, apply=False).proposals[0].per_million == {}


def test_somebody_elses_address_gets_no_price(listed: list[str]) -> None:
    listed.append("gpt-4o")
    proxy = create_provider(name="proxy", provider_type="openai", base_url="https://proxy.example/v1")
    found = services.sync_models(proxy, apply=False).proposals[0]
    assert (found.context_window, found.per_million) == (128_000, {})


@pytest.mark.parametrize(
    ("provider_type", "base_url", "model_id", "input_price"),
    [
        ("moonshot", "", "kimi-k2.5", "0.6"),
        ("dashscope_compatible", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "qwen-plus", "0.4"),
        ("dashscope_compatible", "", "qwen-plus", "0.115"),
        ("gemini", "", "models/gemini-2.5-pro", "1.25"),
        ("openai", "", "gpt-4o-2099-01-01", None),
        ("llamacpp", "", "gpt-4o", None),
    ],
)
def test_a_price_is_the_vendors_own_for_exactly_this_model(
    provider_type: str, base_url: str, model_id: str, input_price: str | None
) -> None:
    entry = catalogue.entry_of(Provider(provider_type=provider_type, base_url=base_url), model_id)
    assert (entry.per_million or {}).get("input") == input_price if entry else input_price is None


def test_a_proposed_price_brings_its_tiers_of_size(listed: list[str]) -> None:
    google = create_provider(name="google", provider_type="gemini")
    listed.append("gemini-2.5-pro")
    services.sync_models(google, apply=True, accept=True)
    found = Price.objects.order_by("min_input_tokens").values_list("min_input_tokens", "input_micros")
    assert list(found) == [(0, 1_250_000), (200_001, 2_500_000)]


def test_a_price_that_changes_with_the_hour_is_proposed_at_its_dearest() -> None:
    entry = catalogue.entry_of(Provider(provider_type="deepseek"), "deepseek-chat")
    assert entry is not None
    assert entry.per_million == {"input": "0.28", "cached_input": "0.0056", "output": "0.56"}
    assert entry.price_source.endswith("peak hours")


# Prices -------------------------------------------------------------------------------------------------------------


def price(model: LLMModel, start: datetime | None = T0, **per_million: str) -> Price:
    amounts = per_million or {"input": "2.50", "output": "10"}
    return services.set_price(model, currency="USD", per_million=amounts, valid_from=start)


def test_a_price_is_whole_micro_units(model: LLMModel) -> None:
    row = price(model, input="2.50", cached_input="0.000001", output="1000000")
    assert (row.input_micros, row.cached_input_micros, row.cache_write_micros) == (2_500_000, 1, 2_500_000)
    assert row.output_micros == 1_000_000_000_000


def test_decimals_go_too(model: LLMModel) -> None:
    row = services.set_price(model, currency="USD", per_million={"input": Decimal("0.1"), "output": Decimal(0)})
    assert (row.input_micros, row.cached_input_micros, row.output_micros) == (100_000, 100_000, 0)


def test_a_new_price_ends_the_one_before(model: LLMModel) -> None:
    first = price(model)
    second = price(model, T0 + timedelta(days=1), input="3", output="9")
    first.refresh_from_db()
    assert (first.valid_to, first.input_micros) == (second.valid_from, 2_500_000)
    assert second.valid_to is None


def test_without_a_moment_it_is_now(model: LLMModel) -> None:
    before = timezone.now()
    assert before <= price(model, None).valid_from <= timezone.now()


@pytest.mark.parametrize("start", [T0, T0 - timedelta(seconds=1)])
def test_no_price_before_the_latest(model: LLMModel, start: datetime) -> None:
    price(model)
    with pytest.raises(ValidationError) as refused:
        price(model, start)
    assert list(refused.value.error_dict) == ["valid_from"]
    assert Price.objects.get().valid_to is None


def test_no_price_inside_one_that_has_an_end(model: LLMModel) -> None:
    first = price(model)
    Price.objects.filter(pk=first.pk).update(valid_to=T0 + timedelta(days=10))
    with pytest.raises(ValidationError, match="ends at"):
        price(model, T0 + timedelta(days=9))
    price(model, T0 + timedelta(days=10))
    first.refresh_from_db()
    assert first.valid_to == T0 + timedelta(days=10)


@pytest.mark.parametrize(
    ("bucket", "amount"),
    [
        ("input", "-0.000001"),
        ("output", "1000000.000001"),
        ("output", "NaN"),
        ("output", "sNaN"),
        ("output", "Infinity"),
        ("output", "1e999999"),
        ("cached_input", "much"),
        ("cached_input", ""),
        ("cache_write", "0.0000001"),
        ("cache_write", 0.1),
        ("cache_write", True),
        ("cache_write", None),
        ("images", "1"),
    ],
)
def test_a_bad_amount_stands_on_its_bucket(model: LLMModel, bucket: str, amount: object) -> None:
    price(model)
    with pytest.raises(ValidationError) as refused:
        services.set_price(model, currency="USD", per_million={"input": "1", "output": "1", bucket: amount})  # type: ignore[dict-item]
    assert list(refused.value.error_dict) == [f"per_million.{bucket}"]
    assert Price.objects.get().valid_to is None


@pytest.mark.parametrize("missing", ["input", "output"])
def test_input_and_output_are_needed(model: LLMModel, missing: str) -> None:
    given = {"input": "1", "output": "1"}
    del given[missing]
    with pytest.raises(ValidationError) as refused:
        services.set_price(model, currency="USD", per_million=given)
    assert list(refused.value.error_dict) == [f"per_million.{missing}"]


@pytest.mark.parametrize("currency", ["usd", "ABC", "", "DOLLARS"])
def test_an_unknown_currency_is_refused(model: LLMModel, currency: str) -> None:
    with pytest.raises(ValidationError) as refused:
        services.set_price(model, currency=currency, per_million={"input": "1", "output": "1"})
    assert list(refused.value.error_dict) == ["currency"]


# Tiers --------------------------------------------------------------------------------------------------------------


def tier(model: LLMModel, start: datetime, service_tier: str = "", size: int = 0) -> Price:
    return services.set_price(
        model,
        currency="USD",
        per_million={"input": "1", "output": "1"},
        valid_from=start,
        service_tier=service_tier,
        min_input_tokens=size,
    )


def test_each_tier_has_a_history_of_its_own(model: LLMModel) -> None:
    first, flex, long = price(model), tier(model, T0, "flex"), tier(model, T0, "", 200_001)
    later = tier(model, T0 + timedelta(days=1), "flex")
    for row in (first, flex, long):
        row.refresh_from_db()
    assert (first.valid_to, flex.valid_to, long.valid_to) == (None, later.valid_from, None)
    with pytest.raises(ValidationError, match="latest price begins"):
        tier(model, T0, "flex")


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"service_tier": "fast"}, "service_tier"),
        ({"min_input_tokens": -1}, "min_input_tokens"),
        ({"min_input_tokens": "200001"}, "min_input_tokens"),
        ({"min_input_tokens": 10**10}, "min_input_tokens"),
    ],
)
def test_a_bad_tier_is_named(model: LLMModel, fields: dict[str, Any], at: str) -> None:
    with pytest.raises(ValidationError) as refused:
        services.set_price(model, currency="USD", per_million={"input": "1", "output": "1"}, **fields)
    assert list(refused.value.error_dict) == [at]
    assert not Price.objects.exists()


def test_a_price_is_never_edited(model: LLMModel) -> None:
    row = price(model)
    row.input_micros = 1
    with pytest.raises(ValidationError, match="never edited"):
        row.save()
    with pytest.raises(ValidationError, match="never edited"):
        row.save(update_fields=["input_micros", "valid_to"])
    assert Price.objects.get().input_micros == 2_500_000


def test_a_row_that_overlaps_another_is_refused_however_it_is_made(model: LLMModel) -> None:
    price(model)
    amounts = services.price_columns({"input": "1", "output": "1"})
    inside = Price(model=model, valid_from=T0 + timedelta(days=1), valid_to=T0 + timedelta(days=2), **amounts)
    with pytest.raises(ValidationError) as refused:
        inside.full_clean()
    assert list(refused.value.error_dict) == ["valid_from"]
    Price(model=model, valid_from=T0 - timedelta(days=1), valid_to=T0, **amounts).full_clean()
    with pytest.raises(IntegrityError):
        Price.objects.create(model=model, valid_from=T0 + timedelta(days=1), **amounts)


# Exchange rates -----------------------------------------------------------------------------------------------------


def test_a_rate_is_kept_exactly_and_never_edited() -> None:
    row = services.set_exchange_rate(base="CNY", quote="USD", rate=Decimal("0.1404000001"), valid_from=T0)
    row.refresh_from_db()
    assert (row.rate_e10, row.rate) == (1_404_000_001, "0.1404000001")
    with pytest.raises(ValidationError, match="never edited"):
        row.save()
    row.full_clean()


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"base": "XYZ"}, "base"),
        ({"quote": "EUR"}, "quote"),
        ({"rate": 1.1}, "rate"),
        ({"rate": "0"}, "rate"),
        ({"rate": "1000001"}, "rate"),
        ({"base": "CNY", "valid_from": T0}, "valid_from"),
    ],
)
def test_a_bad_rate_is_named(fields: dict[str, Any], at: str) -> None:
    services.set_exchange_rate(base="CNY", quote="USD", rate="0.14", valid_from=T0)
    with pytest.raises(ValidationError) as refused:
        services.set_exchange_rate(**{"base": "EUR", "quote": "USD", "rate": "1.1", "valid_from": T0, **fields})
    assert list(refused.value.error_dict) == [at]


def test_no_money_column_is_a_float() -> None:
    ours = ("providers", "models_registry", "access", "monitoring")
    floats = {
        f"{row._meta.label}.{field.name}"
        for row in apps.get_models()
        if row._meta.app_label in ours
        for field in row._meta.get_fields()
        if isinstance(field, FloatField)
    }
    assert not {
        name
        for name in floats
        if any(word in name for word in ("cost", "price", "micros", "budget", "amount", "Price", "rate_e10", "charge", "Exchange"))
    }
    assert {name for name in floats if not name.startswith("providers.Provider.")} == set()
