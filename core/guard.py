"""Which addresses may be connected to. Pure: an address and a port in, a refusal or nothing out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from core.addresses import Address
from core.errors import OutboundRefused

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
    ipaddress.ip_network(network) for network in ("192.0.0.0/24", "192.88.99.0/24", "100.64.0.0/10", "2001::/32", "2002::/16", "3fff::/20")
)
# Of IPv6 this much has been given to hosts (RFC 4291). `is_global` takes the rest for public too, such as ::ffff:0:7f00:1,
# which a translator makes 127.0.0.1 of (RFC 2765).
_UNICAST = ipaddress.IPv6Network("2000::/3")


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
        if _is_public(ip) or self._lists(ip, port):
            return
        raise OutboundRefused(
            "The provider's address is not public. An operator can allow it by its network and port in OUTBOUND_ALLOW.",
            detail=f"{ip} port {port}: add {ip}/{ip.max_prefixlen}:{port} to OUTBOUND_ALLOW if it is meant",
        )

    def lists(self, address: str, port: int) -> bool:
        """Whether `allow` names this address and port, public or not. Raises ValueError for what is no IP address."""
        return self._lists(_unwrapped(ipaddress.ip_address(address.partition("%")[0])), port)

    def _lists(self, ip: Address, port: int) -> bool:
        return any(ip in network and allowed in (None, port) for network, allowed in self._allow)


def _unwrapped(ip: Address) -> Address:
    """::ffff:127.0.0.1 is 127.0.0.1 to the kernel, so it is judged as that."""
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def _embedded_ipv4(ip: Address) -> ipaddress.IPv4Address | None:
    """Where NAT64, 6to4, Teredo and IPv4-compatible addresses really lead."""
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if ip.sixtofour or ip.teredo:
        return ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)


def _is_public(ip: Address) -> bool:
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _UNICAST:
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)
