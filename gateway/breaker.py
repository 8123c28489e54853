"""pybreaker behind an asyncio gate.

pybreaker keeps the state and counts the failures. Used directly on coroutines it sees no failure at all, or lets every
waiting call through when half open, or takes a client that left for a failure; so this gate decides who may pass, holds
the time, admits exactly one trial, and tells pybreaker only outcomes that say something about the vendor.
"""

from __future__ import annotations

import pybreaker

from core.config import BreakerSpec

_CLOSED, _OPEN = pybreaker.STATE_CLOSED, pybreaker.STATE_OPEN
STATE_NUMBERS = {_CLOSED: 0, pybreaker.STATE_HALF_OPEN: 1, _OPEN: 2}


class BreakerGate:
    """One vendor credential and model. `wait_s`, then `enter`; each `enter` is followed by exactly one outcome."""

    __slots__ = ("_breaker", "_reset_timeout_s", "_retry_at", "_trial_running", "calm")

    def __init__(self, spec: BreakerSpec) -> None:
        self._breaker = pybreaker.CircuitBreaker(fail_max=spec.fail_max, throw_new_error_on_trip=False)
        self._reset_timeout_s = spec.reset_timeout_s
        self._retry_at = 0.0
        self._trial_running = False
        # Closed and nothing counted: as good as always, so it is remembered here and pybreaker is not asked.
        self.calm = True

    @property
    def state(self) -> str:
        """closed | open | half-open"""
        return self._breaker.current_state

    def apply(self, spec: BreakerSpec) -> None:
        self._breaker.fail_max = spec.fail_max
        self._reset_timeout_s = spec.reset_timeout_s

    def wait_s(self, now: float) -> float:
        """0.0 = a call may enter now; otherwise the seconds until a trial may."""
        if self.calm or self._breaker.current_state == _CLOSED:
            return 0.0
        if self._trial_running:
            return max(self._retry_at - now, 1.0)
        return max(0.0, self._retry_at - now)

    def enter(self) -> bool:
        """Call only when `wait_s` is 0. True = this call is the one trial; hand it back with the outcome."""
        if self.calm or self._breaker.current_state == _CLOSED:
            return False
        self._breaker.half_open()
        self._trial_running = True
        return True

    def succeeded(self, trial: bool) -> None:
        if trial:
            self.reset()
        elif not self.calm and self._breaker.current_state == _CLOSED:
            self._breaker.call(_nothing)
            self.calm = True

    def failed(self, trial: bool, error: BaseException, now: float) -> None:
        if trial:
            self._trial_running = False
        elif self._breaker.current_state != _CLOSED:
            return  # a call from before the breaker opened says nothing new
        self.calm = False
        try:
            self._breaker.call(_raise, error)
        except BaseException as raised:
            if raised is not error and not isinstance(raised, pybreaker.CircuitBreakerError):
                raise
        if self._breaker.current_state == _OPEN:
            self._retry_at = now + self._reset_timeout_s

    def neutral(self, trial: bool) -> None:
        """The call ended without saying anything about the vendor: after a trial the next call is one again."""
        if trial:
            self._trial_running = False

    def reset(self) -> None:
        self._trial_running = False
        self._breaker.close()
        self.calm = True


def _nothing() -> None:
    return None


def _raise(error: BaseException) -> None:
    raise error
