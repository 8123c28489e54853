"""Which addresses webhooks may go to: judged when a URL is handed in, and again when an address is about to be connected to."""

from __future__ import annotations

import pytest

from core.errors import OutboundRefused
from telling import callbacks
from telling.callbacks import CallbackRefused

HERE = [("127.0.0.0/8", 9000)]


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/x",
        "https://hooks.example.com:8443/x?a=b",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]/x",
        "HTTPS://Hooks.Example.com/x",
    ],
)
def test_public_https_is_taken(url: str) -> None:
    callbacks.check(url, [])


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/x",
        "http://8.8.8.8/x",
        "https://hooks.example.com:8080/x",
        "https://hooks.example.com:22/x",
        "https://8.8.8.8:6379/x",
        "https://127.0.0.1/x",
        "https://127.1/x",
        "https://2130706433/x",
        "https://0x7f000001/x",
        "https://0177.0.0.1/x",
        "https://0/x",
        "https://localhost/x",
        "https://a.localhost./x",
        "https://①②⑦.⓪.⓪.①/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00:ec2::254]/x",
        "https://user:secret@hooks.example.com/x",
        "https://hooks.example.com/x\r\nX-Injected: 1",
        "https://hooks.example.com/a b",
        "file:///etc/passwd",
        "gopher://hooks.example.com/x",
        "ftp://hooks.example.com/x",
        "hooks.example.com/x",
        "https:///x",
        "https://hooks.example.com:99999/x",
        "https://hooks.example.com/" + "x" * 2000,
    ],
)
def test_everything_else_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(CallbackRefused) as refused:
        callbacks.check(url, [])
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (422, "callback_not_allowed", "callback_url")
    assert "secret" not in refused.value.message


def test_what_is_listed_is_taken_by_exact_port() -> None:
    for url in ("http://127.0.0.1:9000/x", "https://127.0.0.1:9000/x", "http://localhost:9000/x", "http://receiver:9000/x"):
        callbacks.check(url, HERE)
    for url in ("http://127.0.0.1:9001/x", "http://10.0.0.1:9000/x", "http://receiver:9001/x", "http://8.8.8.8:9000/x"):
        with pytest.raises(CallbackRefused):
            callbacks.check(url, HERE)


def test_metadata_is_never_taken_whatever_is_listed() -> None:
    with pytest.raises(CallbackRefused):
        callbacks.check("http://169.254.169.254/x", [("0.0.0.0/0", None)])


@pytest.mark.parametrize(
    ("scheme", "address", "port", "goes"),
    [
        ("https", "8.8.8.8", 443, True),
        ("https", "8.8.8.8", 25, False),
        ("https", "10.0.0.1", 443, False),
        ("https", "127.0.0.1", 9000, True),
        ("http", "8.8.8.8", 80, False),
        ("http", "8.8.8.8", 443, False),
        ("http", "127.0.0.1", 9000, True),
        ("http", "127.0.0.1", 9001, False),
    ],
)
def test_connections_are_judged_by_where_a_name_leads(scheme: str, address: str, port: int, goes: bool) -> None:
    guard = callbacks.guards(HERE)[scheme]
    if goes:
        guard.check(address, port)
    else:
        with pytest.raises(OutboundRefused):
            guard.check(address, port)
