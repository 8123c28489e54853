from __future__ import annotations

import ipaddress

import pytest

from core.addresses import client_address, is_within, party, read_networks

TRUSTED = read_networks(["192.0.2.0/24"])


def test_networks_are_read_strictly() -> None:
    assert read_networks(["10.1.0.0/16", "::1"]) == (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("::1/128"))
    for text in ("10.1.2.3/16", "anywhere", "", "10.1.0.0/33"):
        with pytest.raises(ValueError, match="is no network: write one such as"):
            read_networks([text])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),
        ("192.0.2.1", "198.51.100.1", "198.51.100.1"),
        ("192.0.2.1", "10.0.0.1, 198.51.100.1", "198.51.100.1"),
        ("192.0.2.1", "198.51.100.1, 192.0.2.9", "198.51.100.1"),
        ("192.0.2.1", "192.0.2.8, 192.0.2.9", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.1, nonsense", "192.0.2.1"),
        ("192.0.2.1", "", "192.0.2.1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_the_last_that_no_proxy_of_ours_has(peer: str, forwarded: str, client: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == client


def test_within_and_whom_to_count() -> None:
    assert is_within("::ffff:192.0.2.5", TRUSTED)
    assert not is_within("nonsense", TRUSTED)
    assert party("::ffff:192.0.2.5") == "192.0.2.5"
    assert party("2001:db8:1:2:3:4:5:6") == party("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert party("") == ""
