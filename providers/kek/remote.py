"""What every KEK at a service needs: it is asked seldom, one call at a time, and left alone for a while when it is away."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from core.clock import Clock, SystemClock
from core.secrets import Kek, KekAway

# Where a hundred keys are opened in a row, the first waits for the service and the others are told at once.
REST_S = 5.0


class RemoteKek:
    """A Kek that remembers what it unwrapped: `max_keys` data keys at most, `ttl_s` seconds each, in memory only.

    A service that takes our access away is therefore obeyed by the next opening after `ttl_s`.
    """

    def __init__(self, kek: Kek, *, ttl_s: float, max_keys: int, clock: Clock = SystemClock()) -> None:  # noqa: B008  (has no state)
        self._kek = kek
        self._ttl_s = ttl_s
        self._max_keys = max_keys
        self._clock = clock
        # (wrapped, context) → data key and until when (monotonic seconds); the one used longest ago is first.
        self._known: OrderedDict[tuple[bytes, bytes], tuple[bytes, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._failure: tuple[str, float] | None = None

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        with self._lock:
            wrapped = self._ask(self._kek.wrap, data_key, context)
            self._remember((wrapped, context), data_key)
            return wrapped

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        with self._lock:
            known = self._known.get((wrapped, context))
            if known is not None and self._clock.monotonic() < known[1]:
                self._known.move_to_end((wrapped, context))
                return known[0]
            data_key = self._ask(self._kek.unwrap, wrapped, context)
            self._remember((wrapped, context), data_key)
            return data_key

    def version(self, wrapped: bytes) -> str:
        return self._kek.version(wrapped)

    def _ask(self, call: Callable[[bytes, bytes], bytes], given: bytes, context: bytes) -> bytes:
        if self._failure is not None and self._clock.monotonic() < self._failure[1]:
            raise KekAway(self._failure[0])
        try:
            answer = call(given, context)
        except KekAway as away:
            self._failure = (str(away), self._clock.monotonic() + REST_S)
            raise
        self._failure = None
        return answer

    def _remember(self, place: tuple[bytes, bytes], data_key: bytes) -> None:
        self._known.pop(place, None)
        self._known[place] = (data_key, self._clock.monotonic() + self._ttl_s)
        while len(self._known) > self._max_keys:
            self._known.popitem(last=False)
