"""After a failed attempt: try again, and where? Pure, and the only place that decides it."""

from __future__ import annotations

import enum
import random

from core.errors import GatewayError, ProviderRejectedOurKey

_BACKOFF_BASE_S = 0.1
_BACKOFF_CAP_S = 2.0


class Decision(enum.Enum):
    NEXT_TARGET = "next target"
    SAME_TARGET = "same target"
    GIVE_UP = "give up"


def decide(
    error: GatewayError,
    *,
    called: bool,
    failures: int,
    max_retries: int,
    more_targets: bool,
    time_left_s: float,
) -> Decision:
    """`called`: the vendor was reached for; `failures` counts attempts that have failed, this one included.

    Nothing is retried after the first content byte: the pipeline does not ask then. Moving on from a target that was not
    called costs no vendor anything.
    """
    if not error.retryable or time_left_s <= 0:
        return Decision.GIVE_UP
    if not called and more_targets:
        return Decision.NEXT_TARGET
    if failures > max_retries:
        return Decision.GIVE_UP
    if more_targets:
        return Decision.NEXT_TARGET
    # The only target left: another credential may do better, and a vendor that fails may be well again in a moment.
    # A pause or a vendor's limit is a wait that the caller is told of.
    again = called and (error.blames_provider or isinstance(error, ProviderRejectedOurKey))
    return Decision.SAME_TARGET if again else Decision.GIVE_UP


def backoff_s(failures: int, rng: random.Random) -> float:
    """Full jitter: anywhere between nothing and a bound that doubles, so that callers do not come back together."""
    return rng.uniform(0, min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2 ** (failures - 1)))
