"""Real services that keep key-encryption keys, each in a process of its own: OpenBao (Vault's API), and moto for AWS KMS."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.secrets import Kek
from providers import kek
from providers.vault import key_ring
from tests.live import ROOT

BIN = ROOT / ".venv-kms" / "bin"
START_TIMEOUT_S = 60.0
TOKEN = "planted-root-token-of-openbao"
# boto3 finds these by itself.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "planted-access-key", "AWS_SECRET_ACCESS_KEY": "planted-secret-access-key"}


def require(name: str) -> Path:
    for library in ("hvac", "boto3"):
        if importlib.util.find_spec(library) is None:
            _refuse(f"{library} is not installed: make setup")
    if not (BIN / name).exists():
        _refuse(f".venv-kms has no {name}: make test-kms installs it")
    return BIN / name


def _refuse(reason: str) -> None:
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Service:
    """`reference` as in KEY_ENCRYPTION_KEYS; `env`: what a process needs to reach it; `admin`: a client that may do anything."""

    reference: str
    env: dict[str, str]
    admin: Any
    process: subprocess.Popen[bytes]

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def begin(command: list[str | Path], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"}, stdout=log, stderr=log)


def when_ready(attempt: Any, process: subprocess.Popen[bytes]) -> Any:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return attempt()
        except Exception:
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise
            time.sleep(0.1)


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    program = require("bao")
    import hvac

    address = f"127.0.0.1:{free_port()}"
    options = ["-dev", "-dev-no-store-token", f"-dev-root-token-id={TOKEN}", f"-dev-listen-address={address}"]
    process = begin([program, "server", *options], tmp_path_factory.mktemp("bao"))
    try:
        admin = hvac.Client(url=f"http://{address}", token=TOKEN)
        when_ready(lambda: admin.sys.enable_secrets_engine("transit"), process)
        admin.secrets.transit.create_key("llmcontrol")
        yield Service("vault:llmcontrol", {"VAULT_ADDR": f"http://{address}", "VAULT_TOKEN": TOKEN}, admin, process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    program = require("moto_server")
    import boto3

    port = free_port()
    process = begin([program, "-H", "127.0.0.1", "-p", str(port)], tmp_path_factory.mktemp("moto"))
    env = CREDENTIALS | {"AWS_REGION": "eu-central-1", "AWS_KMS_ENDPOINT": f"http://127.0.0.1:{port}"}
    try:
        admin = boto3.client(
            "kms",
            region_name=env["AWS_REGION"],
            endpoint_url=env["AWS_KMS_ENDPOINT"],
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        made = when_ready(admin.create_key, process)["KeyMetadata"]
        yield Service(f"aws:{made['Arn']}", env, admin, process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["vault", "aws"])
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def configured(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Points the settings at services, with a time limit that tests can wait for, and puts the ring's keys there."""

    def configure(keys: dict[int, bytes | str], *services: Service, **others: Any) -> None:
        settings.KEK_TIMEOUT_S = 2.0
        for each in services:
            for name, value in each.env.items():
                monkeypatch.setenv(name, value)
                setattr(settings, name, value)
        settings.VAULT_TOKEN = lambda: TOKEN
        for name, value in others.items():
            setattr(settings, name, value)
        settings.KEY_ENCRYPTION_KEYS = keys
        key_ring.cache_clear()

    yield configure
    key_ring.cache_clear()


@pytest.fixture
def bare(service: Service, configured: Any) -> Kek:
    """The service's KEK without its cache."""
    configured({2: service.reference}, service)
    built: Any = kek.build(service.reference)
    inner: Kek = built._kek
    return inner
