"""One request's way through its targets, once the first has failed it: what `retry.decide` says, where that leads, and what it costs."""

from __future__ import annotations

import random
from collections.abc import Iterable

from core.clock import Clock
from core.errors import GatewayError, InvalidRequest, ProviderPaused, ProviderRejectedOurKey
from gateway import retry
from gateway.keypool import Key
from gateway.retry import Decision
from gateway.router import Target


class Course:
    """`resort_s` not None: no other target than this one is left, and so long may be waited for its breaker's trial.

    Targets that stand in for the others (`Target.degraded`) come last. They are asked also where no more retries are left and
    the vendor's time is up: a lesser answer, or a fixed one, is better than none.
    """

    __slots__ = (
        *(
            "_clock",
            "_degraded_from",
            "_delay_s",
            "_failed_with",
            "_failures",
            "_index",
            "_max_retries",
            "_passed_over",
            "_rng",
            "_targets",
        ),
        "resort_s",
    )

    def __init__(
        self, targets: tuple[Target, ...], clock: Clock, rng: random.Random, max_retries: int, delay_s: float = retry.DELAY_S
    ) -> None:
        self._targets = targets
        self._degraded_from = next((place for place, target in enumerate(targets) if target.degraded), len(targets))
        self._clock = clock
        self._rng = rng
        self._max_retries = max_retries
        self._delay_s = delay_s
        self._index = self._failures = 0
        self._failed_with: GatewayError | None = None
        # Of the targets that could not be had at once, the one that can be had soonest: (seconds, its place, why).
        self._passed_over: tuple[float, int, GatewayError] | None = None
        self.resort_s: float | None = None

    def after(self, error: GatewayError, key: Key | None, time_left_s: float, *, patient: bool) -> tuple[Target, float]:
        """(whom to try next, seconds to wait first). Raises where nothing is left to try.

        `key`: what the failed call was made with, None where the vendor was not called. `patient`: the client says how long it waits.
        """
        if key is None:
            self._pass_over(error)
        elif not isinstance(error, ProviderRejectedOurKey):
            self._failures += 1
        wait_s = retry.backoff_s(error, self._failures, self._rng, self._delay_s)
        decision = retry.decide(self._failure(error, key, time_left_s, wait_s), self._max_retries)
        following = self._affordable(decision, error, called=key is not None or self._failed_with is not None)
        if following is not None:
            self._index = following
        elif key is not None:
            raise error
        else:
            self._resort(error, time_left_s if patient else 0.0)
        if key is not None:
            # Known until the request ends. What was read of the failed answer is in the frames of its traceback, and need not stay.
            error.__traceback__ = error.__context__ = None
            self._failed_with, self.resort_s = error, None
        return self._targets[self._index], wait_s if decision is Decision.SAME_TARGET else 0.0

    def _failure(self, error: GatewayError, key: Key | None, time_left_s: float, wait_s: float) -> retry.Failure:
        target = self._targets[self._index]
        return retry.Failure(
            error,
            called=key is not None,
            failures=self._failures,
            more_targets=self._index + 1 < len(self._targets) and self.resort_s is None,
            other_key=key is not None and target.runtime.has_other_key(target.model.model_id, key),
            time_left_s=time_left_s,
            wait_s=wait_s,
        )

    def _pass_over(self, error: GatewayError) -> None:
        wait_s = error.retry_after_s or 0.0
        if self._passed_over is None or wait_s < self._passed_over[0] or self.resort_s is not None:
            self._passed_over = (wait_s, self._index, error)

    def _places(self, decision: Decision, error: GatewayError) -> Iterable[int]:
        """Where `decision` leads, best first."""
        if decision is Decision.SAME_TARGET:
            return (self._index,)
        if decision is Decision.NEXT_TARGET:
            return range(self._index + 1, len(self._targets))
        # What a lesser model cannot take is no fault of the request, which was made for a better one.
        unfit = isinstance(error, InvalidRequest) and self._index >= max(1, self._degraded_from)
        if self.resort_s is None and (error.retryable or unfit):
            return range(max(self._index + 1, self._degraded_from), len(self._targets))
        return ()

    def _affordable(self, decision: Decision, error: GatewayError, *, called: bool) -> int | None:
        """The place that `decision` leads to. A second call is paid from the budget of the provider it goes to, unless that one is well."""
        if decision is Decision.NEXT_KEY:
            return self._index
        for place in self._places(decision, error):
            runtime, model_id = self._targets[place].runtime, self._targets[place].model.model_id
            repeats = called and (place == self._index or runtime.failing(model_id))
            if not repeats or runtime.retries.take(self._clock.monotonic()):
                return place
        return None

    def _resort(self, error: GatewayError, patience_s: float) -> None:
        """No target could be had. Where no vendor was called because all are paused, back to the one that is tried first."""
        if self._failed_with is not None:
            # A target that was passed over is no news to a caller whose request another one has failed.
            raise self._failed_with
        if not error.retryable or self._passed_over is None:
            raise error
        _, place, soonest = self._passed_over
        if self.resort_s is not None or not isinstance(soonest, ProviderPaused):
            raise soonest
        # A client that does not say how long it waits is told at once.
        self._index, self.resort_s = place, patience_s
