"""The life of a request, from a known caller to a settled account.

A door has found the caller and made a `ChatRequest`; then, in this order:

  1. the view (one configuration) was taken once, by the door;
  2. `start`: scope, targets in order of preference (a name that stands for a choice: `choice.chosen`), caller's limits (`_enter`);
     where their rows allow it, an answer that is there already;
  3. `_try`, with one target: what fits its window; `_begun`: our limits on it, budgets, slot → rate → key and breaker, journal `open`;
     then adapter → vendor: for a stream up to the first content, otherwise the whole answer;
  4. a failure before the first content goes to `retry.decide` (`_after_failure`): another target, the same one, or the caller;
  5. the door sends `answer`, or `next_piece` after `next_piece`;
  6. `end`: usage → price → journal `settle`, before the last byte leaves; limits and breaker get their due.
     It never awaits, so it works while the request is being cancelled, and it runs exactly once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import secrets
from collections.abc import Iterable

import msgspec

from core.chat import Answer, ChatRequest
from core.choice import Decision, stored
from core.clock import Clock
from core.config import CallerSpec
from core.errors import AccountingUnavailable, ClientGone, GatewayError, ServerBusy
from core.money import plain
from gateway import choice, retry, settlement, spending
from gateway.admission import require_scope
from gateway.budget import Budgets, Reservation
from gateway.cache import Cache
from gateway.cached import Use
from gateway.context import fitted
from gateway.course import Course
from gateway.kept_headers import Heard
from gateway.labels import labels_of
from gateway.manager import Manager
from gateway.progress import ProgressNotes
from gateway.request_metrics import count_answer, count_attempt, count_error, count_failure
from gateway.router import AUTO, Target, View, targets_for
from gateway.settlement import Asked, Attempt, Charge
from gateway.sharing.passage import Passage
from gateway.tracing import Trace, Tracer, begun
from gateway.upstream import Upstream
from monitoring import metrics
from monitoring.journal import AttemptSettled, Record, Sink
from providers.adapters.base import StreamReader

_log = logging.getLogger(__name__)
_MAX_NAMES = 1000


class Pipeline:
    """What every generation needs; one per process."""

    def __init__(
        self,
        manager: Manager,
        sink: Sink,
        clock: Clock,
        *,
        max_retries: int,
        retry_delay_s: float = retry.DELAY_S,
        max_in_flight: int,
        strict: bool = True,
        progress: ProgressNotes | None = None,
        budgets: Budgets | None = None,
        budget_output_tokens: int = 4096,
        cache: Cache | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`strict`: nothing is sent that the journal does not know of. `progress` None: what a killed process had forwarded of an
        unfinished stream is not known afterwards. `budgets` None: there are none. `budget_output_tokens`: so long may an answer be
        of whose length neither the client nor the model says anything. `cache` None: no answer is given again. `tracer` None: nothing
        is traced."""
        self.manager = manager
        self.strict = strict
        self.progress = progress
        self.budgets = budgets
        self.budget_output_tokens = budget_output_tokens
        self.cache = cache
        self.tracer = tracer
        self.sink = sink
        self.clock = clock
        self.max_retries = max_retries
        self.retry_delay_s = retry_delay_s
        self.rng = random.Random()
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        # A random start per process and a counter: unique like a UUID, at a tenth of its cost.
        self._prefix = "req_" + secrets.token_hex(8)
        self._counter = itertools.count()

    def request_id(self) -> str:
        return f"{self._prefix}{next(self._counter):08x}"

    def enter(self) -> None:
        """Raises ServerBusy where this process is at its own limit."""
        if self._in_flight >= self._max_in_flight:
            raise ServerBusy(f"This process is answering {self._in_flight} requests, its limit; try again shortly.", retry_after_s=1.0)
        self._in_flight += 1
        metrics.ACTIVE_ADD(1)

    def leave(self) -> None:
        self._in_flight -= 1
        metrics.ACTIVE_ADD(-1)


class Generation:
    """One request. `start`, then `answer` or `next_piece` until b"", then `end`, whatever happened."""

    __slots__ = (
        *("_asked", "_attempt", "_attempts", "_began_s", "_caller", "_charge", "_client_headers", "_client_timeout_s", "_course"),
        *("_decision", "_ended", "_entered_tokens", "_gate", "_given", "_held", "_late_error", "_left_out", "_passage", "_passage_there"),
        *("_pipeline", "_request", "_target", "_trace", "_unwritten", "_use", "_view", "heard", "request_id"),
    )

    def __init__(
        self,
        pipeline: Pipeline,
        view: View,
        caller: CallerSpec,
        request: ChatRequest,
        request_id: str,
        client_headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """`client_headers` are looked at for how long the client waits, once that matters."""
        self._pipeline = pipeline
        self._view = view
        self._caller = caller
        self._request = request
        self._gate = pipeline.manager.gate(caller)
        # Where machines count together, these take the place of the caller's gate and of the target's.
        self._passage: Passage | None = None
        self._passage_there: Passage | None = None
        self._entered_tokens: int | None = None
        self._target: Target | None = None
        self._attempt: Attempt | None = None
        self._attempts = 0
        self._charge = settlement.NOTHING
        self._use: Use | None = None
        self._given: Answer | None = None
        self._held: list[bytes] = []
        self._unwritten: list[Record] = []
        self._left_out = ""
        self._late_error: GatewayError | None = None
        self._course: Course | None = None
        self._decision: Decision | None = None
        self._client_headers = client_headers
        self._client_timeout_s: float | None = None
        self._ended = False
        # For whoever wants to know with which headers vendors answered.
        self.heard: list[Heard] | None = None
        tracer = pipeline.tracer
        self._trace: Trace | None = begun(client_headers, tracer.ratio) if tracer is not None else None
        self._began_s = pipeline.clock.monotonic()
        self._asked = Asked(request_id, pipeline.clock.wall(), caller, request, view.snapshot.version, labels_of(request))
        self.request_id = request_id

    @property
    def answer(self) -> Answer:
        attempt = self._attempt
        answer = attempt.answer if attempt is not None else self._given
        assert answer is not None
        return answer

    @property
    def tail(self) -> bytes:
        """What ends the stream in the client's dialect, once `next_piece` has given everything."""
        if self._attempt is None:
            return self._use.tail if self._use is not None else b""
        reader = self._attempt.upstream.reader
        return reader.tail if reader else b""

    @property
    def dropped(self) -> tuple[str, ...]:
        """What the client asked for and the vendor did not get: parameters by name, messages by number."""
        made_by = self._use if self._attempt is None else self._attempt.upstream
        dropped = made_by.dropped if made_by is not None else ()
        if self._request.prompt is not None and self._request.prompt.left_out:
            dropped = (*dropped, self._request.prompt.left_out)
        return (*dropped, self._left_out) if self._left_out else dropped

    @property
    def attempts(self) -> int:
        """How often a vendor was asked, up to now."""
        return self._attempts

    @property
    def charged(self) -> Charge:
        """What the last attempt came to; known after `end`."""
        return self._charge

    @property
    def provider_name(self) -> str:
        return self._target.provider.name if self._target else ""

    async def start(self) -> None:
        """Up to the first content of a stream, or to the whole answer. Raises GatewayError."""
        require_scope(self._caller, self._request.dialect.SCOPE)
        if self._request.fallbacks or self._request.model in self._view.chosen:
            targets = self._choose()
        else:
            targets = targets_for(self._view, self._caller, self._request)
        await self._enter()
        target = targets[0]
        if target.cache_ttl_s and self._pipeline.cache is not None and await self._given_again(self._pipeline.cache, targets):
            return None
        while True:
            try:
                return await self._try(target)
            except GatewayError as error:
                target = await self._after_failure(error, targets)

    async def next_piece(self) -> bytes:
        """Bytes for the client, b"" once the answer is whole. Raises GatewayError; what came before the error is given first."""
        if self._held:
            return self._held.pop(0)
        if self._late_error is not None:
            raise self._late_error
        if self._attempt is None:  # of an answer that is given again, that was all
            return b""
        upstream = self._attempt.upstream
        try:
            return await upstream.next_piece()
        except GatewayError as error:
            reader = upstream.reader
            if reader is None or not reader.salvaged:
                raise
            self._late_error = error
            return reader.salvaged

    def end(self, error: GatewayError | None, *, replayed: bool = False) -> None:
        """Settles everything, once. `error` None = the client gets, or got, the whole answer; `replayed`: it is another request's."""
        if self._ended:
            return
        self._ended = True
        records: list[Record] = [self._settle(self._attempt, error)] if self._attempt is not None else []
        if self._use is not None:
            self._use.end(self._attempt, self._charge, self.dropped, error)
        now = self._pipeline.clock.monotonic()
        self._leave(now)
        ended = settlement.ended(self._asked, self._charge, self._end_of(error, now, replayed))
        self._write([*records, ended])
        self._count(error, now)
        if self._trace is not None and self._trace.sampled and self._pipeline.tracer is not None:
            self._pipeline.tracer.ended(self._trace, ended)
        if error is not None:
            # Nobody reads it from here on, and its frames hold what was read of the answer, and each other: without this it would be
            # the collector, which comes seldom, that frees megabytes.
            error.__traceback__ = error.__context__ = None

    def has_grown(self) -> bool:
        """See `gateway.progress.Stream`."""
        attempt = self._attempt
        return attempt is not None and attempt.upstream.reader is not None and attempt.upstream.reader.output_bytes > attempt.noted_bytes

    def so_far(self, now: float) -> AttemptSettled:
        """See `gateway.progress.Stream`."""
        attempt = self._attempt
        assert attempt is not None
        assert attempt.upstream.reader is not None
        attempt.noted_bytes = attempt.upstream.reader.output_bytes
        charged = settlement.charge(attempt, self._request, None, self._caller, self._view.snapshot)
        charges = spending.used(attempt.reservation, charged, self._caller, given_up=False) if attempt.reservation else ()
        return settlement.settled(attempt, charged, None, now, charges)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The `x-llm-*` and `x-ratelimit-*` headers, as far as they are known now."""
        found = (self._passage or self._gate).headers(self._pipeline.clock.monotonic())
        found.append((b"x-request-id", self.request_id.encode()))
        if self._target is not None:
            found += self._target.headers if self._request.model != AUTO else choice.asked_for_any(self._target.headers)
            if self._use is not None:
                found += self._use.headers()
            found.append((b"x-llm-attempts", b"%d" % self._attempts))
            if dropped := self.dropped:
                found.append((b"x-llm-dropped-params", _names_header(dropped)))
        if self._request.prompt is not None:
            found.append((b"x-llm-prompt", self._request.prompt.header))
        if self._request.explain:
            found.append((b"x-llm-explain", choice.header(self._decision, self._target)))
        if self._ended and self._charge.usage is not None and self._charge.cost_micros is not None:
            found.append((b"x-llm-cost", _cost_header(self._charge)))
        return found

    async def _given_again(self, cache: Cache, targets: tuple[Target, ...]) -> bool:
        """True: there is an answer, and no vendor need be asked. Raises ProviderTimeout where another request was waited for in vain."""
        self._target = targets[0]
        self._use = use = Use(cache, self._caller.team_id, self._request, self._client_headers, targets)
        self._given = await use.find(self._time_left_s())
        if self._given is None or use.entry is None:
            return False
        made_by, self._charge = use.entry.target_id, settlement.Charge(currency=use.entry.currency)
        self._target = next((target for target in targets if target.model.id == made_by), targets[0])
        if self._request.stream:
            self._held.append(self._given.body)
        return True

    def _choose(self) -> tuple[Target, ...]:
        """Raises UnknownModel, NotPermitted, InvalidRequest."""
        pipeline = self._pipeline
        targets, self._decision = choice.chosen(self._view, self._caller, self._request, pipeline.clock, pipeline.rng.random)
        return targets

    async def _enter(self) -> None:
        """Past the caller's limits, and into those that this process can answer. Raises CallerLimited, ServerBusy."""
        pipeline, tokens = self._pipeline, self._request.estimated_input_tokens
        self._passage = passage = pipeline.manager.passage(self._caller, tokens)
        pipeline.enter()
        try:
            if passage is None:
                self._gate.enter(tokens, pipeline.clock.monotonic())
            else:
                await passage.enter()
        except BaseException:
            pipeline.leave()
            raise
        self._entered_tokens = tokens

    def _leave(self, now: float) -> None:
        if self._entered_tokens is None:
            return
        if self._passage is None:
            self._gate.leave(self._entered_tokens, self._charge.tokens, now)
        else:
            self._passage.leave(self._charge.tokens)
        self._pipeline.leave()

    async def _try(self, target: Target) -> None:
        """Step 3, with one target."""
        request, self._target, self._left_out = self._request, target, ""
        if target.window and request.body_bytes > target.window:
            request, self._left_out = await fitted(request, target.model, target.window)
        request.served_by = target.provider.name
        attempt = await self._begun(target)
        upstream, left_s = attempt.upstream, self._time_left_s() if self._attempts > 1 else None
        await upstream.send(request, target.model, left_s, self._trace.next_attempt() if self._trace else None)
        if upstream.reader is None:
            attempt.answer = await upstream.whole()
        else:
            await self._to_first_content(attempt, upstream.reader)

    async def _begun(self, target: Target) -> Attempt:
        """Past our limits on the model and its provider, and the budgets, to a call that may be made. Where it fails, as if never tried."""
        pipeline, tokens = self._pipeline, self._request.estimated_input_tokens
        gate, passage = target.gate, pipeline.manager.passage_to(target, tokens)
        self._passage_there = passage
        if gate is not None and passage is None:
            gate.enter(tokens, pipeline.clock.monotonic())
        reservation = None
        try:
            if pipeline.budgets is not None and pipeline.budgets.any:
                reservation = await self._reserved(target, pipeline.budgets)
            resort_s = self._course.resort_s if self._course else None
            if passage is None:
                upstream = await target.runtime.acquire(target.model, self._time_left_s, resort_s)
            else:
                upstream = await target.runtime.acquire_with(passage, target.model, self._time_left_s, resort_s)
            return self._open(target, upstream, reservation)
        except BaseException:
            if reservation is not None:
                reservation.settle()
            if passage is not None:
                passage.undo()
            elif gate is not None:
                gate.undo(tokens)
            raise

    async def _to_first_content(self, attempt: Attempt, reader: StreamReader) -> None:
        """From then on a failure is the stream's: no other target is tried."""
        upstream = attempt.upstream
        if self._use is not None:
            reader = upstream.reader = self._use.recording(reader)
        while not reader.content_started:
            piece = await upstream.next_piece()
            if not piece:
                break
            self._held.append(piece)
        attempt.first_token_s = self._pipeline.clock.monotonic()
        upstream.content_began()
        if self._pipeline.progress is not None:
            self._pipeline.progress.add(self)

    async def _reserved(self, target: Target, budgets: Budgets) -> Reservation | None:
        """The most that this attempt can use, of every budget in which it counts; None = of none.

        Raises BudgetExhausted, BudgetUnavailable, ModelUnpriced.
        """
        caller, request = self._caller, self._request
        user = spending.user_of(request) if budgets.names_users else ""
        specs = budgets.of(caller.key_id, caller.team_id, target.provider.id, user)
        if not specs:
            return None
        tokens = spending.worst_case(request, target.model, target.window, self._pipeline.budget_output_tokens)
        needs = spending.needs(specs, tokens, target, caller, self._view.snapshot, self._pipeline.clock.wall())
        return budgets.reserve_now(needs) or await budgets.reserve(needs)

    def _open(self, target: Target, upstream: Upstream, reservation: Reservation | None) -> Attempt:
        """Raises AccountingUnavailable where accounts are strict; otherwise what could not be written waits for the settlement."""
        number = self._attempts + 1
        attempt = Attempt(
            request_id=self.request_id,
            number=number,
            target=target,
            started_at=self._pipeline.clock.wall(),
            began_s=self._pipeline.clock.monotonic(),
            upstream=upstream,
            reservation=reservation,
        )
        opened = settlement.opened(attempt, self._asked)
        try:
            self._pipeline.sink.write(opened)
        except BaseException as exc:
            if self._pipeline.strict or not isinstance(exc, AccountingUnavailable):
                upstream.close(None, says_nothing=True)
                raise
            self._unwritten = [opened]
        self._attempts, self._attempt = number, attempt
        if target.vitals is not None:
            target.vitals.in_flight += 1
        return attempt

    async def _after_failure(self, error: GatewayError, targets: tuple[Target, ...]) -> Target:
        """Whom to try next, after any backoff. Raises where nothing is left to try."""
        attempt, pipeline = self._attempt, self._pipeline
        if self._course is None:
            self._course = Course(targets, pipeline.clock, pipeline.rng, pipeline.max_retries, pipeline.retry_delay_s)
        key, time_left_s = attempt.upstream.key if attempt else None, self._time_left_s()
        target, wait_s = self._course.after(error, key, time_left_s, patient=self._client_timeout_s != float("inf"))
        self._held.clear()
        if attempt is not None:
            self._write([self._settle(attempt, error, given_up=True)])
            self._attempt = None
        if wait_s:
            await asyncio.sleep(wait_s)
        return target

    def _time_left_s(self) -> float:
        """Until the provider's total time, or the client's patience, is over."""
        assert self._target is not None
        if self._client_timeout_s is None:
            self._client_timeout_s = retry.client_timeout_s(self._client_headers)
        total_s = min(self._target.runtime.spec.timeouts.total_s, self._client_timeout_s)
        return total_s - (self._pipeline.clock.monotonic() - self._began_s)

    def _settle(self, attempt: Attempt, error: GatewayError | None, *, given_up: bool = False) -> AttemptSettled:
        """`given_up`: another attempt follows."""
        now, charged = self._pipeline.clock.monotonic(), settlement.charge(attempt, self._request, error, self._caller, self._view.snapshot)
        self._charge = charged
        self._close(attempt, error, now)
        count_attempt(attempt, charged, error, now)
        charges: tuple[int, ...] = ()
        if attempt.reservation is not None:
            charges = spending.used(attempt.reservation, charged, self._caller, given_up=given_up)
            attempt.reservation.settle(charges)
        settled = settlement.settled(attempt, charged, error, now, charges)
        if self.heard is not None:
            self.heard.append(attempt.upstream.heard(attempt.number))
        if self._trace is not None:
            self._trace.attempted(attempt.target, attempt.started_at, settled)
        return settled

    def _close(self, attempt: Attempt, error: GatewayError | None, now: float) -> None:
        """Limits, breaker and whoever measures the model get their due."""
        gone = isinstance(error, ClientGone)
        attempt.upstream.close(None if gone else error, says_nothing=gone)
        if attempt.first_token_s is not None and self._pipeline.progress is not None:
            self._pipeline.progress.discard(self)
        if self._passage_there is not None:
            self._passage_there.leave(self._charge.tokens)
        elif attempt.target.gate is not None:
            attempt.target.gate.leave(self._request.estimated_input_tokens, self._charge.tokens, now)
        if (vitals := attempt.target.vitals) is not None:
            vitals.ended(now, attempt.began_s, attempt.first_token_s, self._charge.usage if error is None else None)
        if error is not None and not gone:
            self._pipeline.manager.publish_breakers()
            if error.detail:
                _log.warning("%s provider %s: %s (%s)", attempt.id, attempt.target.provider.name, error.message, error.detail)

    def _end_of(self, error: GatewayError | None, now: float, replayed: bool) -> settlement.End:
        first_token_s = self._attempt.first_token_s if self._attempt else None
        return settlement.End(
            duration_s=now - self._began_s,
            target=self._target,
            attempts=self._attempts,
            error=error,
            first_token_s=None if first_token_s is None else first_token_s - self._began_s,
            dropped=self.dropped,
            use=self._use,
            decision=stored(self._decision) if self._decision is not None else "",
            trace_id=f"{self._trace.trace_id:032x}" if self._trace is not None else "",
            replayed=replayed,
        )

    def _write(self, records: list[Record]) -> None:
        if self._unwritten:
            records, self._unwritten = self._unwritten + records, []
        try:
            self._pipeline.sink.write(*records)
        except AccountingUnavailable:
            if not self._attempts:  # nothing was used, and the client is told
                return
            # The answer is made and paid for; the records go where they can still be found. They hold no prompt.
            metrics.UNRECORDED.inc()
            _log.critical("the journal cannot be written; unrecorded: %s", msgspec.json.encode(records).decode())

    def _count(self, error: GatewayError | None, now: float) -> None:
        if error is not None:
            count_error(error)
        if self._target is None:
            return
        counted = self._target.metrics
        if error is not None:
            count_failure(counted, error, now - self._began_s)
            return
        if self._use is not None:
            self._use.count(counted)
        count_answer(counted, self._attempt, self._began_s, now)


def _names_header(names: tuple[str, ...]) -> bytes:
    """Clients make these names up: what may not stand in a header is escaped, and no list grows beyond its bound."""
    return ", ".join(names)[:_MAX_NAMES].encode("unicode_escape")


def _cost_header(charged: Charge) -> bytes:
    return b"%s %s" % (plain(charged.cost_micros or 0).encode(), charged.currency.encode())
