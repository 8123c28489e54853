"""Every socket we open goes through here: resolve, check each address, connect to the checked address.

No redirects, no proxies from the environment, no cookies; private and special addresses only where OUTBOUND_ALLOW says so.

The check sits in the connector's socket factory. That is the one place which sees every address just before it is
connected to, names and IP literals alike, so nothing can change between check and use; pooled connections pay nothing.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import socket
from collections.abc import Iterable
from functools import cached_property
from typing import Protocol

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from core.chat import WireCall
from core.config import TimeoutSpec
from core.errors import OutboundRefused, ProviderError, ProviderNonsense, ProviderTimeout, ProviderTlsFailed, ProviderUnreachable

MAX_BODY_BYTES = 32 * 2**20
MAX_HEADER_BYTES = 16 * 2**10
MAX_HEADERS = 100
_MAX_PREPARED = 1024
_STREAMED_UPLOAD_BYTES = 2**20

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",  # most clouds
        "169.254.170.2",  # AWS containers
        "169.254.170.23",
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's host agent: a public address that is not one
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
    )
)
# What `is_global` lets through although it is not a host on the internet, or wraps an IPv4 address that may not be one.
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "100.64.0.0/10",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "fec0::/10",
    )
)


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


class Guard:
    """Says which addresses may be connected to: public ones, and what `allow` lists as (CIDR, port or None for every port)."""

    def __init__(self, allow: Iterable[tuple[str, int | None]] = ()) -> None:
        self._allow = tuple((ipaddress.ip_network(cidr), port) for cidr, port in allow)

    def check(self, address: str, port: int) -> None:
        """Raises OutboundRefused. `address` is an IP address as a resolver returns it, not a name."""
        try:
            ip = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            raise OutboundRefused("The provider's address is not an IP address.", detail=f"{address} port {port}") from None
        if ip in _METADATA or _embedded_ipv4(ip) in _METADATA:
            raise OutboundRefused("The provider's address serves cloud metadata; it is never called.", detail=f"{ip} port {port}")
        if _is_public(ip) or any(ip in network and allowed in (None, port) for network, allowed in self._allow):
            return
        raise OutboundRefused(
            "The provider's address is not public. An operator can allow it by its network and port in OUTBOUND_ALLOW.",
            detail=f"{ip} port {port}: add {ip}/{ip.max_prefixlen}:{port} to OUTBOUND_ALLOW if it is meant",
        )


def _unwrapped(ip: _Address) -> _Address:
    """::ffff:127.0.0.1 is 127.0.0.1 to the kernel, so it is judged as that."""
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def _embedded_ipv4(ip: _Address) -> ipaddress.IPv4Address | None:
    """Where NAT64, 6to4, Teredo and IPv4-compatible addresses really lead."""
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if ip.sixtofour or ip.teredo:
        return ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)


def _is_public(ip: _Address) -> bool:
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)


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


def _upload(body: bytes | None) -> bytes | io.BytesIO | None:
    """aiohttp writes bytes in one go and a file in pieces, so a large body goes as a file."""
    return io.BytesIO(body) if body is not None and len(body) > _STREAMED_UPLOAD_BYTES else body


class _Blocked(OSError):
    """Carries a refusal through aiohttp, which lets only OSError out of a connection attempt."""

    def __init__(self, refusal: OutboundRefused) -> None:
        super().__init__(13, refusal.message)
        self.refusal = refusal


class GuardedTransport:
    """One pool of connections, for one event loop; made on first use. `resolver` stands in for DNS in tests."""

    def __init__(
        self, guard: Guard, *, max_connections: int = 1000, max_per_host: int = 500, resolver: AbstractResolver | None = None
    ) -> None:
        self._guard = guard
        self._limits = (max_connections, max_per_host)
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[TimeoutSpec, aiohttp.ClientTimeout] = {}

    async def open(self, call: WireCall, timeouts: TimeoutSpec) -> GuardedResponse:
        """See `Transport.open`. The caller closes the response."""
        session = self._session or self._start()
        url = self._urls.get(call.url) or self._prepare(call.url)
        watch = Watch(timeouts)
        try:
            raw = await session.request(
                call.method,
                url,
                data=_upload(call.body),
                headers=call.headers,
                allow_redirects=False,
                timeout=self._timeouts.get(timeouts) or self._client_timeout(timeouts),
            )
        except asyncio.CancelledError:
            watch.stop()
            if watch.caused_cancellation():
                raise ProviderTimeout(
                    f"The provider did not begin to answer within {watch.first_byte_s:g} seconds.", detail=str(url.origin())
                ) from None
            raise
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            watch.stop()
            raise _failure(exc, url, timeouts) from exc
        return GuardedResponse(raw, timeouts, watch)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _start(self) -> aiohttp.ClientSession:
        total, per_host = self._limits
        connector = aiohttp.TCPConnector(
            limit=total, limit_per_host=per_host, socket_factory=self._checked_socket, resolver=self._resolver, ttl_dns_cache=10
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            # Uncompressed: gzip costs CPU and holds streamed events back. A vendor that compresses all the same is
            # inflated piecewise, so the byte limits below still hold.
            headers={"Accept-Encoding": "identity", "User-Agent": "llmcontrol"},
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )
        return self._session

    def _checked_socket(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        family, kind, protocol, _, address = info
        try:
            self._guard.check(str(address[0]), int(str(address[1])))
        except OutboundRefused as refusal:
            raise _Blocked(refusal) from None
        return socket.socket(family, kind, protocol)

    def _prepare(self, url: str) -> URL:
        """Parsing costs microseconds, and vendors have few URLs."""
        if len(self._urls) >= _MAX_PREPARED:
            self._urls.clear()
        return self._urls.setdefault(url, prepared_url(url))

    def _client_timeout(self, timeouts: TimeoutSpec) -> aiohttp.ClientTimeout:
        """Only `connect` is left to aiohttp, which looks at it for new connections alone; the response has its own watch."""
        if len(self._timeouts) >= _MAX_PREPARED:
            self._timeouts.clear()
        return self._timeouts.setdefault(timeouts, aiohttp.ClientTimeout(total=None, connect=timeouts.connect_s))


class Watch:
    """One timer for a whole call: first until the answer begins, then over silence and total time.

    It is moved lazily, when it fires: nothing is scheduled per chunk, and most calls schedule and cancel once.
    """

    __slots__ = ("_cancelled", "_deadline", "_loop", "_response", "_task", "_timeouts", "_timer", "first_byte_s", "now")

    def __init__(self, timeouts: TimeoutSpec) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.first_byte_s = min(timeouts.first_byte_s, timeouts.total_s)
        self._timeouts = timeouts
        self._task = asyncio.current_task()
        self._cancelled = False
        self._response: GuardedResponse | None = None
        began = self.now()
        self._deadline = began + timeouts.total_s
        self._timer: asyncio.TimerHandle | None = self._loop.call_at(began + self.first_byte_s, self._fire)

    def caused_cancellation(self) -> bool:
        """Whether the task was cancelled by this timer and by nobody else."""
        return self._cancelled and self._task is not None and self._task.uncancel() == 0

    def follow(self, response: GuardedResponse) -> None:
        """The answer has begun. The timer stands where it is, unless silence would be noticed too late."""
        self._response, self._task = response, None
        if self._timeouts.idle_s < self.first_byte_s:
            self._move(self.now() + self._timeouts.idle_s)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _move(self, silent_until: float) -> None:
        self.stop()
        self._timer = self._loop.call_at(min(silent_until, self._deadline), self._fire)

    def _fire(self) -> None:
        response = self._response
        if response is None:
            self._cancelled = True
            if self._task is not None:
                self._task.cancel()
            return
        now = self.now()
        # A reader that is not waiting is busy with its client: that is not the vendor's silence.
        silent_until = (response.waiting_since if response.waiting_since is not None else now) + self._timeouts.idle_s
        if now >= self._deadline:
            response.expire(f"The provider's answer was not complete after {self._timeouts.total_s:g} seconds.")
        elif now >= silent_until:
            response.expire(f"The provider sent nothing for {self._timeouts.idle_s:g} seconds in the middle of its answer.")
        else:
            self._move(silent_until)


class GuardedResponse:
    """A `Response`."""

    def __init__(self, raw: aiohttp.ClientResponse, timeouts: TimeoutSpec, watch: Watch) -> None:
        self.status = raw.status
        self.waiting_since: float | None = None
        self._raw = raw
        self._readany = raw.content.readany
        self._at_eof = raw.content.at_eof
        self._timeouts = timeouts
        self._now = watch.now
        self._watch = watch
        self._expired: ProviderTimeout | None = None
        watch.follow(self)

    @cached_property
    def content_type(self) -> str:
        return self._raw.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @cached_property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self._raw.headers.items()}

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
            if self._at_eof():
                self._watch.stop()
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def next_chunk(self) -> bytes:
        """See `Response.next_chunk`."""
        self.waiting_since = self._now()
        try:
            data = await self._readany()
        except Exception as exc:
            self.close()
            raise self._expired or _failure(exc, self._raw.url, self._timeouts) from exc
        self.waiting_since = None
        if not data:
            self._watch.stop()
        return data

    def close(self) -> None:
        """See `Response.close`. The socket is aborted, not shut down politely, so that the vendor stops at once."""
        self._watch.stop()
        connection = self._raw.connection
        transport = connection.transport if connection is not None else None
        self._raw.close()
        if transport is not None:
            transport.abort()

    def expire(self, message: str) -> None:
        self._expired = ProviderTimeout(message, vendor_status=self.status)
        self.close()


def _failure(exc: Exception, url: URL, timeouts: TimeoutSpec) -> ProviderError:
    """The typed error of whatever aiohttp raised. The address goes to the detail: callers need not know it."""
    detail = f"{url.origin()}: {type(exc).__name__}: {exc}"[:500]
    match exc:
        case aiohttp.ConnectionTimeoutError():
            return ProviderTimeout(f"No connection to the provider within {timeouts.connect_s:g} seconds.", detail=detail)
        case aiohttp.ClientConnectorError(os_error=_Blocked() as blocked):
            return blocked.refusal
        case aiohttp.ClientSSLError():
            return ProviderTlsFailed("No trusted TLS connection to the provider: check its certificate and host name.", detail=detail)
        case aiohttp.ClientConnectorDNSError():
            return ProviderUnreachable("The provider's host name does not resolve.", detail=detail)
        case aiohttp.ClientConnectorError():
            return ProviderUnreachable("The provider cannot be reached: the connection was refused or has no route.", detail=detail)
        case aiohttp.InvalidURL():
            return OutboundRefused("The provider's URL is not one that may be called; correct its base URL.", detail=detail)
        case aiohttp.ClientResponseError():
            return ProviderNonsense("The provider's answer is not valid HTTP.", detail=detail)
        case aiohttp.ClientError() | OSError():
            return ProviderUnreachable("The connection to the provider broke before its answer was complete.", detail=detail)
        case _:  # aiohttp's ValueError for a line break in a header; its text may repeat the header, so it is not kept
            return OutboundRefused("A header for the provider holds a line break; check the provider's key and options.")
