"""Opening connections: resolve, check each address, connect to the checked address, TLS with every check on.

The check sits in the socket factory. That is the one place which sees every address just before it is connected to, names
and IP literals alike, so nothing can change between check and use; pooled connections pay nothing.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiohappyeyeballs import start_connection

from core.errors import OutboundRefused
from core.guard import Guard
from core.http1 import Origin
from core.http1_connection import Connection

Resolve = Callable[[str, int], Awaitable[list[str]]]

NAMES_KEPT_S = 10.0
_MAX_NAMES = 1024
_MAX_CONTEXTS = 256
_NEXT_ADDRESS_AFTER_S = 0.25  # RFC 8305


def tls_trusting(ca: str) -> ssl.SSLContext:
    """With every check on. `ca`: certificates (PEM) that are trusted, and no others; "" = the system's. Raises ssl.SSLError."""
    tls = ssl.create_default_context(cadata=ca or None)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.set_alpn_protocols(["http/1.1"])
    return tls


class NameUnresolved(OSError):
    """No address for a host name."""


class Unreached(OSError):
    """No address took the connection. `os_error` is what the system said of it."""

    def __init__(self, os_error: OSError | RuntimeError) -> None:
        super().__init__(str(os_error))
        self.os_error = os_error


class Connector:
    """For one event loop at a time. `resolve` gives the IP addresses of (host, port); by default the system's resolver does."""

    def __init__(self, guard: Guard, *, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._guard = guard
        self._resolve = resolve or _system_addresses
        # By the authorities that are trusted, "" = the system's.
        self._tls: dict[str, ssl.SSLContext] = {} if tls is None else {"": tls}
        self._names: dict[tuple[str, int], tuple[float, asyncio.Task[list[str]]]] = {}

    async def connect(self, origin: Origin) -> Connection:
        """Raises OutboundRefused where no address may be called, NameUnresolved, Unreached, ssl.SSLError, OSError."""
        loop = asyncio.get_running_loop()
        addresses = [origin.host] if _is_address(origin.host) else await self._addresses(origin.host, origin.port)
        tls: dict[str, Any] = {}
        if origin.scheme == "https":
            tls = {"ssl": self._tls.get(origin.ca) or self._start_tls(origin.ca), "server_hostname": origin.host.rstrip(".")}
        sock = await self._reached(addresses, origin.port)
        _, connection = await loop.create_connection(lambda: Connection(origin, sock, loop), sock=sock, **tls)
        return connection

    def forget(self) -> None:
        """Every name is asked for anew."""
        self._names.clear()

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Asked once for all who want to know at the same time, and kept for NAMES_KEPT_S; a failure is not kept."""
        now = asyncio.get_running_loop().time()
        expires_at, lookup = self._names.get((host, port), (now, None))
        if lookup is None or expires_at <= now:
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            lookup = asyncio.ensure_future(self._lookup(host, port))
            lookup.add_done_callback(partial(self._drop_failed, (host, port)))
            self._names[host, port] = (now + NAMES_KEPT_S, lookup)
        return await asyncio.shield(lookup)

    async def _lookup(self, host: str, port: int) -> list[str]:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise NameUnresolved(str(exc)) from exc
        if not addresses:
            raise NameUnresolved("no address")
        return addresses

    def _drop_failed(self, name: tuple[str, int], lookup: asyncio.Task[list[str]]) -> None:
        failed = lookup.cancelled() or lookup.exception() is not None
        if failed and self._names.get(name, (0.0, None))[1] is lookup:
            del self._names[name]

    def _start_tls(self, ca: str) -> ssl.SSLContext:
        """Reading certificates takes memory and milliseconds: done when first needed. Raises ssl.SSLError where `ca` is none."""
        if len(self._tls) >= _MAX_CONTEXTS:
            self._tls = {name: tls for name, tls in self._tls.items() if not name}
        tls = self._tls[ca] = tls_trusting(ca)
        return tls

    async def _reached(self, addresses: list[str], port: int) -> socket.socket:
        """The first of `addresses` that answers; those that may not be called are skipped, and named if nothing else is left."""
        refused: list[OutboundRefused] = []

        def checked_socket(info: tuple[Any, ...]) -> socket.socket:
            family, kind, protocol, _, address = info
            try:
                self._guard.check(address[0], address[1])
            except OutboundRefused as refusal:
                refused.append(refusal)
                raise OSError(errno.EACCES, refusal.message) from None
            made = socket.socket(family, kind, protocol)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made

        infos = [_address_info(address, port) for address in addresses]
        try:
            return await start_connection(infos, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER_S, socket_factory=checked_socket)
        except (OSError, RuntimeError) as exc:
            if len(refused) == len(infos):
                raise refused[0] from None
            raise Unreached(exc) from exc


async def _system_addresses(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(info[4][0]) for info in infos]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _address_info(address: str, port: int) -> tuple[Any, ...]:
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)
