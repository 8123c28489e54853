"""Money is exact, and rounded once."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chat import Usage
from core.config import ModelSpec, PriceSpec
from core.money import cost_micros, micros_from_decimal, plain

COUNTS = st.integers(0, 10**9)
PRICES = st.integers(0, 10**12)


def price(input: int = 0, cached_input: int = 0, cache_write: int = 0, output: int = 0, **more: int) -> PriceSpec:
    return PriceSpec("p", "USD", 0.0, None, input, cached_input, cache_write, output, **more)


@pytest.mark.parametrize(
    ("text", "micros"), [("2.50", 2_500_000), ("0.000001", 1), ("0", 0), ("-1.5", -1_500_000), ("1E3", 10**9), ("999999", 999_999_000_000)]
)
def test_units_become_micros_exactly(text: str, micros: int) -> None:
    assert micros_from_decimal(text) == micros_from_decimal(Decimal(text)) == micros


@pytest.mark.parametrize("text", ["", "abc", "0.0000001", "NaN", "Infinity", "-Infinity", "1,5"])
def test_what_is_no_exact_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        micros_from_decimal(text)


@given(st.integers(-(10**15), 10**15))
def test_micros_and_decimals_are_the_same_amount(micros: int) -> None:
    assert micros_from_decimal(plain(micros)) == micros
    assert Decimal(plain(micros)) * 10**6 == micros
    assert "E" not in plain(micros)


@pytest.mark.parametrize(
    ("micros", "text"), [(12_300, "0.0123"), (0, "0.0"), (1, "0.000001"), (2_000_000, "2.0"), (-1_500_000, "-1.5"), (10**13, "10000000.0")]
)
def test_an_amount_in_plain_words(micros: int, text: str) -> None:
    assert plain(micros) == text


def test_each_bucket_has_its_price() -> None:
    usage = Usage(input=1_000_000, cached_input=2_000_000, cache_write=3_000_000, output=4_000_000)
    assert cost_micros(usage, price(input=1, cached_input=10, cache_write=100, output=1000)) == 1 + 20 + 300 + 4000


def test_a_bucket_without_a_price_of_its_own_costs_what_text_does() -> None:
    usage = Usage(
        cache_write_1h=1_000_000,
        input_audio=2_000_000,
        input_image=3_000_000,
        reasoning=4_000_000,
        output_audio=5_000_000,
        output_image=6_000_000,
    )
    assert cost_micros(usage, price(input=1, cached_input=0, cache_write=100, output=1000)) == 100 + 2 + 3 + 4000 + 5000 + 6000
    own = {"cache_write_1h": 7, "input_audio": 70, "input_image": 700, "reasoning": 7_000, "output_audio": 0, "output_image": 70_000}
    assert cost_micros(usage, price(input=1, cached_input=0, cache_write=100, output=1000, **own)) == 7 + 140 + 2100 + 28_000 + 420_000


@pytest.mark.parametrize(("tokens", "cost"), [(1, 0), (2, 1), (3, 2), (5, 2), (7, 4)])
def test_halves_go_to_the_even_neighbour(tokens: int, cost: int) -> None:
    rate = 500_000 if tokens != 2 else 600_000
    assert cost_micros(Usage(input=tokens), price(input=rate)) == cost


@given(COUNTS, COUNTS, COUNTS, COUNTS, PRICES, PRICES, PRICES, PRICES)
def test_a_cost_is_the_exact_sum_rounded_once(i: int, c: int, w: int, o: int, pi: int, pc: int, pw: int, po: int) -> None:
    usage = Usage(input=i, cached_input=c, cache_write=w, output=o)
    exact = Fraction(i * pi + c * pc + w * pw + o * po, 10**6)
    assert cost_micros(usage, price(pi, pc, pw, po)) == round(exact)


def test_the_price_in_force_includes_its_first_moment_and_not_its_last() -> None:
    first, second = (PriceSpec(name, "USD", start, end, 1, 1, 1, 1) for name, start, end in (("a", 10.0, 20.0), ("b", 20.0, None)))
    model = ModelSpec("m", "m", "m", "p", prices=(first, second))
    assert [model.price_at(moment) for moment in (9.9, 10.0, 19.9, 20.0, 1e9)] == [None, first, first, second, second]
    assert ModelSpec("m", "m", "m", "p").price_at(0.0) is None


def test_usage_adds_up_over_disjoint_buckets() -> None:
    usage = Usage(1, 2, 4, 8, 16, 32, output=64, reasoning=128, output_audio=256, output_image=512)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (63, 960, 1023)
