from __future__ import annotations

import random

import pytest

from core.errors import (
    GatewayError,
    InvalidRequest,
    ProviderError,
    ProviderFault,
    ProviderLimited,
    ProviderPaused,
    ProviderRefused,
    ProviderRejectedOurKey,
    ProviderTimeout,
)
from gateway.retry import MAX_SAVED_RETRIES, Decision, Failure, RetryBudget, backoff_s, client_timeout_s, decide


def decided(
    error: GatewayError,
    *,
    called: bool = True,
    failures: int = 1,
    more: bool = False,
    other_key: bool = False,
    left: float = 10.0,
    wait: float = 0.1,
) -> Decision:
    return decide(Failure(error, called, failures, more, other_key, left, wait), max_retries=2)


@pytest.mark.parametrize("error", [InvalidRequest("x"), ProviderRefused("x")])
def test_the_callers_mistake_is_never_sent_again(error: GatewayError) -> None:
    assert decided(error, more=True, other_key=True) is Decision.GIVE_UP


@pytest.mark.parametrize("error", [ProviderFault("x"), ProviderTimeout("x"), ProviderLimited("x"), ProviderRejectedOurKey("x")])
def test_another_target_comes_before_the_same_one(error: GatewayError) -> None:
    assert decided(error, more=True) is Decision.NEXT_TARGET


def test_the_only_target_is_tried_again_after_faults_but_not_after_limits() -> None:
    assert decided(ProviderFault("x")) is Decision.SAME_TARGET
    assert decided(ProviderRejectedOurKey("x")) is Decision.GIVE_UP
    assert decided(ProviderLimited("x")) is Decision.GIVE_UP
    assert decided(ProviderPaused("x"), called=False) is Decision.GIVE_UP
    assert decided(ProviderRejectedOurKey("x"), called=False) is Decision.GIVE_UP


def test_a_vendor_that_kept_silent_is_not_waited_for_twice() -> None:
    assert decided(ProviderTimeout("x")) is Decision.GIVE_UP
    assert decided(ProviderTimeout("x"), more=True) is Decision.NEXT_TARGET


def test_another_key_comes_first_where_the_key_is_what_failed() -> None:
    assert decided(ProviderRejectedOurKey("x"), more=True, other_key=True) is Decision.NEXT_KEY
    assert decided(ProviderLimited("x"), more=True, other_key=True) is Decision.NEXT_KEY
    assert decided(ProviderFault("x"), more=True, other_key=True) is Decision.NEXT_TARGET


def test_a_refused_key_does_not_count_against_the_retries() -> None:
    assert decided(ProviderRejectedOurKey("x"), failures=9, other_key=True) is Decision.NEXT_KEY
    assert decided(ProviderLimited("x"), failures=3, other_key=True) is Decision.GIVE_UP


def test_retries_and_time_are_bounded() -> None:
    assert decided(ProviderFault("x"), failures=3, more=True) is Decision.GIVE_UP
    assert decided(ProviderPaused("x"), called=False, failures=3, more=True) is Decision.NEXT_TARGET
    assert decided(ProviderFault("x"), left=0.0, more=True) is Decision.GIVE_UP


def test_no_retry_begins_that_cannot_wait_in_time_or_would_wait_long() -> None:
    assert decided(ProviderFault("x"), left=0.5, wait=0.4) is Decision.SAME_TARGET
    assert decided(ProviderFault("x"), left=0.5, wait=0.5) is Decision.GIVE_UP
    assert decided(ProviderFault("x"), left=99, wait=30) is Decision.GIVE_UP


def test_a_vendor_that_says_not_to_ask_again_is_not_asked_but_another_one_is() -> None:
    error: ProviderError = ProviderFault("x")
    error.ask_again = False
    assert decided(error) is Decision.GIVE_UP
    assert decided(error, more=True) is Decision.NEXT_TARGET


def test_backoff_is_anywhere_below_a_doubling_bound() -> None:
    rng = random.Random(1)
    for failures, bound in ((1, 0.1), (2, 0.2), (3, 0.4), (10, 2.0)):
        waits = [backoff_s(ProviderFault("x"), failures, rng) for _ in range(200)]
        assert 0 <= min(waits) < bound / 4
        assert bound / 2 < max(waits) <= bound


def test_backoff_is_no_shorter_than_the_vendor_asks_for() -> None:
    assert backoff_s(ProviderFault("x", retry_after_s=1.5), 1, random.Random(1)) == 1.5


def test_the_budget_is_a_tenth_of_the_calls_and_one_a_second() -> None:
    budget = RetryBudget(0.0)
    spent = retries_granted(budget, 0.0)
    assert spent == MAX_SAVED_RETRIES
    budget.calls += 25
    assert retries_granted(budget, 0.0) == 2
    assert retries_granted(budget, 3.0) == 3
    assert retries_granted(budget, 1e6) == MAX_SAVED_RETRIES


def retries_granted(budget: RetryBudget, now: float) -> int:
    granted = 0
    while budget.take(now):
        granted += 1
        budget.calls += 1  # which every retry does
    return granted


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], float("inf")),
        ([(b"x-stainless-read-timeout", b"600")], 600),
        ([(b"x-stainless-timeout", b"30"), (b"x-request-timeout-s", b"2.5")], 2.5),
        ([(b"x-request-timeout-s", b"soon")], float("inf")),
        ([(b"x-request-timeout-s", b"-1"), (b"x-request-timeout-s", b"nan")], float("inf")),
    ],
)
def test_the_client_says_how_long_it_waits(headers: list[tuple[bytes, bytes]], seconds: float) -> None:
    assert client_timeout_s(headers) == seconds
