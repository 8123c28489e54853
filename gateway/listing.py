"""How a vendor is where no calls go: it is asked for its list of models, which costs nothing.

Live traffic comes first. A provider that was called within the interval is not asked, and one good call says more than any list. A list
that cannot be had makes the provider's models be asked after the others, wherever there are others; nothing is switched off by it.
Of all processes one asks, and tells the others.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from core.clock import Clock
from core.config import ProviderSpec
from core.errors import GatewayError, ProviderFault, ProviderNonsense, ProviderRejectedOurKey, ProviderTimeout
from core.secrets import Secret
from gateway.news import Unlisted, reason_of
from gateway.sharing.peers import Peers
from providers.adapters.registry import FIXED_ANSWER
from providers.calls import Calls

if TYPE_CHECKING:
    from gateway.runtime import ProviderRuntime

_log = logging.getLogger(__name__)
# More often than that no vendor is asked.
_LEAST_S = 10.0
# One that is in doubt is asked again after so long, so that it is soon itself again.
_DOUBTED_S = 30.0
# Times differ by so much, up or down, that providers which were configured together are not asked together.
_SPREAD = 0.25
# Of the shortest time between two looks: no claim outlasts it.
_CLAIMED = 0.5
_TICK_S = 5.0
_AT_ONCE = 4
# Of keys that are refused, so many are tried.
_MAX_KEYS = 3
# A list that nobody has made for this server is no sign of anything.
_NO_SUCH_ROUTE = (404, 405, 501)
# After a good call, what another process heard of the list is not believed for so long.
_LIVE_S = 60.0


class Failure(NamedTuple):
    """Of a probe: why, since when (wall seconds), and when it was last seen (monotonic seconds)."""

    reason: str
    since_s: float
    seen_at: float


class Standing:
    """What is known of one provider beside its breakers. `doubt` says why its list could not be had, "" = nothing speaks against it.
    `ill`: by the vendor's names, the models that did not answer a probe (`gateway.probing`); `unprobed` says why one that was due was
    not made. Times in monotonic seconds, `since_s` in wall seconds."""

    __slots__ = ("answered_at", "called_at", "doubt", "has_listed", "ill", "looked_at", "since_s", "spread", "unprobed")

    def __init__(self, now: float, spread: float) -> None:
        self.called_at = self.answered_at = float("-inf")
        self.looked_at = now
        self.spread = spread
        self.has_listed = False
        self.ill: dict[str, Failure] = {}
        self.clear()

    def clear(self) -> None:
        self.trust()
        self.forget_probes()

    def trust(self) -> None:
        """As a provider that gives its list is."""
        self.doubt, self.since_s = "", 0.0

    def forget_probes(self) -> None:
        self.ill.clear()
        self.unprobed = ""

    def speaks_against(self, model_id: str) -> bool:
        return self.doubt != "" or model_id in self.ill

    def failed_probe(self, model_id: str, reason: str, now: float, wall_s: float) -> None:
        before = self.ill.get(model_id)
        self.ill[model_id] = Failure(reason, before.since_s if before else wall_s, now)

    def in_words(self) -> dict[str, Any]:
        """The parts `listing` and `probes` of what `providers.states.write` takes."""
        found: dict[str, Any] = {}
        if self.doubt:
            found["listing"] = {"reason": self.doubt, "since": round(self.since_s)}
        if self.ill or self.unprobed:
            failed = [{"model": id_, "reason": failure.reason, "since": round(failure.since_s)} for id_, failure in self.ill.items()]
            found["probes"] = {"failed": failed, "note": self.unprobed}
        return found

    def doubted(self, reason: str, wall_s: float) -> None:
        self.doubt, self.since_s = reason, self.since_s or wall_s

    def heard(self, reason: str, now: float, wall_s: float) -> bool:
        """From another process. False = this one knows better."""
        if now - self.answered_at < _LIVE_S:
            return False
        self.looked_at = now
        self.doubted(reason, wall_s)
        return True


class Looking:
    """Calls `look` every few seconds, until it is stopped."""

    NAME: str
    _task: asyncio.Task[None] | None = None

    def begin(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._task = asyncio.create_task(self._run(sleep), name=self.NAME)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def look(self) -> None:
        raise NotImplementedError

    async def _run(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        while True:
            await sleep(_TICK_S)
            await self.look()


class Lister(Looking):
    """Looks every few seconds which of `runtimes` has had no call for `interval_s` (0 = never, else 10 at least), and asks it."""

    NAME = "provider-lists"

    def __init__(
        self,
        runtimes: Callable[[], Iterable[ProviderRuntime]],
        peers: Peers,
        clock: Clock,
        interval_s: float,
        timeout_s: float,
        rng: random.Random | None = None,
    ) -> None:
        self._runtimes = runtimes
        self._peers = peers
        self._clock = clock
        self._interval_s = interval_s and max(_LEAST_S, interval_s)
        self._timeout_s = timeout_s
        self._rng = rng or random.Random()

    def start(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        if self._interval_s:
            self.begin(sleep)

    async def look(self) -> None:
        """Asks those whose time has come. Never raises for a vendor's sake."""
        places = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*[self._ask(runtime, places) for runtime in self._runtimes() if self._is_due(runtime)])

    def _pause_s(self, standing: Standing) -> float:
        return min(self._interval_s, _DOUBTED_S) if standing.doubt else self._interval_s

    def _is_due(self, runtime: ProviderRuntime) -> bool:
        standing = runtime.standing
        quiet_s = self._clock.monotonic() - max(standing.called_at, standing.looked_at)
        return runtime.spec.kind != FIXED_ANSWER and quiet_s >= self._pause_s(standing) * standing.spread

    async def _ask(self, runtime: ProviderRuntime, places: asyncio.Semaphore) -> None:
        standing, spec, began_at = runtime.standing, runtime.spec, self._clock.monotonic()
        standing.looked_at, standing.spread = began_at, spread(self._rng)
        name = f"list:{spec.id}"
        if not await self._peers.claim(name, self._pause_s(standing) * _CLAIMED):
            return
        try:
            async with places:
                error = await self._error(runtime)
        except Exception as exc:  # an adapter of one's own may do anything
            _log.warning("provider %s could not be asked for its list of models (%s: %s)", spec.name, type(exc).__name__, exc)
            return
        if runtime.spec is spec and standing.answered_at < began_at:
            _judge(runtime, error, self._clock.wall())
        if standing.doubt:
            self._peers.release(name)  # it is soon asked again

    async def _error(self, runtime: ProviderRuntime) -> GatewayError | None:
        """What asking for the list came to; None = it was given."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await _refusal(Calls(runtime.spec, runtime.bare_transport), runtime.spec)
        except TimeoutError:
            return ProviderTimeout(f"It did not give its list of models within {self._timeout_s:g} s.")
        except GatewayError as error:
            return error


def spread(rng: random.Random) -> float:
    return rng.uniform(1 - _SPREAD, 1 + _SPREAD)


async def _refusal(calls: Calls, spec: ProviderSpec) -> ProviderRejectedOurKey | None:
    """None = one of its keys was given the list. Raises what is not a key's affair."""
    secrets: list[Secret | None] = [key.secret for key in spec.keys[:_MAX_KEYS]] or [None]
    refused = None
    for secret in secrets:
        try:
            await calls.models(secret)
        except ProviderRejectedOurKey as error:
            refused = error
        else:
            return None
    return refused


def _judge(runtime: ProviderRuntime, error: GatewayError | None, wall_s: float) -> None:
    standing, spec = runtime.standing, runtime.spec
    if error is None:
        standing.has_listed = True
        runtime.believe()
    elif _speaks_against_it(error, standing):
        if not standing.doubt:
            _log.warning("provider %s: no list of models could be had, its models are asked after others: %s", spec.name, error.message)
        standing.doubted(reason_of(error), wall_s)
        runtime.tell(Unlisted(spec.id, reason_of(error)))


def _speaks_against_it(error: GatewayError, standing: Standing) -> bool:
    """A refused key, a limit or a list that cannot be read come from a server that is there. One that has never given a list may have none,
    whatever status it says so with."""
    if not error.blames_provider or isinstance(error, ProviderNonsense):
        return False
    return not isinstance(error, ProviderFault) or (standing.has_listed and error.vendor_status not in _NO_SUCH_ROUTE)
