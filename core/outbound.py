"""Calls to vendors: the one way out. Resolve, check each address, connect to the checked address, send, read within bounds.

No redirects, no proxies from the environment, no cookies; private and special addresses only where OUTBOUND_ALLOW says so.
`core.connector` opens connections, `core.http1_pool` keeps them, `core.http1_connection` speaks on them.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from typing import NamedTuple, Protocol

from yarl import URL

from core.chat import WireCall
from core.config import TimeoutSpec
from core.connector import Connector, NameUnresolved, Resolve
from core.deadlines import Deadlines
from core.errors import OutboundRefused, ProviderError, ProviderNonsense, ProviderTimeout, ProviderTlsFailed, ProviderUnreachable
from core.guard import Guard
from core.http1 import Malformed, Origin, RequestForm
from core.http1_connection import WHOLE_WRITE_BYTES, Answer, Broken, Connection
from core.http1_pool import Pool

MAX_BODY_BYTES = 32 * 2**20
# So much of an answer has to come in each `idle_s`, or it counts as silence: a vendor that sends a byte now and then to keep us
# waiting gets no further than one that sends none. Comments that keep a connection open are more.
MIN_PROGRESS_BYTES = 32
_MAX_PREPARED = 1024
_DEADLINE_TICK_S = 0.1  # how late a timeout may be noticed
_INFLATED_PIECE_BYTES = 64 * 2**10
_REPEATABLE = ("GET", "HEAD")


class Response(Protocol):
    """One vendor answer, its body still on the wire."""

    status: int

    @property
    def content_type(self) -> str:
        """In lower case, without parameters."""
        ...

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case."""
        ...

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises ProviderNonsense over `limit` bytes, ProviderTimeout, ProviderUnreachable."""
        ...

    async def next_chunk(self) -> bytes:
        """The next bytes as they arrive, b"" at the end. Raises ProviderTimeout (idle, total), ProviderUnreachable."""
        ...

    def close(self) -> None:
        """Idempotent. Drops the connection unless the body was read to its end."""
        ...


class Transport(Protocol):
    async def open(self, call: WireCall, timeouts: TimeoutSpec) -> Response:
        """Sends `call` and waits for the status line. Raises ProviderUnreachable, ProviderTimeout, OutboundRefused."""
        ...

    async def close(self) -> None: ...


def prepared_url(url: str) -> URL:
    """The parsed form of a vendor URL. Raises OutboundRefused unless it is plain http(s)://host[:port]/path[?query]."""
    if not url.isprintable() or " " in url:
        raise OutboundRefused("The provider's URL holds spaces or control characters; correct its base URL.")
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError:
        raise OutboundRefused("The provider's URL cannot be read; correct its base URL.") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or not port:
        raise OutboundRefused("The provider's URL must start with http:// or https:// and name a host; correct its base URL.")
    if "@" in parsed.raw_authority:
        raise OutboundRefused("The provider's URL holds a user name or password; remove it and enter the key in its own field.")
    return parsed


class _Target(NamedTuple):
    origin: Origin
    form: RequestForm


class GuardedTransport:
    """One pool of connections, for one event loop; made on first use. `resolve` stands in for DNS, `tls` for the system's
    trust, in tests."""

    def __init__(
        self,
        guard: Guard,
        *,
        max_connections: int = 1000,
        max_per_host: int = 500,
        min_progress_bytes: int = MIN_PROGRESS_BYTES,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._min_progress_bytes = min_progress_bytes
        self._limits = {"max_connections": max_connections, "max_per_host": max_per_host}
        self._connector = Connector(guard, resolve=resolve, tls=tls)
        self._pool: Pool | None = None
        self._deadlines = Deadlines(_DEADLINE_TICK_S)
        self._targets: dict[tuple[object, ...], _Target] = {}

    async def open(self, call: WireCall, timeouts: TimeoutSpec, ca: str = "") -> GuardedResponse:
        """See `Transport.open`. The caller closes the response. `ca`: see `Origin`."""
        pool = self._pool or self._start()
        body = call.body or b""
        key = (call.url, call.method, call.body is None, ca, *call.headers)
        target = self._targets.get(key) or self._prepare(key, call, ca)
        head = target.form.filled(call.headers.values(), len(body))
        watch = Watch(timeouts, self._deadlines, pool.loop, self._min_progress_bytes)
        answer: Answer | None = None
        try:
            connection = pool.take(target.origin)
            # An idle connection may die just when it is used. Only what can be asked twice is asked again.
            again = connection is not None and call.method in _REPEATABLE
            while True:
                if connection is None:
                    connection = await self._connected(pool, target.origin, timeouts)
                answer = connection.send(call.method, head, body)
                if len(body) > WHOLE_WRITE_BYTES:
                    await connection.upload(answer, body)
                while not (answer.status or answer.failure):
                    await answer.changed()
                if answer.status:
                    break
                if not (again and isinstance(answer.failure, Broken) and answer.failure.untouched):
                    raise _failure(answer.failure, target.origin)
                connection, again = None, False
        except BaseException as exc:
            watch.stop()
            if answer is not None:
                answer.abort()
            if isinstance(exc, asyncio.CancelledError) and watch.caused_cancellation():
                message = f"The provider did not begin to answer within {watch.first_byte_s:g} seconds."
                raise ProviderTimeout(message, detail=str(target.origin)) from None
            raise
        return _response(answer, target.origin, timeouts, watch)

    async def close(self) -> None:
        """Aborts the calls under way. The next one starts anew."""
        self._connector.forget()
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        await asyncio.sleep(0)  # sockets are closed in the loop's next turn

    def _start(self) -> Pool:
        self._pool = Pool(self._connector.connect, **self._limits)
        return self._pool

    async def _connected(self, pool: Pool, origin: Origin, timeouts: TimeoutSpec) -> Connection:
        """Waiting for the pool, DNS, TCP and TLS share `connect_s`."""
        try:
            async with asyncio.timeout(timeouts.connect_s) as limit:
                return await pool.acquire(origin)
        except (OSError, Broken) as exc:
            if limit.expired():
                message = f"No connection to the provider within {timeouts.connect_s:g} seconds."
                raise ProviderTimeout(message, detail=str(origin)) from None
            raise _failure(exc, origin) from exc

    def _prepare(self, key: tuple[object, ...], call: WireCall, ca: str) -> _Target:
        """Parsing and checking cost microseconds, and vendors have few URLs and sets of headers."""
        url = prepared_url(call.url)
        assert url.host is not None
        assert url.port is not None
        host = url.raw_host if url.raw_host is not None else url.host
        form = RequestForm(call.method, url.raw_path_qs, url.host_port_subcomponent or host, call.headers, has_body=call.body is not None)
        if len(self._targets) >= _MAX_PREPARED:
            self._targets.clear()
        return self._targets.setdefault(key, _Target(Origin(url.scheme, host, url.port, ca), form))


class TrustingTransport:
    """A `Transport` that believes a vendor's certificate by the word of some authorities, and no others."""

    def __init__(self, transport: GuardedTransport, ca: str) -> None:
        """`ca`: their certificates (PEM)."""
        self._transport = transport
        self._ca = ca

    async def open(self, call: WireCall, timeouts: TimeoutSpec) -> Response:
        return await self._transport.open(call, timeouts, self._ca)

    async def close(self) -> None:
        await self._transport.close()


def trusting(transport: Transport, ca: str) -> Transport:
    """`transport` for a vendor with authorities (PEM) of its own; "" = the system's."""
    return TrustingTransport(transport, ca) if ca and isinstance(transport, GuardedTransport) else transport


class Watch:
    """One deadline for a whole call: first until the answer begins, then over silence and total time.

    It is moved lazily, when it is met: nothing is scheduled per chunk.
    """

    __slots__ = (
        *("_cancelled", "_deadlines", "_ends_s", "_least_bytes", "_loop", "_response", "_seen_bytes", "_seen_waited_s", "_task"),
        *("_timeouts", "due_s", "first_byte_s", "now"),
    )

    def __init__(self, timeouts: TimeoutSpec, deadlines: Deadlines, loop: asyncio.AbstractEventLoop, least_bytes: int = 1) -> None:
        """`loop` is the running one: finding that out is a system call each time. `least_bytes`: that have to come in `idle_s`."""
        self._loop = loop
        self._least_bytes = least_bytes
        self._seen_bytes, self._seen_waited_s = 0, 0.0
        self.now = loop.time
        self.first_byte_s = min(timeouts.first_byte_s, timeouts.total_s)
        self._timeouts = timeouts
        self._deadlines = deadlines
        self._task = asyncio.current_task(loop)
        self._cancelled = False
        self._response: GuardedResponse | None = None
        began = self.now()
        self._ends_s = began + timeouts.total_s
        self.due_s = began + self.first_byte_s
        deadlines.add(self, self._loop)

    def caused_cancellation(self) -> bool:
        """Whether the task was cancelled by this deadline and by nobody else."""
        return self._cancelled and self._task is not None and self._task.uncancel() == 0

    def follow(self, response: GuardedResponse) -> None:
        """The answer has begun. The deadline stands where it is, unless silence would be noticed too late."""
        self._response, self._task = response, None
        if self._timeouts.idle_s < self.first_byte_s:
            self.due_s = min(self.now() + self._timeouts.idle_s, self._ends_s)

    def stop(self) -> None:
        self._response = None
        self._deadlines.discard(self)

    def overdue(self) -> None:
        """See `Due.overdue`."""
        response = self._response
        if response is None:
            self._cancelled = True
            if self._task is not None:
                self._task.cancel()
            return
        now = self.now()
        silent_until = self._silent_until(response, now)
        if now >= self._ends_s:
            response.expire(f"The provider's answer was not complete after {self._timeouts.total_s:g} seconds.")
        elif now >= silent_until:
            response.expire(self._too_little(response))
        else:
            self.due_s = min(silent_until, self._ends_s)
            self._deadlines.add(self, self._loop)

    def _silent_until(self, response: GuardedResponse, now: float) -> float:
        """When what has come since the last look will have been too little for too long. Only the time for which our reader
        waited counts: one that is busy with its client is not the vendor's silence."""
        since = response.waiting_since
        if since is None:
            return now + self._timeouts.idle_s
        waited_s = response.waited_s + now - since
        if response.received_bytes - self._seen_bytes >= self._least_bytes:
            # Of what has come nobody noted when: it may all have come with the last chunk.
            self._seen_bytes, self._seen_waited_s = response.received_bytes, response.waited_s
        return now + self._timeouts.idle_s - (waited_s - self._seen_waited_s)

    def _too_little(self, response: GuardedResponse) -> str:
        came = response.received_bytes - self._seen_bytes
        what = f"only {came} of the {self._least_bytes} bytes that it has to send" if came else "nothing"
        return f"The provider sent {what} for {self._timeouts.idle_s:g} seconds in the middle of its answer."


class GuardedResponse:
    """A `Response`. `waited_s`: for all bytes so far together; since `waiting_since` (loop time) for the next, None = for none."""

    def __init__(self, answer: Answer, origin: Origin, timeouts: TimeoutSpec, watch: Watch) -> None:
        self.status = answer.status
        self.headers = answer.fields
        self.waiting_since: float | None = None
        self.waited_s, self.received_bytes = 0.0, 0
        self._answer = answer
        self._origin = origin
        self._watch = watch
        self._expired: ProviderTimeout | None = None
        if answer.complete:
            watch.stop()
        else:
            watch.follow(self)

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def read(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """See `Response.read`. `limit` counts inflated bytes."""
        parts: list[bytes] = []
        size = 0
        while data := await self.next_chunk():
            size += len(data)
            if size > limit:
                self.close()
                raise ProviderNonsense(f"The provider's answer is longer than {limit} bytes.")
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def next_chunk(self) -> bytes:
        """See `Response.next_chunk`."""
        answer = self._answer
        while not (data := answer.take()):
            if answer.complete:
                self._watch.stop()
                return b""
            if answer.failure is not None:
                self._watch.stop()
                raise self._expired or _failure(answer.failure, self._origin)
            began_s = self.waiting_since = self._watch.now()
            try:
                await answer.changed()
            except asyncio.CancelledError:
                self.close()  # whoever was reading is gone, and half an answer is of no use to the next call
                raise
            self.waiting_since = None
            self.waited_s += self._watch.now() - began_s
        self.received_bytes += len(data)
        return data

    def close(self) -> None:
        """See `Response.close`. The socket is aborted, not shut down politely, so that the vendor stops at once."""
        self._watch.stop()
        self._answer.abort()

    def expire(self, message: str) -> None:
        self._expired = ProviderTimeout(message, vendor_status=self.status)
        self.close()


class InflatedResponse(GuardedResponse):
    """For the vendor that compresses although it was asked not to. Inflates piece by piece, so that limits hold."""

    _inflater: zlib._Decompress | None = None
    _packed = b""
    _more = False

    async def next_chunk(self) -> bytes:
        """See `Response.next_chunk`."""
        while True:
            if not (self._packed or self._more):
                self._packed = await super().next_chunk()
                if not self._packed:
                    return self._end()
            try:
                data = self._inflate()
            except zlib.error as exc:
                raise self._nonsense("cannot be inflated", detail=str(exc)) from None
            if data:
                return data

    def _inflate(self) -> bytes:
        if self._inflater is None:
            self._inflater = zlib.decompressobj(self._window_bits())
        if self._inflater.eof:
            raise self._nonsense("goes on after the end of its compressed data")
        data = self._inflater.decompress(self._packed, _INFLATED_PIECE_BYTES)
        self._packed = self._inflater.unconsumed_tail or self._inflater.unused_data
        self._more = len(data) == _INFLATED_PIECE_BYTES and not self._inflater.eof  # zlib may hold back more of it
        return data

    def _end(self) -> bytes:
        if self._inflater is not None and not self._inflater.eof:
            raise self._nonsense("ends in the middle of its compressed data")
        return b""

    def _window_bits(self) -> int:
        """What zlib calls the format. `deflate` comes with a zlib header, or from some servers without."""
        match self.headers["content-encoding"].lower():
            case "gzip" | "x-gzip":
                return 16 + zlib.MAX_WBITS
            case "deflate":
                return zlib.MAX_WBITS if self._packed[0] & 15 == zlib.DEFLATED else -zlib.MAX_WBITS
            case coding:
                raise self._nonsense(f"is compressed as {coding[:20]!r}, which was not asked for")

    def _nonsense(self, what: str, detail: str | None = None) -> ProviderNonsense:
        self.close()
        return ProviderNonsense(f"The provider's answer {what}.", detail=detail)


def _response(answer: Answer, origin: Origin, timeouts: TimeoutSpec, watch: Watch) -> GuardedResponse:
    coding = answer.fields.get("content-encoding")
    kind = InflatedResponse if coding and coding.lower() != "identity" else GuardedResponse
    return kind(answer, origin, timeouts, watch)


def _failure(exc: Exception | None, origin: Origin) -> ProviderError:
    """The typed error of what went wrong on the way. The address goes to the detail: callers need not know it."""
    detail = f"{origin}: {type(exc).__name__}: {exc}"[:500]
    match exc:
        case Malformed():
            return ProviderNonsense("The provider's answer is not valid HTTP.", detail=detail)
        case Broken():
            return ProviderUnreachable("The connection to the provider broke before its answer was complete.", detail=detail)
        case ssl.SSLError():
            return ProviderTlsFailed("No trusted TLS connection to the provider: check its certificate and host name.", detail=detail)
        case NameUnresolved():
            return ProviderUnreachable("The provider's host name does not resolve.", detail=detail)
        case _:
            return ProviderUnreachable("The provider cannot be reached: the connection was refused or has no route.", detail=detail)
