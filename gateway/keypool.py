"""A provider's credentials: the least loaded first, and none that is resting."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from core.config import KeySpec
from core.errors import ProviderError, ProviderLimited, ProviderRejectedOurKey
from core.secrets import Secret

_REST_AFTER_LIMIT_S = 1.0
_REST_AFTER_REJECTION_S = 60.0
MAX_REST_S = 60.0
_EVERY_MODEL = ""


class Rest(NamedTuple):
    """A key is left alone until `until` (monotonic seconds), because of `reason`."""

    until: float
    reason: ProviderError


class Key:
    """One credential at work. `spec` None stands for a provider that needs none."""

    __slots__ = ("id", "in_flight", "rests", "secret", "weight")

    def __init__(self, spec: KeySpec | None) -> None:
        self.id = spec.id if spec else ""
        self.secret: Secret | None = spec.secret if spec else None
        self.weight = spec.weight if spec else 1
        self.in_flight = 0
        self.rests: dict[str, Rest] = {}

    def release(self, model_id: str, error: BaseException | None, now: float) -> None:
        """Ends a lease. A limit makes the key rest for that model, a rejection for all; anything else says nothing about it."""
        self.in_flight -= 1
        if error is None:
            return
        if isinstance(error, ProviderLimited):
            self.rests[model_id] = Rest(now + min(error.retry_after_s or _REST_AFTER_LIMIT_S, MAX_REST_S), error)
        elif isinstance(error, ProviderRejectedOurKey):
            self.rests[_EVERY_MODEL] = Rest(now + _REST_AFTER_REJECTION_S, error)

    def rest(self, model_id: str, now: float) -> Rest | None:
        found = [rest for name in (model_id, _EVERY_MODEL) if (rest := self.rests.get(name)) and rest.until > now]
        return max(found, key=_until, default=None)


class KeyPool:
    def __init__(self, specs: tuple[KeySpec, ...]) -> None:
        self._keys = [Key(spec) for spec in specs] or [Key(None)]

    def apply(self, specs: tuple[KeySpec, ...]) -> None:
        """New rows; a key whose secret is unchanged keeps its load and its rests."""
        known = {key.id: key for key in self._keys}
        keys = []
        for spec in specs:
            key = known.get(spec.id)
            if key is None or key.secret != spec.secret:
                key = Key(spec)
            key.weight = spec.weight
            keys.append(key)
        self._keys = keys or [known.get("") or Key(None)]

    def pick(self, model_id: str, now: float, breaker_wait_s: Callable[[str], float]) -> tuple[Key | None, float, ProviderError | None]:
        """(key, 0, None), or (None, shortest wait in seconds, why that key rests; None = its breaker is open).

        The caller raises `in_flight` of the key it takes.
        """
        best: Key | None = None
        best_load = shortest_s = float("inf")
        reason: ProviderError | None = None
        for key in self._keys:
            rest = key.rest(model_id, now) if key.rests else None
            wait_s = rest.until - now if rest else breaker_wait_s(key.id)
            if wait_s > 0:
                if wait_s < shortest_s:
                    shortest_s, reason = wait_s, rest.reason if rest else None
            elif (load := (key.in_flight + 1) / key.weight) < best_load:
                best, best_load = key, load
        return (best, 0.0, None) if best is not None else (None, shortest_s, reason)

    def only(self) -> Key | None:
        """The key of a pool that has one, unless something keeps it from being taken without asking when."""
        keys = self._keys
        return keys[0] if len(keys) == 1 and not keys[0].rests else None


def _until(rest: Rest) -> float:
    return rest.until
