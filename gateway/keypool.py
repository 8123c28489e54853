"""A provider's credentials: the least loaded first, and none that is resting."""

from __future__ import annotations

from collections.abc import Callable

from core.config import KeySpec
from core.errors import ProviderError, ProviderLimited, ProviderRejectedOurKey
from core.secrets import Secret

# A rest is as long as the vendor says, else it begins so and doubles each time the key fails again right after it.
_LIMITED_S = 1.0
MAX_REST_S = 60.0
_REJECTED_S = 60.0
MAX_REJECTED_S = 900.0
_EVERY_MODEL = ""
# What a caller is told while somebody else tries a rejected key: nobody knows how long that takes.
_TRIAL_WAIT_S = 1.0
_EPSILON_S = 1e-9
# Calls that fail together each make a rest a little longer; other processes are told where it is longer by so much.
_NEWS_S = 1.0


class Rest:
    """A key is left alone until `until` (monotonic seconds), because of `reason`. A rejected key is then tried by one call."""

    __slots__ = ("_elsewhere_until", "length_s", "reason", "trial_running", "until")

    def __init__(self, now: float, length_s: float, reason: ProviderError) -> None:
        self.until = now + length_s
        self.length_s = length_s
        self.reason = reason
        self.trial_running = False
        self._elsewhere_until = 0.0

    def tried_elsewhere(self, now: float) -> None:
        """Another process tries the key: nobody here needs to ask again before its outcome can be known."""
        self._elsewhere_until = now + _TRIAL_WAIT_S

    def wait_s(self, now: float) -> float:
        left_s = max(self.until, self._elsewhere_until) - now
        if left_s > _EPSILON_S:
            return left_s
        return _TRIAL_WAIT_S if self.trial_running else 0.0


class Key:
    """One credential at work. `spec` None stands for a provider that needs none."""

    __slots__ = ("id", "in_flight", "rests", "secret", "weight")

    def __init__(self, spec: KeySpec | None) -> None:
        self.id = spec.id if spec else ""
        self.secret: Secret | None = spec.secret if spec else None
        self.weight = spec.weight if spec else 1
        self.in_flight = 0
        # By the vendor's model; "" = every model. A rest that is over stays, for how long it was, until the key works again.
        self.rests: dict[str, Rest] = {}

    @property
    def rejected(self) -> Rest | None:
        """The rest after which one call tries the key."""
        return self.rests.get(_EVERY_MODEL) if self.rests else None

    def lease(self) -> bool:
        """Begins a call. True = it is the one that tries a rejected key; hand that back to `release`."""
        self.in_flight += 1
        if not self.rests or (rejected := self.rests.get(_EVERY_MODEL)) is None:
            return False
        rejected.trial_running = True
        return True

    def release(self, model_id: str, error: BaseException | None, now: float, trial: bool = False) -> str | None:
        """Ends a lease. A limit makes the key rest for that model, a rejection for all; anything else says nothing about it.

        The name in `rests` of one that is news to others, None where there is none.
        """
        self.in_flight -= 1
        if error is None and not trial:
            return None
        if trial and (rejected := self.rests.get(_EVERY_MODEL)):
            rejected.trial_running = False
        if isinstance(error, ProviderLimited):
            return self._rest(model_id, error, now, _LIMITED_S, MAX_REST_S)
        if isinstance(error, ProviderRejectedOurKey):
            return self._rest(_EVERY_MODEL, error, now, _REJECTED_S, MAX_REJECTED_S)
        return None

    def works(self, model_id: str, now: float) -> bool:
        """The vendor took the key: rests that are over are forgotten. A call from before a rest does not end it. True = one was."""
        before = len(self.rests)
        for name in (model_id, _EVERY_MODEL):
            if (rest := self.rests.get(name)) and rest.until <= now:
                del self.rests[name]
        return len(self.rests) < before

    def rests_elsewhere(self, name: str, wait_s: float, length_s: float, reason: str, now: float) -> None:
        """As if it had been limited, or refused (`name` ""), here."""
        kind, longest_s = (ProviderLimited, MAX_REST_S) if name else (ProviderRejectedOurKey, MAX_REJECTED_S)
        heard = Rest(now, min(wait_s, longest_s), kind(reason))
        heard.length_s = min(length_s, longest_s)
        before = self.rests.get(name)
        if before is None or before.until < heard.until:
            self.rests[name] = heard

    def rest(self, model_id: str, now: float) -> Rest | None:
        found = [rest for name in (model_id, _EVERY_MODEL) if (rest := self.rests.get(name)) and rest.wait_s(now)]
        return max(found, key=lambda rest: rest.wait_s(now), default=None)

    def _rest(self, name: str, error: ProviderError, now: float, first_s: float, longest_s: float) -> str | None:
        before = self.rests.get(name)
        if before is not None and before.until > now:
            # Calls that were under way together fail together: that is one event. Only a longer wait is news.
            until, before.until = before.until, max(before.until, now + min(error.retry_after_s or 0.0, longest_s))
            return name if before.until - until >= _NEWS_S else None
        grown_s = first_s if before is None else before.length_s * 2
        self.rests[name] = Rest(now, min(error.retry_after_s or grown_s, longest_s), error)
        return name


class KeyPool:
    def __init__(self, specs: tuple[KeySpec, ...]) -> None:
        self.keys = [Key(spec) for spec in specs] or [Key(None)]

    def apply(self, specs: tuple[KeySpec, ...]) -> None:
        """New rows; a key whose secret is unchanged keeps its load and its rests."""
        known = {key.id: key for key in self.keys}
        keys = []
        for spec in specs:
            key = known.get(spec.id)
            if key is None or key.secret != spec.secret:
                key = Key(spec)
            key.weight = spec.weight
            keys.append(key)
        self.keys = keys or [known.get("") or Key(None)]

    def pick(
        self, model_id: str, now: float, breaker_wait_s: Callable[[str], float], without: Key | None = None
    ) -> tuple[Key | None, float, ProviderError | None]:
        """(key, 0, None), or (None, shortest wait in seconds, why that key rests; None = its breaker is open).

        The caller takes its `lease`. `without`: any key but this one.
        """
        best: Key | None = None
        best_load = shortest_s = float("inf")
        reason: ProviderError | None = None
        for key in self.keys:
            if key is without:
                continue
            rest = key.rest(model_id, now) if key.rests else None
            wait_s = rest.wait_s(now) if rest else breaker_wait_s(key.id)
            if wait_s > 0:
                if wait_s < shortest_s:
                    shortest_s, reason = wait_s, rest.reason if rest else None
            elif (load := (key.in_flight + 1) / key.weight) < best_load:
                best, best_load = key, load
        return (best, 0.0, None) if best is not None else (None, shortest_s, reason)

    def get(self, key_id: str) -> Key | None:
        return next((key for key in self.keys if key.id == key_id), None)

    def only(self) -> Key | None:
        """The key of a pool that has one, unless something keeps it from being taken without asking when."""
        keys = self.keys
        return keys[0] if len(keys) == 1 and not keys[0].rests else None
