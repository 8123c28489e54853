"""A23, A42: what is allowed is exactly that; and what an administrator types is neither a pattern nor code that is run."""

from __future__ import annotations

import ast
import asyncio
import socket
import sys
from asyncio.selector_events import BaseSelectorEventLoop
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from core.chat import WireCall
from core.errors import ConfigurationError, OutboundRefused
from core.outbound import Guard, GuardedTransport
from llmcontrol.settings import _networks
from providers import services
from providers.adapters import registry
from tests.adapters.cast import provider, quick

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "monitoring", "providers", "models_registry", "access", "gateway", "tasks", "telling", "llmcontrol")
ALLOWED = [("127.0.0.1/32", 11434)]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Addresses that would have been connected to; every name leads to a public one."""
    found: list[Any] = []

    async def refuse(self: Any, sock: socket.socket, address: Any) -> None:
        found.append(address[:2])
        raise ConnectionRefusedError(111, "stubbed")

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", refuse)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))]
    )
    return found


async def _call(url: str) -> None:
    transport = GuardedTransport(Guard(ALLOWED))
    try:
        await transport.open(WireCall(url, {}, b"{}"), quick())
    finally:
        await transport.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:11435/",
        "http://127.0.0.1/",
        "https://127.0.0.1/",
        "http://127.0.0.2:11434/",
        "http://[::1]:11434/",
        "http://127.0.0.1:11434@evil.test/",
        "http://evil.test#@127.0.0.1:11434/",
        "http://evil.test\\@127.0.0.1:11434/",
    ],
)
def test_next_to_what_is_allowed_is_not_allowed(tried: list[Any], url: str) -> None:
    with pytest.raises(Exception) as caught:
        asyncio.run(_call(url))
    assert isinstance(caught.value, OutboundRefused) or ("127.0.0.1", 11434) not in tried
    assert not [address for address, _ in tried if address.startswith(("127.", "::1"))]


@pytest.mark.parametrize("host", ["127.0.0.1.evil.test", "evil.test", "localhost.evil.test", "127-0-0-1.evil.test"])
def test_a_name_that_looks_like_it_is_judged_by_its_address(tried: list[Any], host: str) -> None:
    with pytest.raises(Exception, match="cannot be reached"):
        asyncio.run(_call(f"http://{host}:11434/"))
    assert tried == [("8.8.8.8", 11434)]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_is_not_asked(tried: list[Any], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:11434")
    with pytest.raises(Exception, match="cannot be reached"):
        asyncio.run(_call("http://evil.test:80/"))
    assert tried == [("8.8.8.8", 80)]


@pytest.mark.parametrize(
    "entry",
    [
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1/8:80",
        "localhost:80",
        "*:80",
        "0/0:80",
        "10.0.0.0/33:80",
        "::1",
        ":80",
        "a",
    ],
)
def test_an_allowance_that_could_be_read_in_two_ways_is_refused(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.setenv("OUTBOUND_ALLOW", entry)
    with pytest.raises(ConfigurationError, match="OUTBOUND_ALLOW"):
        _networks("OUTBOUND_ALLOW")


# Custom adapters ------------------------------------------------------------------------------------------------------

SPRUNG = [
    "antigravity:fly",
    "this:s",
    "os:system",
    "subprocess:Popen",
    "builtins:exec",
    "tests.security.trap:Trap",
    "..x:Y",
    "a b:c",
    "x" * 5000,
]


@pytest.mark.django_db
@pytest.mark.parametrize("adapter", SPRUNG)
def test_no_module_is_imported_because_a_form_names_it(adapter: str) -> None:
    before = set(sys.modules)
    with pytest.raises(ValidationError, match="LLM_CUSTOM_ADAPTERS"):
        services.create_provider(name="p", provider_type="custom", base_url="https://vendor.example", options={"adapter": adapter})
    with pytest.raises(ConfigurationError, match="LLM_CUSTOM_ADAPTERS"):  # a row that came into the database past the form
        registry.adapter_for(provider("custom", options={"adapter": adapter}))
    assert not {name for name in set(sys.modules) - before if adapter.startswith(name)}


# A42 ------------------------------------------------------------------------------------------------------------------


def test_no_pattern_is_made_of_what_somebody_entered() -> None:
    """There is no field for a pattern. Should one come, this finds `re` given something else than a text that stands in the code."""
    made = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            made += [f"{path.relative_to(ROOT)}:{call.lineno}" for call in _calls(path) if not _is_literal(call.args[0])]
    assert made == []


def _calls(path: Path) -> list[ast.Call]:
    """Of functions of `re` and `fnmatch`, whose first argument is a pattern, or the second. What a module does when it is imported
    has heard nobody yet."""
    functions = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    found = []
    for node in (node for function in functions for node in ast.walk(function)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re" | "fnmatch")), args=[_, *_]):
                found.append(node)
    return found


def _is_literal(value: ast.expr) -> bool:
    """A text, or texts put together."""
    kinds = (ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.BinOp, ast.operator)
    return all(isinstance(part, kinds) for part in ast.walk(value))
