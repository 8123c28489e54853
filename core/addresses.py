"""Where a request comes from: the client's address behind proxies, and the networks that addresses are in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def read_address(text: str) -> Address | None:
    """None where it is none, as that of a UNIX socket. An IPv4 address in the clothes of IPv6 is the IPv4 address."""
    try:
        address = ipaddress.ip_address(text.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Raises ValueError with a sentence that names what is no network."""
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text, strict=True))
        except (ValueError, TypeError):
            raise ValueError(f"{str(text)[:60]!r} is no network: write one such as 10.1.0.0/16 or 2001:db8::/32.") from None
    return tuple(found)


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """`peer`, or where that is a trusted proxy, the last address of X-Forwarded-For that no trusted proxy has: what stands
    before it, anybody may have written."""
    if not forwarded_for or not is_within(peer, trusted):
        return peer
    for hop in reversed(forwarded_for.split(",")):
        if read_address(hop) is None:
            return peer
        if not is_within(hop, trusted):
            return hop.strip()
    return peer


def is_within(address: str, networks: Sequence[Network]) -> bool:
    ip = read_address(address)
    return ip is not None and any(ip in network for network in networks)


def party(address: str) -> str:
    """Whom to count: an IPv4 address, or the /64 that is one IPv6 customer's."""
    ip = read_address(address)
    if ip is None:
        return address
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((int(ip), 64), strict=False))
