"""What one request has to do with the cache: whether it may, what makes it the same as another, and what becomes of its answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from core.chat import Answer, ChatRequest
from core.config import ModelSpec, ProviderSpec
from core.errors import ClientGone, GatewayError
from core.money import plain
from gateway import replay
from gateway.cache import Cache, Entry, Lead
from gateway.replay import Recorded
from gateway.router import Target
from gateway.settlement import Attempt, Charge
from monitoring import metrics
from providers.adapters.base import StreamReader

# How an answer travels, and what is said in other words: all else makes another request.
_NOT_ASKED = frozenset({"model", "stream", "stream_options", "cache"})
# An embedding has no end that could be another one.
_WHOLE = frozenset({"", "stop", "tool_calls"})
_MAX_AGE = re.compile(rb"max-age=(\d{1,9})")
_encode = msgspec.msgpack.Encoder().encode
OFF, MISS, HIT, SHARED = "off", "miss", "hit", "shared"


class Use:
    """`find` first; where it finds nothing, `recording` and `end` frame the call. `state`: off | miss | hit | shared."""

    __slots__ = ("_cache", "_key", "_lead", "_reads", "_request", "_ttl_s", "entry", "state")

    def __init__(self, cache: Cache, team_id: str, request: ChatRequest, headers: Iterable[tuple[bytes, bytes]], targets: Sequence[Target]):
        """`targets`: what may be asked, all of it; the first one's TTL is the chain's."""
        self._cache = cache
        self._request = request
        self._lead: Lead | None = None
        self._ttl_s, self._reads = _wish(request, headers, targets[0].cache_ttl_s)
        self._key = key_of(team_id, request, targets) if self._ttl_s else b""
        self.state = MISS if self._ttl_s else OFF
        self.entry: Entry | None = None

    async def find(self, patience_s: float) -> Answer | None:
        """The answer as this client asked for it, of a stream all but the tail; None = a vendor is to be asked. Raises ProviderTimeout."""
        if not self._ttl_s or not self._reads:
            return None
        found = await self._cache.find(self._key, self._ttl_s, patience_s)
        if found is None or isinstance(found, Lead):
            self._lead = found
            return None
        entry, waited = found
        given = replay.as_asked(entry, self._request)
        if given is None:
            return None
        self.entry, self.state = given, SHARED if waited else HIT
        return Answer(given.body, given.usage, given.finish_reason, given.output_bytes)

    @property
    def tail(self) -> bytes:
        return self.entry.tail if self.entry else b""

    @property
    def dropped(self) -> tuple[str, ...]:
        return self.entry.dropped if self.entry else ()

    @property
    def recorded(self) -> str:
        """As `monitoring.journal.RequestEnded` has it."""
        return "" if self.state == OFF else self.state

    @property
    def saved_micros(self) -> int | None:
        return self.entry.cost_micros if self.entry else None

    def recording(self, reader: StreamReader) -> StreamReader:
        """The same reader; what it gives the client can be given again."""
        return cast(StreamReader, Recorded(reader, self._cache.max_entry_bytes)) if self._ttl_s else reader

    def end(self, attempt: Attempt | None, charged: Charge, dropped: tuple[str, ...], error: GatewayError | None) -> None:
        """`attempt` is the last one, None where there was none. Never awaits."""
        lead, self._lead = self._lead, None
        entry = self._entry(attempt, charged, dropped) if attempt is not None and error is None and self._ttl_s else None
        if entry is not None and lead is not None:
            self._cache.land(lead, entry, self._ttl_s)
        elif entry is not None:
            self._cache.refresh(self._key, entry, self._ttl_s)
        elif lead is not None and (isinstance(error, ClientGone) or (error is not None and error.retryable)):
            self._cache.fail(lead)
        elif lead is not None:
            self._cache.release(lead)

    def count(self, counted: metrics.TargetMetrics) -> None:
        metrics.CACHE.labels(counted.provider, counted.model, self.state).inc()
        if self.entry is not None and self.entry.cost_micros:
            metrics.CACHE_SAVED.labels(counted.provider, counted.model, self.entry.currency).inc(self.entry.cost_micros / 1_000_000)

    def headers(self) -> list[tuple[bytes, bytes]]:
        found = [(b"x-llm-cache", self.state.encode())]
        if (entry := self.entry) is not None:
            found.append((b"age", b"%d" % max(0, self._cache.clock.wall() - entry.made_at)))
            if entry.cost_micros is not None:
                currency = entry.currency.encode()
                found += [(b"x-llm-cost", b"0 " + currency), (b"x-llm-saved", plain(entry.cost_micros).encode() + b" " + currency)]
        return found

    def _entry(self, attempt: Attempt, charged: Charge, dropped: tuple[str, ...]) -> Entry | None:
        """None: what came cannot be given again. An answer that was cut short, or that only stands in, is not the answer."""
        recorded, request = replay.recorded_of(attempt), self._request
        if recorded is None or attempt.target.degraded or not attempt.target.cache_ttl_s or attempt.finish_reason not in _WHOLE:
            return None
        body, tail, source = recorded
        return Entry(
            body=body,
            tail=tail,
            streamed=request.stream,
            with_usage=request.wants_usage,
            finish_reason=attempt.finish_reason,
            output_bytes=source.output_bytes,
            usage=source.usage,
            target_id=attempt.target.model.id,
            made_at=self._cache.clock.wall(),
            cost_micros=charged.cost_micros,
            currency=charged.currency,
            dropped=dropped,
        )


def key_of(team_id: str, request: ChatRequest, targets: Sequence[Target]) -> bytes:
    """The same for requests that are the same: of one team, for one name with the same behind it, in one dialect, saying the same.

    The fields of the body may come in any order; within a field every byte counts.
    """
    said = sorted((name, bytes(value)) for name, value in request.fields.items() if name not in _NOT_ASKED)
    behind = sorted(target.identity for target in targets)  # a route's strategy may order them otherwise each time
    parts = (
        team_id,
        request.model,
        request.fallbacks,
        request.dialect.NAME,
        replay.form_of(request),
        behind,
        sorted(request.headers),
        said,
    )
    return hashlib.sha256(_encode(parts)).digest()


def identity_of(model: ModelSpec, provider: ProviderSpec, window: int) -> bytes:
    """What of a target makes its answers others than another's. What it costs, how long it may take and with which key it is asked
    does not."""
    of_provider = (provider.id, provider.kind, provider.base_url, sorted(provider.options.items()))
    of_model = (model.id, model.model_id, model.max_output_tokens, model.drop_params, model.truncate, window)
    return _encode((of_provider, of_model))


def _wish(request: ChatRequest, headers: Iterable[tuple[bytes, bytes]], policy_s: float) -> tuple[float, bool]:
    """(for how long, 0 = not at all, whether it may be given what is kept): a request may ask for less than the policy has, never more."""
    ttl_s, reads = policy_s, True
    if (wish := request.cache) is not None:
        if not wish.enabled:
            return 0.0, False
        ttl_s = ttl_s if wish.ttl_s is None else min(ttl_s, wish.ttl_s)
    for name, value in headers:
        if name == b"cache-control":
            said = value.lower()
            if b"no-store" in said:
                return 0.0, False
            reads = reads and b"no-cache" not in said
            if (age := _MAX_AGE.search(said)) is not None:
                ttl_s = min(ttl_s, int(age.group(1)))
    return ttl_s, reads
