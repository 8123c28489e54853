"""What an attempt costs us, and what its team owes for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from core.chat import Answer, ChatRequest, Usage
from core.config import CallerSpec, ExchangeRateSpec, ModelSpec, PriceSpec, ProviderSpec, Snapshot, most_specific_first
from core.errors import ProviderUnreachable
from core.plain import PLAIN
from gateway import settlement
from gateway.settlement import Attempt, Charge

USAGE = Usage(input=1234, cached_input=5678, output=910)
CNY = PriceSpec("cny", "CNY", 0.0, None, input=2_400_000, cached_input=480_000, cache_write=2_400_000, output=12_000_000)
RATES = {"CNY": (ExchangeRateSpec(100.0, 1_500_000_000, "0.15"), ExchangeRateSpec(0.0, 1_404_000_000, "0.1404"))}


def charge(
    *prices: PriceSpec,
    usage: Usage | None = USAGE,
    started_at: float = 1.0,
    provider_bp: int = 0,
    team_bp: int = 0,
    asked: bytes | None = None,
    rates: dict[str, Any] = RATES,
    error: Exception | None = None,
) -> Charge:
    target = SimpleNamespace(
        model=ModelSpec("m", "m", "m", "p", prices=most_specific_first(prices)),
        provider=ProviderSpec("p", "p", "openai", "", price_adjustment_bp=provider_bp),
    )
    upstream: Any = SimpleNamespace(key=None, reader=None)
    answer = Answer(b"", usage, "stop", 0) if error is None else None
    attempt = Attempt("r", 1, target, started_at, 0.0, upstream, answer=answer)  # type: ignore[arg-type]
    fields = {} if asked is None else {"service_tier": msgspec.Raw(asked)}
    request = ChatRequest(PLAIN, "m", False, False, None, 400, fields)
    caller = CallerSpec("k", "k", "llm_1", "t", "t", frozenset(), price_adjustment_bp=team_bp)
    return settlement.charge(attempt, request, error, caller, Snapshot(1, 0.0, exchange_rates=rates))  # type: ignore[arg-type]


def amounts(found: Charge) -> tuple[Any, ...]:
    return (
        found.cost_micros,
        found.currency,
        found.cost_reporting_micros,
        found.charged_micros,
        found.reporting_currency,
        found.exchange_rate,
    )


def test_our_cost_its_conversion_and_what_the_team_owes() -> None:
    assert amounts(charge(CNY, provider_bp=-1500, team_bp=500)) == (14_116, "CNY", 1982, 2081, "USD", "0.1404")


def test_in_the_reporting_currency_nothing_is_converted() -> None:
    usd = msgspec.structs.replace(CNY, currency="USD")
    assert amounts(charge(usd, rates={}, team_bp=-10_000)) == (16_607, "USD", 16_607, 0, "USD", "1")


def test_the_rate_is_that_of_the_moment_at_which_the_attempt_began() -> None:
    assert [charge(CNY, started_at=moment).exchange_rate for moment in (99.9, 100.0)] == ["0.1404", "0.15"]


def test_a_rate_the_other_way_round_divides_and_the_record_says_so() -> None:
    rates = {"CNY": (ExchangeRateSpec(0.0, 71_200_000_000, "1/7.12", inverse=True),)}
    assert amounts(charge(CNY, rates=rates)) == (16_607, "CNY", 2332, 2332, "USD", "1/7.12")  # 2332.4…


def test_without_a_rate_the_amounts_are_unknown_and_not_zero() -> None:
    assert amounts(charge(CNY, rates={})) == (16_607, "CNY", None, None, "USD", "")


def test_without_a_price_the_amounts_are_unknown_and_not_zero() -> None:
    assert amounts(charge()) == (None, "", None, None, "USD", "")


def test_what_costs_nothing_needs_no_rate() -> None:
    free = PriceSpec("free", "EUR", 0.0, None, 0, 0, 0, 0)
    assert amounts(charge(free, rates={})) == (0, "EUR", 0, 0, "USD", "")


def test_what_was_not_used_is_not_owed() -> None:
    failed = charge(CNY, error=ProviderUnreachable("It is not there."))
    assert (failed.usage, failed.cost_micros, failed.cost_reporting_micros, failed.charged_micros) == (None, 0, 0, 0)


@pytest.mark.parametrize(
    ("said", "asked", "price_id"),
    [
        (None, None, "any"),
        (None, b'"flex"', "flex"),
        (None, b'"auto"', "any"),
        (None, b"7", "any"),
        ("flex", None, "flex"),
        ("", b'"flex"', "any"),  # the vendor served another tier than was asked for
        ("flex", b'"priority"', "flex"),
    ],
)
def test_the_vendors_word_for_the_tier_beats_the_requests(said: str | None, asked: bytes | None, price_id: str) -> None:
    prices = PriceSpec("any", "USD", 0.0, None, 2, 2, 2, 2), PriceSpec("flex", "USD", 0.0, None, 1, 1, 1, 1, service_tier="flex")
    assert charge(*prices, usage=msgspec.structs.replace(USAGE, service_tier=said), asked=asked).price_id == price_id


def test_cached_tokens_count_towards_the_size() -> None:
    prices = PriceSpec("any", "USD", 0.0, None, 2, 2, 2, 2), PriceSpec("long", "USD", 0.0, None, 4, 4, 4, 4, min_input_tokens=6912)
    assert charge(*prices, usage=Usage(input=1234, cached_input=5678, output=910)).price_id == "long"
    assert charge(*prices, usage=Usage(input=1233, cached_input=5678, output=10**9)).price_id == "any"
