"""Syncing models, and prices that supersede each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import FloatField
from django.utils import timezone

from core.errors import ProviderNonsense
from models_registry import services
from models_registry.models import LLMModel, Price
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


@pytest.mark.parametrize("names", [["x" * 201], ["a\nb"], [""], [f"m{number}" for number in range(services.MAX_VENDOR_MODELS + 1)]])
def test_a_silly_list_is_refused_whole(provider: Provider, listed: list[str], names: list[str]) -> None:
    listed += ["good", *names]
    with pytest.raises(ProviderNonsense):
        services.sync_models(provider, apply=True)
    assert not LLMModel.objects.exists()


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


def test_a_currency_is_three_capitals(model: LLMModel) -> None:
    with pytest.raises(ValidationError) as refused:
        services.set_price(model, currency="usd", per_million={"input": "1", "output": "1"})
    assert list(refused.value.error_dict) == ["currency"]


def test_no_money_column_is_a_float() -> None:
    ours = ("providers", "models_registry", "access", "monitoring")
    floats = {
        f"{row._meta.label}.{field.name}"
        for row in apps.get_models()
        if row._meta.app_label in ours
        for field in row._meta.get_fields()
        if isinstance(field, FloatField)
    }
    assert not {name for name in floats if any(word in name for word in ("cost", "price", "micros", "budget", "amount", "Price"))}
    assert {name for name in floats if not name.startswith("providers.Provider.")} == set()
