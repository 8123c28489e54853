"""How a model is that nobody calls: it is asked for a word, which costs a little, where its provider's row has a budget for that.

What calls say comes first, and the list of models, which costs nothing, second (`gateway.listing`). A probe is made of a model that
a route may lead to, whose last call failed, or that did not answer the probe before, and only where the ledger knows of no call
of it within the interval, from whichever process. It goes the way of every request: limits, budgets, keys and breakers hold, of a
breaker that is half open it is the trial, and it is recorded, as made by PROBER, with what it cost. A model that does not answer is
asked after the others, wherever there are others, until it does. Of all processes one probes a provider, and tells the others.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, cast

import msgspec

from core.chat import ChatRequest, Dialect
from core.clock import Clock
from core.config import PROBER, BudgetSpec, ModelSpec, ProviderSpec, Snapshot
from core.errors import ClientGone, GatewayError, ModelUnpriced, ProviderTimeout
from core.events import Result
from core.money import plain
from gateway import spending
from gateway.doors import openai_chat
from gateway.listing import Looking
from gateway.manager import Manager
from gateway.news import Ill, reason_of
from gateway.pipeline import Generation, Pipeline
from gateway.router import Target, View
from gateway.runtime import ProviderRuntime
from gateway.sharing.peers import Peers

_log = logging.getLogger(__name__)
# More often than that no model is probed.
LEAST_INTERVAL_S = 60.0
# Of the interval, so much later the next look may come, so that providers which were configured together are not probed together.
_SPREAD = 0.25
# Of the interval, so long one process alone has a provider. It probes no longer than that; the others are done when they are due again.
_CLAIMED = 0.5
# A failure that no probe has confirmed for so many intervals says nothing any more.
_FORGOTTEN_AFTER = 3
_DAY_S = 86_400
_QUESTION = "Reply with: ok"


class Known(NamedTuple):
    """`spent_micros`: on probes of a provider since midnight (UTC), in the reporting currency. `called`: ids of the models that were."""

    spent_micros: int
    called: frozenset[str]


class Ledger(Protocol):
    async def known(self, provider_id: str, models: Sequence[ModelSpec], since_s: float) -> Known:
        """Of calls since `since_s` (wall seconds). Raises what a database does."""
        ...


class Bounds(NamedTuple):
    """`interval_s` 0 = no probes are made, whatever the rows say; else LEAST_INTERVAL_S at least."""

    interval_s: float
    timeout_s: float
    max_tokens: int


class Prober(Looking):
    """Looks every few seconds which provider's models are due."""

    NAME = "probes"

    def __init__(self, pipeline: Pipeline, ledger: Ledger, peers: Peers, bounds: Bounds, rng: random.Random | None = None) -> None:
        """`pipeline` is to make no retries: one call says what is asked."""
        self._pipeline = pipeline
        self._manager: Manager = pipeline.manager
        self._clock: Clock = pipeline.clock
        self._ledger = ledger
        self._peers = peers
        self._bounds = bounds
        self._interval_s = bounds.interval_s and max(LEAST_INTERVAL_S, bounds.interval_s)
        self._rng = rng or random.Random()
        # By the provider's id: when to look again, and what this process has spent there (day, micros), for the ledger may lag behind.
        self._due_at: dict[str, float] = {}
        self._spent: dict[str, tuple[int, int]] = {}
        # By the model's id: when it was probed, so that each has its turn.
        self._probed_at: dict[str, float] = {}

    def start(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        if self._interval_s:
            self.begin(sleep)

    async def look(self) -> None:
        """Probes the models of providers whose time has come. Never raises for a vendor's or the database's sake."""
        runtimes, view = list(self._manager.runtimes()), self._manager.view
        self._forget(runtimes, view.snapshot)
        await asyncio.gather(*[self._probe(runtime, view) for runtime in runtimes if self._is_due(runtime.spec)])

    def _forget(self, runtimes: Iterable[ProviderRuntime], snapshot: Snapshot) -> None:
        """Models and providers that are gone, and failures that are old."""
        models = {model.id: model for found in snapshot.models.values() for model in found}
        served = {(model.provider_id, model.model_id) for model in models.values()}
        oldest_at = self._clock.monotonic() - _FORGOTTEN_AFTER * self._interval_s
        for runtime in runtimes:
            for model_id, failure in tuple(runtime.standing.ill.items()):
                if failure.seen_at < oldest_at or (runtime.spec.id, model_id) not in served:
                    del runtime.standing.ill[model_id]
        self._probed_at = {id_: at for id_, at in self._probed_at.items() if id_ in models}
        self._due_at = {id_: at for id_, at in self._due_at.items() if id_ in snapshot.providers}

    def _is_due(self, spec: ProviderSpec) -> bool:
        if not spec.probe_budget_micros:
            return False
        now = self._clock.monotonic()
        due = now >= self._due_at.setdefault(spec.id, now + self._rng.uniform(0, _SPREAD) * self._interval_s)
        if due:
            self._due_at[spec.id] = now + self._rng.uniform(1, 1 + _SPREAD) * self._interval_s
        return due

    async def _probe(self, runtime: ProviderRuntime, view: View) -> None:
        runtime.standing.unprobed = ""
        targets = sorted(_worth_asking(runtime, view), key=lambda target: self._probed_at.get(target.model.id, float("-inf")))
        if not targets or not await self._peers.claim(f"probe:{runtime.spec.id}", self._interval_s * _CLAIMED):
            return
        until = self._clock.monotonic() + self._interval_s * _CLAIMED - self._bounds.timeout_s
        try:
            since_s = self._clock.wall() - self._interval_s
            known = await self._ledger.known(runtime.spec.id, [target.model for target in targets], since_s)
        except Exception as exc:  # what was spent is not known, so nothing is
            _log.warning("provider %s is not probed: the ledger cannot be read (%s: %s)", runtime.spec.name, type(exc).__name__, exc)
            return
        for target in targets:
            if target.model.id in known.called or runtime.paused_s(target.model.model_id):
                continue
            if refusal := self._refusal(target, view.snapshot, known.spent_micros):
                runtime.standing.unprobed = refusal
                continue
            await self._ask(target, view.snapshot)
            if self._clock.monotonic() > until:
                break
        if runtime.standing.unprobed:
            _log.warning("provider %s: %s", runtime.spec.name, runtime.standing.unprobed)

    # What it costs --------------------------------------------------------------------------------------------------

    def _refusal(self, target: Target, snapshot: Snapshot, ledger_micros: int) -> str:
        """Why today's budget has no room for the most that this probe can cost; "" = it has."""
        spec = target.provider
        budget = BudgetSpec(
            *(spec.id, "its provider's budget for probes", "provider", spec.id, "money", spec.probe_budget_micros, "day"),
            currency=snapshot.currency,
        )
        tokens = spending.worst_case(self._request(target), target.model, target.window, self._bounds.max_tokens)
        try:
            ((_, most),) = spending.needs([budget], tokens, target, PROBER, snapshot, self._clock.wall())
        except ModelUnpriced:
            return (
                f"The model {target.model.alias} has no price in {snapshot.currency}, so what a probe of it would cost is not known: "
                "enter its price to have it probed."
            )
        spent = max(ledger_micros, self._spent_here(spec.id))
        if spent + most <= spec.probe_budget_micros:
            return ""
        return _spent_words(spent, most, spec.probe_budget_micros, snapshot.currency)

    def _spent_here(self, provider_id: str) -> int:
        day, micros = self._spent.get(provider_id, (0, 0))
        return micros if day == self._today() else 0

    def _today(self) -> int:
        return int(self._clock.wall() // _DAY_S)

    # Asking ---------------------------------------------------------------------------------------------------------

    def _request(self, target: Target) -> ChatRequest:
        messages = [{"role": "user", "content": _QUESTION}]
        body = {"model": target.model.alias, "messages": messages, "max_tokens": self._bounds.max_tokens}
        request = openai_chat.parse(msgspec.json.encode(body))
        request.dialect = _this
        return request

    async def _ask(self, target: Target, snapshot: Snapshot) -> None:
        runtime, standing, pipeline = target.runtime, target.runtime.standing, self._pipeline
        self._probed_at[target.model.id] = self._clock.monotonic()
        alone = View(snapshot, {target.model.alias: (target,)})
        generation = Generation(pipeline, alone, PROBER, self._request(target), pipeline.request_id())
        error = await self._outcome(generation)
        cost = generation.charged.cost_reporting_micros or 0
        self._spent[runtime.spec.id] = (self._today(), self._spent_here(runtime.spec.id) + cost)
        if error is None or not error.blames_provider or not generation.attempts or runtime.standing is not standing:
            return
        if target.model.model_id not in standing.ill:
            _log.warning("%s at %s did not answer a probe: %s", target.model.alias, target.provider.name, error.message)
        standing.failed_probe(target.model.model_id, reason_of(error), self._clock.monotonic(), self._clock.wall())
        runtime.tell(Ill(runtime.spec.id, target.model.model_id, reason_of(error)))

    async def _outcome(self, generation: Generation) -> GatewayError | None:
        """What it came to, written down; None = an answer."""
        error: GatewayError | None = None
        try:
            async with asyncio.timeout(self._bounds.timeout_s):
                await generation.start()
        except TimeoutError:
            error = ProviderTimeout(f"It did not answer a probe within {self._bounds.timeout_s:g} s.")
        except GatewayError as refusal:
            error = refusal
        except Exception as exc:  # an adapter of one's own may do anything
            error = GatewayError("The gateway failed on this probe; the log holds the reason.", detail=repr(exc))
            _log.exception("a probe failed")
        except BaseException:
            generation.end(ClientGone("The gateway is shutting down."))
            raise
        generation.end(error)
        return error


class _Probe:
    """The dialect of probes: OpenAI's questions, and answers that nobody reads."""

    NAME = "probe"
    SCOPE = "chat"
    conversation = staticmethod(openai_chat.conversation)

    @staticmethod
    def whole(request: ChatRequest, result: Result) -> bytes:
        return b""


_this = cast(Dialect, _Probe)


def _worth_asking(runtime: ProviderRuntime, view: View) -> Iterable[Target]:
    """Chat models of this provider that a route may lead to, or that have failed: each once."""
    found: dict[str, Target] = {}
    routes: Mapping[str, object] = view.snapshot.routes
    for alias, targets in view.targets.items():
        for target in targets:
            model_id = target.model.model_id
            if target.runtime is not runtime or target.model.model_type != "chat" or target.model.id in found:
                continue
            if alias in routes or runtime.failing(model_id) or model_id in runtime.standing.ill:
                found[target.model.id] = target
    return found.values()


def _spent_words(spent_micros: int, most_micros: int, budget_micros: int, currency: str) -> str:
    spent, most, budget = plain(spent_micros), plain(most_micros), plain(budget_micros)
    return (
        f"Of today's budget for probes, {budget} {currency}, {spent} is spent and the next may cost {most}: until 00:00 UTC there are "
        "no more. Raise the budget for probes of the provider (probe_budget_micros) to have more."
    )
