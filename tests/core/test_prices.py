"""Which price, which rate, and how amounts follow from each other."""

from __future__ import annotations

import ast
import re
from decimal import Decimal
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import ExchangeRateSpec, ModelSpec, PriceSpec, Snapshot, most_specific_first
from core.money import CURRENCIES, RATE_SCALE, adjusted, converted, converted_up, cost_micros, plain_rate, rate_from_decimal
from core.usage import Usage, tier_of

MIDNIGHT = 1_767_225_600.0  # 2026-01-01T00:00:00Z
ROOT = Path(__file__).resolve().parents[2]


def price(name: str, start: float = 0.0, end: float | None = None, **tier: Any) -> PriceSpec:
    return PriceSpec(name, "USD", start, end, 1, 1, 1, 1, **tier)


def model(*prices: PriceSpec) -> ModelSpec:
    return ModelSpec("m", "m", "m", "p", prices=most_specific_first(prices))


def found(spec: ModelSpec, wall_s: float, tokens: int = 0, tier: str = "") -> str | None:
    price = spec.price_at(wall_s, tokens, tier)
    return price.id if price else None


def test_a_second_before_midnight_and_one_after_are_priced_differently() -> None:
    spec = model(price("old", end=MIDNIGHT), price("new", MIDNIGHT))
    assert [found(spec, MIDNIGHT + seconds) for seconds in (-1, -0.000001, 0, 1)] == ["old", "old", "new", "new"]


def test_the_most_specific_price_is_taken() -> None:
    spec = model(
        price("any"),
        price("long", min_input_tokens=200_001),
        price("longest", min_input_tokens=1_000_000),
        price("flex", service_tier="flex"),
        price("long flex", service_tier="flex", min_input_tokens=200_001),
    )
    assert [found(spec, 1, tokens) for tokens in (0, 200_000, 200_001, 999_999, 1_000_000)] == ["any", "any", "long", "long", "longest"]
    assert [found(spec, 1, tokens, "flex") for tokens in (0, 200_000, 200_001, 2_000_000)] == ["flex", "flex", "long flex", "long flex"]
    assert [found(spec, 1, tokens, "priority") for tokens in (0, 200_001)] == ["any", "long"]


def test_a_tier_that_is_not_in_force_gives_way() -> None:
    spec = model(price("any"), price("long, later", 100.0, min_input_tokens=10), price("flex, over", end=50.0, service_tier="flex"))
    assert (found(spec, 99.0, 10), found(spec, 100.0, 10)) == ("any", "long, later")
    assert (found(spec, 49.0, 0, "flex"), found(spec, 50.0, 0, "flex")) == ("flex, over", "any")


def test_a_model_with_prices_for_tiers_alone_costs_an_unknown_amount_outside_of_them() -> None:
    spec = model(price("long", min_input_tokens=10), price("flex", service_tier="flex"))
    assert (found(spec, 1, 9), found(spec, 1, 9, "flex"), found(spec, 1, 10)) == (None, "flex", "long")


@pytest.mark.parametrize(
    ("said", "tier"),
    [
        ("flex", "flex"),
        ("priority", "priority"),
        ("batch", "batch"),
        ("default", ""),
        ("standard", ""),
        ("auto", ""),
        (None, None),
        (7, None),
    ],
)
def test_a_vendors_word_for_a_tier(said: Any, tier: str | None) -> None:
    assert tier_of(said) == tier


def test_the_rate_in_force() -> None:
    snapshot = Snapshot(1, 0.0, exchange_rates={"CNY": (ExchangeRateSpec(20.0, 2, "b"), ExchangeRateSpec(10.0, 1, "a"))})
    rates = [snapshot.rate_at("CNY", moment) for moment in (9.9, 10.0, 19.9, 20.0)]
    assert [rate and rate.text for rate in rates] == [None, "a", "a", "b"]
    assert snapshot.rate_at("EUR", 20.0) is None


@given(st.integers(1, 10**16))
def test_a_rate_and_its_text_are_the_same(rate: int) -> None:
    assert rate_from_decimal(plain_rate(rate)) == rate
    assert Decimal(plain_rate(rate)) * RATE_SCALE == rate
    assert "E" not in plain_rate(rate)


@pytest.mark.parametrize("rate", ["0", "-1", "1000000.1", "0.00000000001", "NaN", "Infinity", "seven", "", "1e999999"])
def test_what_is_no_rate_is_refused(rate: str) -> None:
    with pytest.raises(ValueError):
        rate_from_decimal(rate)


@given(st.integers(0, 10**15), st.integers(1, 10**16), st.integers(-10_000, 100_000))
def test_amounts_are_exact_and_rounded_half_to_even(micros: int, rate: int, basis_points: int) -> None:
    there, back = ExchangeRateSpec(0.0, rate, ""), ExchangeRateSpec(0.0, rate, "", inverse=True)
    for spec, exact in ((there, Fraction(micros * rate, RATE_SCALE)), (back, Fraction(micros * RATE_SCALE, rate))):
        assert converted(micros, spec) == round(exact)
        assert converted_up(micros, spec) == ceil(exact)
    assert adjusted(micros, basis_points) == round(Fraction(micros * (10_000 + basis_points), 10_000))


@given(st.lists(st.integers(0, 10**9), min_size=10, max_size=10), st.integers(0, 10**12), st.integers(-10_000, 100_000))
def test_the_parts_are_the_whole_up_to_rounding(counts: list[int], amount: int, basis_points: int) -> None:
    """Each part is off by half a micro at most."""
    every = PriceSpec("p", "USD", 0.0, None, *[amount] * 10)
    parts = [cost_micros(Usage(**{name: count}), every, basis_points) for name, count in zip(Usage.__struct_fields__, counts, strict=False)]
    whole = cost_micros(Usage(*counts), every, basis_points)
    assert abs(sum(parts) - whole) <= (len(parts) + 1) / 2
    assert whole == round(Fraction(sum(counts) * amount * (10_000 + basis_points), 10**10))


def test_a_discount_of_everything_is_free_and_none_changes_nothing() -> None:
    assert (adjusted(7, -10_000), adjusted(7, 0), adjusted(7, 100_000)) == (0, 7, 77)


def test_the_currencies_are_codes() -> None:
    assert {"USD", "CNY", "EUR"} < CURRENCIES
    assert all(re.fullmatch("[A-Z]{3}", code) for code in CURRENCIES)


def test_the_example_of_the_documentation_is_right() -> None:
    text = (ROOT / "docs/money.md").read_text().partition("## An example")[2]
    amounts = PriceSpec("p", "CNY", 0.0, None, input=2_400_000, cached_input=480_000, cache_write=2_400_000, output=12_000_000)
    cost = cost_micros(Usage(input=1234, cached_input=5678, output=910), amounts, -1500)
    reported = converted(cost, ExchangeRateSpec(0.0, rate_from_decimal("0.1404"), "0.1404"))
    owed = adjusted(reported, 500)
    for name, micros in (("cost_micros", cost), ("cost_reporting_micros", reported), ("charged_micros", owed)):
        assert re.search(rf"^{name} .*→ +{micros}$", text, re.MULTILINE), name


# Where amounts are worked out.
MONEY = ("core/money.py", "gateway/settlement.py", "models_registry/services.py", "models_registry/price_file.py")


@pytest.mark.parametrize("path", MONEY)
def test_no_binary_fraction_reaches_an_amount(path: str) -> None:
    """No `float()`, no literal with a point, and no true division: `/` between integers makes a float. Seconds are no money."""
    tree = ast.parse((ROOT / path).read_text())
    assert [ast.unparse(node) for node in ast.walk(tree) if _makes_a_float(node)] == []


def _makes_a_float(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "float"
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float)
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
