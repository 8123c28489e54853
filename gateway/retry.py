"""After a failed attempt: try again, and where? Pure, and the only place that decides it."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterable
from typing import NamedTuple

from core.errors import GatewayError, ProviderLimited, ProviderRejectedOurKey, ProviderTimeout

DELAY_S = 0.1
_BACKOFF_CAP_S = 2.0
# Of calls to a vendor that fails, so many more may be retries; and so many a second, for those who call seldom.
RETRY_SHARE = 0.1
RETRIES_PER_S = 1.0
MAX_SAVED_RETRIES = 10.0
# How long a client waits before it gives up: our own header, and what OpenAI's and Anthropic's SDKs send of their timeout
# (Python `x-stainless-read-timeout`, JavaScript `x-stainless-timeout`), all in seconds.
_CLIENT_TIMEOUTS = frozenset({b"x-request-timeout-s", b"x-stainless-read-timeout", b"x-stainless-timeout"})


class Decision(enum.Enum):
    NEXT_TARGET = "next target"
    NEXT_KEY = "another key of the same target"
    SAME_TARGET = "same target"
    GIVE_UP = "give up"


class Failure(NamedTuple):
    """`called`: the vendor was reached for; `failures` counts calls that failed, this one included, but not those whose key
    was refused. `other_key`: the target has another key that could be used now. `wait_s` is what a retry would wait first."""

    error: GatewayError
    called: bool
    failures: int
    more_targets: bool
    other_key: bool
    time_left_s: float
    wait_s: float


def decide(failure: Failure, max_retries: int) -> Decision:
    """Nothing is retried after the first content byte: the pipeline does not ask then. Moving on from a target that was not
    called costs no vendor anything, nor does moving on from a key that was refused: it rests."""
    error = failure.error
    if not error.retryable or failure.time_left_s <= 0:
        return Decision.GIVE_UP
    elsewhere = Decision.NEXT_TARGET if failure.more_targets else Decision.GIVE_UP
    if not failure.called:
        return elsewhere
    if isinstance(error, ProviderRejectedOurKey):
        return Decision.NEXT_KEY if failure.other_key else elsewhere
    if failure.failures > max_retries:
        return Decision.GIVE_UP
    if isinstance(error, ProviderLimited) and failure.other_key:
        return Decision.NEXT_KEY
    if failure.more_targets:
        return Decision.NEXT_TARGET
    # The only target left: a vendor that fails may be well again in a moment. A vendor's limit is a wait that the caller is told
    # of, and one that has kept silent for as long as it may has taken the caller's time already.
    again = error.blames_provider and getattr(error, "ask_again", True) and not isinstance(error, ProviderTimeout)
    soon = failure.wait_s <= _BACKOFF_CAP_S and failure.wait_s < failure.time_left_s
    return Decision.SAME_TARGET if again and soon else Decision.GIVE_UP


def backoff_s(error: GatewayError, failures: int, rng: random.Random, delay_s: float = DELAY_S) -> float:
    """Full jitter: anywhere between nothing and a bound that begins at `delay_s` and doubles, so that callers do not come back
    together; but no less than the vendor asked for."""
    return max(rng.uniform(0, min(_BACKOFF_CAP_S, delay_s * 2 ** (failures - 1))), error.retry_after_s or 0.0)


class RetryBudget:
    """One provider's: a tenth of its calls and one a second, saved up to a bound. Adding to `calls` is all that a call costs.

    `parts`: how many processes have such a budget for the same provider, each of which earns and saves its part.
    """

    __slots__ = ("_saved", "_seen_at", "_seen_calls", "calls", "parts")

    def __init__(self, now: float, parts: int = 1) -> None:
        self.calls = 0
        self.parts = parts
        self._saved = MAX_SAVED_RETRIES
        self._seen_calls = 0
        self._seen_at = now

    def take(self, now: float) -> bool:
        """Whether one more retry is affordable; it is then paid for."""
        earned = (self.calls - self._seen_calls) * RETRY_SHARE + (now - self._seen_at) * RETRIES_PER_S / self.parts
        self._saved = min(max(1.0, MAX_SAVED_RETRIES / self.parts), self._saved + earned)
        self._seen_calls, self._seen_at = self.calls, now
        if self._saved < 1:
            return False
        self._saved -= 1
        self._seen_calls += 1  # a retry is a call too, and earns nothing
        return True


def client_timeout_s(headers: Iterable[tuple[bytes, bytes]]) -> float:
    """How long the client waits, by the smallest of its headers; inf where it does not say so or writes no number above 0."""
    smallest = float("inf")
    for name, value in headers:
        if name in _CLIENT_TIMEOUTS:
            try:
                seconds = float(value)
            except ValueError:
                continue
            if 0 < seconds < smallest:
                smallest = seconds
    return smallest
