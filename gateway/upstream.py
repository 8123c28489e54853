"""One call of a vendor, from the request to the last byte of its answer, and what it says of key and breaker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from core.chat import Answer, ChatRequest, WireCall, unreadable
from core.config import ModelSpec, TimeoutSpec
from core.errors import GatewayError, ProviderError, ProviderLimited, ProviderNonsense
from core.outbound import Response, Transport
from gateway.adaptive import Observed
from gateway.breaker import BreakerGate
from gateway.kept_headers import Heard
from gateway.keypool import Key
from gateway.news import Closed, News, Opened, Rests, Works, reason_of
from providers.adapters.base import StreamReader
from providers.adapters.openai_errors import MAX_EXCERPT_BYTES, redacted

if TYPE_CHECKING:
    from gateway.runtime import ProviderRuntime

MAX_ANSWER_BYTES = 32 * 2**20
_MAX_ERROR_BYTES = 64 * 2**10
_LINGER_S = 0.05

_log = logging.getLogger(__name__)


class Upstream:
    """A vendor call in flight. Holds a slot, a key and a breaker's permit until `close`, which must be called."""

    __slots__ = (
        *("_adapter", "_breaker", "_claimed", "_closed", "_key_trial", "_model_id", "_observed", "_request", "_response", "_runtime"),
        *("_trial", "dropped", "key", "reader", "vendor_s"),
    )

    def __init__(
        self,
        runtime: ProviderRuntime,
        key: Key,
        model_id: str,
        breaker: BreakerGate,
        claimed: tuple[str, ...],
        observed: Observed | None = None,
    ) -> None:
        """`claimed`: of `Trials.begin`."""
        self._runtime = runtime
        self._claimed = claimed
        # The runtime's may be replaced while this call lasts; who asked must also read the answer.
        self._adapter = runtime.adapter
        self._model_id = model_id
        self._breaker = breaker
        self._trial = breaker.enter()
        self._key_trial = key.lease()
        self._observed = observed
        self._request: ChatRequest | None = None
        self._response: Response | None = None
        self._closed = False
        self.dropped: tuple[str, ...] = ()
        self.key = key
        self.reader: StreamReader | None = None
        self.vendor_s = 0.0

    async def send(
        self, request: ChatRequest, model: ModelSpec, left_s: float | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Sends the request, with `headers` beside the adapter's own, and waits for a success status. Raises ProviderError.

        `left_s`: of the request's time, where an earlier call has used some of it. Who stands in when it is up has its own.
        """
        runtime = self._runtime
        adapter = self._adapter
        try:
            call = adapter.chat_call(request, model, self.key.secret)
        except msgspec.DecodeError as exc:
            raise unreadable(exc) from None
        self._request, self.dropped = request, call.dropped
        sent_at = runtime.standing.called_at = runtime.clock.monotonic()
        transport = runtime.transport if left_s is None or left_s <= 0 else _Hurried(runtime.transport, left_s)
        if headers:
            transport = _Labelled(transport, headers)
        response = self._response = await adapter.send(transport, call)
        if response.status != 200:
            body = await _error_body(response)
            raise _said_of_retries(adapter.read_error(response.status, response.headers, body), response)
        self._accepted(request, response, sent_at)

    def _accepted(self, request: ChatRequest, response: Response, sent_at: float) -> None:
        """The vendor has taken the call, which says something of the key, the pace and the provider."""
        runtime = self._runtime
        standing = runtime.standing
        if self.key.rests and self.key.works(self._model_id, runtime.clock.monotonic()):
            self._tell(Works(runtime.spec.id, self.key.id, self._model_id))
        if self._observed is not None:
            runtime.learn_from(self._observed, (self.key.id, self._model_id), response)
        if request.stream:
            self.reader = self._adapter.stream_reader(request)
        answered_at = standing.answered_at = runtime.clock.monotonic()
        if standing.doubt or standing.ill:
            runtime.believe(self._model_id)
        self.vendor_s = answered_at - sent_at

    async def count(self, request: ChatRequest, model: ModelSpec) -> int:
        """Input tokens by the vendor's own count, instead of an answer; see `ProviderRuntime.counts_tokens`. Raises ProviderError."""
        adapter: Any = self._adapter
        call = adapter.count_call(request, model, self.key.secret)
        response = self._response = await adapter.send(self._runtime.transport, call)
        if response.status != 200:
            raise adapter.read_error(response.status, response.headers, await _error_body(response))
        body = await response.read(_MAX_ERROR_BYTES)
        count: int = adapter.read_count(body)
        return count

    async def whole(self) -> Answer:
        """The whole answer. Raises ProviderError."""
        assert self._response is not None
        assert self._request is not None
        began_at = self._runtime.clock.monotonic()
        body = await self._response.read(MAX_ANSWER_BYTES)
        self.vendor_s += self._runtime.clock.monotonic() - began_at
        try:
            return self._adapter.read_answer(body, self._request)
        except ProviderNonsense as error:
            self._quote(error, body)
            raise

    async def next_piece(self) -> bytes:
        """The next events for the client, b"" once the answer is complete. Raises ProviderError; see StreamReader.salvaged."""
        reader, response = self.reader, self._response
        assert reader is not None
        assert response is not None
        while not reader.done:
            data = await response.next_chunk()
            if not data:
                rest = reader.finish()
                reader.done = True
                return rest
            try:
                piece = reader.feed(data)
            except ProviderNonsense as error:
                self._quote(error, data)
                raise
            if reader.done:
                await self._read_out(response)
            if piece:
                return piece
        return b""

    def heard(self, attempt: int) -> Heard:
        """With what the vendor's answer began, as far as there is one."""
        response = self._response
        status, headers = (response.status, response.headers.items()) if response is not None else (0, ())
        return Heard(attempt, status, headers, self.key.secret)

    def _quote(self, error: ProviderNonsense, data: bytes) -> None:
        """Adds what the vendor sent to `detail`, which is for our own log: at most MAX_EXCERPT_BYTES of it, without keys."""
        secrets = [self.key.secret.reveal()] if self.key.secret else []
        excerpt = redacted(data[: 4 * MAX_EXCERPT_BYTES].decode("utf-8", "replace"), secrets, MAX_EXCERPT_BYTES)
        error.detail = f"{error.detail}: {excerpt}" if error.detail else excerpt

    async def _read_out(self, response: Response) -> None:
        """The answer is whole, its HTTP body perhaps not: read to the end, the connection serves the next call.
        A vendor that lingers costs its own connection, and the caller hardly any time."""
        with suppress(TimeoutError, ProviderError):
            async with asyncio.timeout(_LINGER_S):
                while await response.next_chunk():
                    pass

    def content_began(self) -> None:
        """A stream may last: a trial has told enough when it begins, and is over."""
        if self._trial:
            self._tried_well(self._runtime.clock.monotonic())
            self._trial = False
        if self._claimed:
            self._end_claims()

    def close(self, error: BaseException | None, *, says_nothing: bool = False) -> None:
        """Idempotent, and never awaits: safe while being cancelled. `says_nothing`: the client left, the vendor is not judged."""
        if self._closed:
            return
        self._closed = True
        if self._response is not None:
            self._response.close()
        now = self._runtime.clock.monotonic()
        rest = self.key.release(self._model_id, error if self._observed is None else _of_the_key(error), now, self._key_trial)
        if rest is not None:
            self._tell_of_rest(rest, now)
        if self._observed is not None:
            self._runtime.learn_the_end(self._observed, error, now)
        self._runtime.slots.release()
        if error is None and not says_nothing:
            if self._trial:
                self._tried_well(now)
            else:
                self._breaker.succeeded(False, now)
        elif isinstance(error, ProviderError) and error.blames_provider:
            self._failed(error, now)
        else:
            self._breaker.neutral(self._trial)
        if self._claimed:
            self._end_claims()

    def _tell(self, news: News) -> None:
        """What became of a secret or a server that was replaced meanwhile is nothing that others should hear of the new one."""
        if self._runtime.uses(self.key, self._model_id, self._breaker):
            self._runtime.tell(news)

    def _tried_well(self, now: float) -> None:
        self._breaker.succeeded(True, now)
        self._tell(Closed(self._runtime.spec.id, self.key.id, self._model_id))

    def _end_claims(self) -> None:
        self._runtime.trials.end(self._claimed)
        self._claimed = ()

    def _tell_of_rest(self, name: str, now: float) -> None:
        rest = self.key.rests[name]
        self._tell(Rests(self._runtime.spec.id, self.key.id, name, rest.until - now, rest.length_s, reason_of(rest.reason)))

    def _failed(self, error: ProviderError, now: float) -> None:
        gate, before = self._breaker, self._breaker.state
        gate.failed(self._trial, error, now)
        if gate.state == "open" != before:
            name = self._runtime.spec.name
            self._tell(Opened(self._runtime.spec.id, self.key.id, self._model_id, *gate.told(now), reason_of(error)))
            _log.warning(
                "provider %s: breaker of %s is open, next trial in %.1f s: %s", name, self._model_id, gate.wait_s(now), error.message
            )


class _Hurried:
    """A `Transport` whose calls have `left_s` at most."""

    def __init__(self, transport: Transport, left_s: float) -> None:
        self._transport = transport
        self._left_s = round(left_s, 3)

    async def open(self, call: WireCall, timeouts: TimeoutSpec) -> Response:
        left_s = self._left_s
        shorter = {"connect_s": min(timeouts.connect_s, left_s), "total_s": min(timeouts.total_s, left_s)}
        return await self._transport.open(call, msgspec.structs.replace(timeouts, **shorter))

    async def close(self) -> None:
        await self._transport.close()


class _Labelled:
    """A `Transport` whose calls have these headers too."""

    def __init__(self, transport: Transport, headers: Mapping[str, str]) -> None:
        self._transport = transport
        self._headers = headers

    async def open(self, call: WireCall, timeouts: TimeoutSpec) -> Response:
        return await self._transport.open(msgspec.structs.replace(call, headers={**call.headers, **self._headers}), timeouts)

    async def close(self) -> None:
        await self._transport.close()


def _said_of_retries(error: GatewayError, response: Response) -> GatewayError:
    """OpenAI and Anthropic send `x-should-retry` for their own SDKs, which obey it before they look at the status."""
    if isinstance(error, ProviderError) and response.headers.get("x-should-retry") == "false":
        error.ask_again = False
    return error


async def _error_body(response: Response) -> bytes:
    """What an error says for itself; b"" where that is a long page, or cannot be read: the status says enough."""
    try:
        return await response.read(_MAX_ERROR_BYTES)
    except ProviderError:
        return b""


def _of_the_key(error: BaseException | None) -> BaseException | None:
    """Where the pace is learnt, a limit that comes without a wait is the pace's affair: the key need not rest for it."""
    return None if isinstance(error, ProviderLimited) and error.retry_after_s is None else error
