"""pybreaker behind an asyncio gate.

pybreaker keeps the state and counts the failures. Used directly on coroutines it sees no failure at all, or lets every
waiting call through when half open, or takes a client that left for a failure; so this gate decides who may pass, holds
the time, admits exactly one trial, and tells pybreaker only outcomes that say something about the vendor.
"""

from __future__ import annotations

import random
from collections import deque

import pybreaker

from core.config import BreakerSpec
from core.errors import GatewayError

_CLOSED, _OPEN = pybreaker.STATE_CLOSED, pybreaker.STATE_OPEN
STATE_NUMBERS = {_CLOSED: 0, pybreaker.STATE_HALF_OPEN: 1, _OPEN: 2}
# Open times differ by so much, up or down, that breakers which opened together do not all try together.
_JITTER = 0.1
_MAX_DOUBLINGS = 20
# What a caller is told while somebody else's trial runs: nobody knows how long that takes.
_TRIAL_WAIT_S = 1.0
# Monotonic time is a float; a wait that was computed from it must succeed when it has been waited.
_EPSILON_S = 1e-9


class BreakerGate:
    """One vendor credential and model. `wait_s`, then `enter`; each `enter` is followed by exactly one outcome."""

    __slots__ = (
        *("_breaker", "_closed_at", "_doublings", "_last_retry_at", "_open_s", "_retry_at", "_rng", "_spec", "_trial_running", "_window"),
        *("calm", "reason"),
    )

    def __init__(self, spec: BreakerSpec, rng: random.Random) -> None:
        self._breaker = pybreaker.CircuitBreaker(fail_max=spec.fail_max, throw_new_error_on_trip=False)
        self._spec = spec
        self._rng = rng
        self._window = _Window(spec.window_s) if spec.failure_rate else None
        self._retry_at = self._last_retry_at = 0.0
        self._open_s = 0.0
        self._doublings = 0
        self._closed_at = float("-inf")
        self._trial_running = False
        self.reason = ""
        # Closed and nothing counted: as good as always, so it is remembered here and pybreaker is not asked.
        # A window counts successes too, so with one it is never calm.
        self.calm = self._window is None

    @property
    def state(self) -> str:
        """closed | open | half-open"""
        return self._breaker.current_state

    @property
    def closed(self) -> bool:
        return self.calm or self._breaker.current_state == _CLOSED

    @property
    def trying(self) -> bool:
        """Whether a call that has entered is the trial, and still is: nothing that was heard has overtaken it."""
        return self._trial_running

    @property
    def failures(self) -> int:
        """In a row, as counted now."""
        return 0 if self.calm else self._breaker.fail_counter

    @property
    def failing(self) -> bool:
        """Whether the last call that said anything about the vendor failed."""
        return not self.calm and (self._breaker.current_state != _CLOSED or self._breaker.fail_counter > 0)

    def apply(self, spec: BreakerSpec) -> None:
        """New numbers. What was counted stays, but a window of another length starts empty."""
        self._breaker.fail_max = spec.fail_max
        if not spec.failure_rate:
            self._window = None
        elif self._window is None or spec.window_s != self._spec.window_s:
            self._window = _Window(spec.window_s)
        self._spec = spec
        self.calm = self._window is None and not self.failing

    def wait_s(self, now: float, *, last: bool = False) -> float:
        """0.0 = a call may enter now; otherwise the seconds until a trial may. `last`: no other target is left; see `keep_last`."""
        if self.calm or self._breaker.current_state == _CLOSED:
            return 0.0
        if self._trial_running:
            return max(self._retry_at - now, _TRIAL_WAIT_S)
        left_s = (self._last_retry_at if last and self._spec.keep_last else self._retry_at) - now
        return left_s if left_s > _EPSILON_S else 0.0

    def enter(self) -> bool:
        """Call only when `wait_s` is 0. True = this call is the one trial; hand it back with the outcome."""
        if self.calm or self._breaker.current_state == _CLOSED:
            return False
        self._breaker.half_open()
        self._trial_running = True
        return True

    def succeeded(self, trial: bool, now: float) -> None:
        if trial:
            self.reset()
            self._closed_at = now
        elif not self.calm and self._breaker.current_state == _CLOSED:
            if self._breaker.fail_counter:
                self._breaker.call(_nothing)
            if self._window is None:
                self.calm = True
            else:
                self._window.add(now, failed=False)

    def failed(self, trial: bool, error: GatewayError, now: float) -> None:
        if trial:
            self._trial_running = False
        elif self._breaker.current_state != _CLOSED:
            return  # a call from before the breaker opened says nothing new
        self.calm = False
        came_by = error.__traceback__
        try:
            self._breaker.call(_raise, error)
        except BaseException as raised:
            if raised is not error and not isinstance(raised, pybreaker.CircuitBreakerError):
                raise
        finally:
            error.__traceback__ = came_by  # the frames of raising it here hold it, and would be freed by the collector alone
        if self._window is not None and not trial and self._window.add(now, failed=True).reached(self._spec):
            self._breaker.open()
        if self._breaker.current_state == _OPEN:
            self._opened(trial, error, now)

    def neutral(self, trial: bool) -> None:
        """The call ended without saying anything about the vendor: after a trial the next call is one again."""
        if trial:
            self._trial_running = False

    def reset(self) -> None:
        """Closed, with nothing counted. How long it was open stays known until it has been closed for as long."""
        self._trial_running = False
        self._breaker.close()
        self.reason = ""
        if self._window is not None:
            self._window = _Window(self._spec.window_s)
        self.calm = self._window is None

    def tried_elsewhere(self, now: float) -> None:
        """Another process makes the trial: nobody here needs to ask again before its outcome can be known."""
        self._retry_at = self._last_retry_at = now + _TRIAL_WAIT_S

    def told(self, now: float) -> tuple[float, float, float, int]:
        """What `opened_elsewhere` takes: until the next trial, until that of a last target, the open time, its doublings."""
        return max(0.0, self._retry_at - now), max(0.0, self._last_retry_at - now), self._open_s, self._doublings

    def opened_elsewhere(self, wait_s: float, last_wait_s: float, open_s: float, doublings: int, reason: str, now: float) -> None:
        """As if it had opened here. Where it is open already, the later trial counts: both openings were seen."""
        longest_s = max(self._spec.max_reset_timeout_s, self._spec.reset_timeout_s) * (1 + _JITTER)
        self._breaker.open()
        self._trial_running = self.calm = False
        self._retry_at = max(self._retry_at, now + min(wait_s, longest_s))
        self._last_retry_at = max(self._last_retry_at, now + min(last_wait_s, longest_s))
        self._open_s, self._doublings, self.reason = min(open_s, longest_s), doublings, reason

    def closed_elsewhere(self, now: float) -> None:
        """By another process' trial."""
        self.reset()
        self._closed_at = now

    def _opened(self, trial: bool, error: GatewayError, now: float) -> None:
        """Sets when to try again. The time grows with failed trials, and goes on growing where it opens again at once."""
        spec = self._spec
        stayed_closed = not trial and now - self._closed_at > self._open_s
        self._doublings = 0 if stayed_closed else min(self._doublings + 1, _MAX_DOUBLINGS)
        longest_s = max(spec.max_reset_timeout_s, spec.reset_timeout_s)
        jitter = self._rng.uniform(1 - _JITTER, 1 + _JITTER)
        self._open_s = min(longest_s, spec.reset_timeout_s * 2**self._doublings) * jitter
        asked_s = min(error.retry_after_s or 0.0, longest_s)
        self._retry_at = now + max(self._open_s, asked_s)
        self._last_retry_at = now + max(min(self._open_s, spec.reset_timeout_s * jitter), asked_s)
        self.reason = error.message


class _Window:
    """Calls and failures of the last `length_s`, to a tenth of it."""

    __slots__ = ("_slot_s", "_slots")
    _SLOTS = 10

    def __init__(self, length_s: float) -> None:
        self._slot_s = length_s / self._SLOTS
        # [number of the slot, calls, failures]
        self._slots: deque[list[int]] = deque(maxlen=self._SLOTS)

    def add(self, now: float, *, failed: bool) -> _Window:
        number = int(now / self._slot_s)
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append([number, 0, 0])
        while self._slots[0][0] <= number - self._SLOTS:
            self._slots.popleft()
        slot = self._slots[-1]
        slot[1] += 1
        slot[2] += failed
        return self

    def reached(self, spec: BreakerSpec) -> bool:
        calls = sum(slot[1] for slot in self._slots)
        return calls >= spec.min_calls and sum(slot[2] for slot in self._slots) >= spec.failure_rate * calls


def _nothing() -> None:
    return None


def _raise(error: BaseException) -> None:
    raise error
