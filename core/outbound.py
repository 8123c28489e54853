"""Calls to vendors: the one way out. Resolve, check each address, connect to the checked address, send, read within bounds.

No redirects, no proxies from the environment, no cookies; private and special addresses only where OUTBOUND_ALLOW says so.
`core.connector` opens connections, `core.http1_pool` keeps them, `core.http1_connection` speaks on them, `core.outbound_response`
reads what comes back.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple, Protocol

from yarl import URL

from core.chat import WireCall
from core.config import TimeoutSpec
from core.connector import Connector, Resolve
from core.deadlines import Deadlines
from core.errors import OutboundRefused, ProviderTimeout
from core.guard import Guard
from core.http1 import Origin, RequestForm
from core.http1_connection import WHOLE_WRITE_BYTES, Answer, Broken, Connection
from core.http1_pool import Pool
from core.outbound_response import GuardedResponse, Watch, failure_of, response_of

# So much of an answer has to come in each `idle_s`, or it counts as silence: a vendor that sends a byte now and then to keep us
# waiting gets no further than one that sends none. Comments that keep a connection open are more.
MIN_PROGRESS_BYTES = 32
_MAX_PREPARED = 1024
_DEADLINE_TICK_S = 0.1  # how late a timeout may be noticed
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
        key = (call.url, call.method, call.body is None, ca, *call.headers)
        target = self._targets.get(key) or self._prepare(key, call, ca)
        watch = Watch(timeouts, self._deadlines, pool.loop, self._min_progress_bytes)
        try:
            answer = await self._answered(pool, target, call, timeouts)
        except BaseException as exc:
            watch.stop()
            if isinstance(exc, asyncio.CancelledError) and watch.caused_cancellation():
                message = f"The provider did not begin to answer within {watch.first_byte_s:g} seconds."
                raise ProviderTimeout(message, detail=str(target.origin)) from None
            raise
        return response_of(answer, target.origin, timeouts, watch)

    async def _answered(self, pool: Pool, target: _Target, call: WireCall, timeouts: TimeoutSpec) -> Answer:
        """Sends `call`; the answer has begun. Nothing is left of it where this raises."""
        body = call.body or b""
        head = target.form.filled(call.headers.values(), len(body))
        connection = pool.take(target.origin)
        # An idle connection may die just when it is used. Only what can be asked twice is asked again.
        again = connection is not None and call.method in _REPEATABLE
        while True:
            if connection is None:
                connection = await self._connected(pool, target.origin, timeouts)
            answer = connection.send(call.method, head, body)
            try:
                if len(body) > WHOLE_WRITE_BYTES:
                    await connection.upload(answer, body)
                while not (answer.status or answer.failure):
                    await answer.changed()
                if answer.status:
                    return answer
                if not (again and isinstance(answer.failure, Broken) and answer.failure.untouched):
                    raise failure_of(answer.failure, target.origin)
            except BaseException:
                answer.abort()
                raise
            connection, again = None, False

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
            raise failure_of(exc, origin) from exc

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
