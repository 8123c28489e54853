from __future__ import annotations

import random

import pytest

from core.errors import (
    GatewayError,
    InvalidRequest,
    ProviderFault,
    ProviderLimited,
    ProviderPaused,
    ProviderRefused,
    ProviderRejectedOurKey,
    ProviderTimeout,
)
from gateway.retry import Decision, backoff_s, decide


def decided(error: GatewayError, *, called: bool = True, failures: int = 1, more: bool = False, left: float = 10.0) -> Decision:
    return decide(error, called=called, failures=failures, max_retries=2, more_targets=more, time_left_s=left)


@pytest.mark.parametrize("error", [InvalidRequest("x"), ProviderRefused("x")])
def test_the_callers_mistake_is_never_sent_again(error: GatewayError) -> None:
    assert decided(error, more=True) is Decision.GIVE_UP


@pytest.mark.parametrize("error", [ProviderFault("x"), ProviderTimeout("x"), ProviderLimited("x"), ProviderRejectedOurKey("x")])
def test_another_target_comes_before_the_same_one(error: GatewayError) -> None:
    assert decided(error, more=True) is Decision.NEXT_TARGET


def test_the_only_target_is_tried_again_after_faults_but_not_after_limits() -> None:
    assert decided(ProviderFault("x")) is Decision.SAME_TARGET
    assert decided(ProviderRejectedOurKey("x")) is Decision.SAME_TARGET
    assert decided(ProviderLimited("x")) is Decision.GIVE_UP
    assert decided(ProviderPaused("x"), called=False) is Decision.GIVE_UP
    assert decided(ProviderRejectedOurKey("x"), called=False) is Decision.GIVE_UP


def test_retries_and_time_are_bounded() -> None:
    assert decided(ProviderFault("x"), failures=3, more=True) is Decision.GIVE_UP
    assert decided(ProviderPaused("x"), called=False, failures=3, more=True) is Decision.NEXT_TARGET
    assert decided(ProviderFault("x"), left=0.0, more=True) is Decision.GIVE_UP


def test_backoff_is_anywhere_below_a_doubling_bound() -> None:
    rng = random.Random(1)
    for failures, bound in ((1, 0.1), (2, 0.2), (3, 0.4), (10, 2.0)):
        waits = [backoff_s(failures, rng) for _ in range(200)]
        assert 0 <= min(waits) < bound / 4
        assert bound / 2 < max(waits) <= bound
