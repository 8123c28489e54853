"""Where webhooks may go: https at public addresses, on the ports of https; anything else only where WEBHOOK_ALLOW lists it.

Asked twice: of the URL when it is handed in, and of every address that is about to be connected to.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from core.errors import GatewayError, OutboundRefused
from core.guard import Guard
from core.outbound import prepared_url

PUBLIC_PORTS = frozenset((443, 8443))
MAX_URL_CHARACTERS = 2000
# 127.1, 2130706433, 0x7f000001: addresses to some resolvers, names to others.
_NUMERIC = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)(\.(0[xX][0-9a-fA-F]*|[0-9]+))*")

Allowed = Sequence[tuple[str, int | None]]


class CallbackRefused(GatewayError):
    """This address is never called."""

    http_status, code, type = 422, "callback_not_allowed", "invalid_request_error"


class CallbackGuard(Guard):
    """Of connections: beside what `allow` lists, public addresses on `public_ports`."""

    def __init__(self, allow: Allowed, public_ports: frozenset[int]) -> None:
        super().__init__(allow)
        self._public_ports = public_ports

    def check(self, address: str, port: int) -> None:
        super().check(address, port)
        if port not in self._public_ports and not self.lists(address, port):
            raise OutboundRefused("Webhooks go to https on port 443 or 8443.", detail=f"{address} port {port}")


def guards(allow: Allowed) -> dict[str, CallbackGuard]:
    """By scheme: plain http goes only to what is listed."""
    return {"https": CallbackGuard(allow, PUBLIC_PORTS), "http": CallbackGuard(allow, frozenset())}


def host_of(url: str) -> str:
    """Host and port of a URL that `check` has let through, in lower case."""
    parsed = prepared_url(url)
    return f"{(parsed.raw_host or '').lower()}:{parsed.port}"


def check(url: str, allow: Allowed) -> None:
    """Raises CallbackRefused. A name is not looked up here: where it leads is checked when it is called."""
    try:
        if len(url) > MAX_URL_CHARACTERS:
            raise OutboundRefused("It is too long.")
        parsed = prepared_url(url)
    except OutboundRefused:
        raise _refused("write https://host/path, without spaces, user name or password") from None
    scheme, host, port = parsed.scheme, (parsed.raw_host or "").rstrip(".").lower(), parsed.port or 0
    address = "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host
    try:
        ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        _check_name(scheme, host, port, allow)
        return
    try:
        guards(allow)[scheme].check(address, port)
    except OutboundRefused:
        raise _refused("it must be https at a public address, on port 443 or 8443; others an operator allows in WEBHOOK_ALLOW") from None


def _check_name(scheme: str, host: str, port: int, allow: Allowed) -> None:
    if _NUMERIC.fullmatch(host):
        raise _refused("write an address in full, as four numbers")
    listed = any(allowed in (None, port) for _, allowed in allow)
    if not listed and (scheme != "https" or port not in PUBLIC_PORTS):
        raise _refused("it must be https, on port 443 or 8443; others an operator allows in WEBHOOK_ALLOW")


def _refused(why: str) -> CallbackRefused:
    return CallbackRefused(f"callback_url cannot be called: {why}.", param="callback_url")
