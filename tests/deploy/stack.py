"""What deploy/compose.yaml starts, without containers: PostgreSQL, Redis, two gateways and two workers with state folders of their own, and
nginx with the shipped file in front."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import wire
from tests.e2e.control import Control
from tests.faults.backends import POSTGRES, SECRETS, Template
from tests.faults.machine import Machine
from tests.faults.processes import bound, clean_environment, free_port, until
from tests.live import ROOT

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
NGINX_AROUND = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/llmcontrol.conf;
}}
"""


@contextmanager
def nginx(folder: Path, *ports: int) -> Iterator[int]:
    """Its port: nginx with deploy/nginx.conf before servers on `ports`. Skips where it is not installed."""
    if NGINX is None:
        assert os.environ.get("REQUIRE_SERVICES") != "1", "nginx is not installed, and REQUIRE_SERVICES=1 wants it"
        pytest.skip("nginx is not installed")
    port = free_port()
    servers = " ".join(f"server 127.0.0.1:{each};" for each in ports)
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    for shipped, here in (("listen 80;", f"listen 127.0.0.1:{port};"), ("server 127.0.0.1:8000;", servers)):
        assert text.count(shipped) == 1
        text = text.replace(shipped, here)
    (folder / "llmcontrol.conf").write_text(text)
    main = folder / "nginx.conf"
    main.write_text(NGINX_AROUND.format(folder=folder, user="user root;" if os.geteuid() == 0 else ""))
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(bound([NGINX, "-p", str(folder), "-c", str(main)]), stdout=output, stderr=output)
    try:
        until(lambda: _listens(port), "nginx listens", timeout_s=10)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    try:
        return wire.call(f"http://127.0.0.1:{port}", "GET", "/health", timeout_s=2).status > 0
    except OSError:
        return False


class Worker:
    """`manage.py worker`."""

    def __init__(self, state_dir: Path, env: Mapping[str, str]) -> None:
        """Returns when it is ready."""
        self.log = state_dir / "worker.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                bound([sys.executable, "manage.py", "worker", "--concurrency", "200"]),
                cwd=ROOT,
                env=clean_environment(**env, LLM_STATE_DIR=str(state_dir)),
                stdout=log,
                stderr=log,
            )
        until(self._ready, "the worker is ready", timeout_s=120)

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        return "the worker is ready" in self.log.read_text()

    def end(self) -> int:
        """Its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Everywhere(Control):
    """The control plane through nginx. What is in force is asked of each gateway: behind nginx, one may know a change that another has not
    seen yet."""

    def __init__(self, base_url: str, token: str, key: str, machines: list[Machine]) -> None:
        super().__init__(base_url, token, key)
        self.authorization = {"Authorization": f"Token {token}"}
        self.machines = machines

    def models(self, key: str | None = None) -> dict[str, dict[str, Any]]:
        """Of those that every gateway offers alike."""
        offered = [each.models(key or self.key) for each in self._each()]
        return {alias: model for alias, model in offered[0].items() if all(other.get(alias) == model for other in offered)}

    def forgot(self, key: str) -> bool:
        return all(each.forgot(key) for each in self._each())

    def _each(self) -> list[Control]:
        return [Control(machine.base_url, "", self.key) for machine in self.machines]


@contextmanager
def stack(folder: Path, settings: Mapping[str, str]) -> Iterator[Everywhere]:
    """Everything, ready; `settings` are the gateways' and workers'. All of it ends in good order, which is part of what it shows."""
    with ExitStack() as undo:
        template = Template(POSTGRES)
        undo.callback(template.close)
        services = template.services()
        undo.callback(services.close)
        env = {**SECRETS, **services.env, "LLM_SHUTDOWN_GRACE_S": "5", **settings}
        machines: list[Machine] = []
        workers: list[Worker] = []
        for number in (1, 2):
            state_dir = folder / f"app-{number}"
            state_dir.mkdir()
            machine = Machine(state_dir, {**env, "LLM_MAX_WORKERS": "0"}, 1, [])
            machine.start()
            undo.callback(_ended, machine)
            machines.append(machine)
        for number in (1, 2):
            state_dir = folder / f"worker-{number}"
            state_dir.mkdir()
            workers.append(Worker(state_dir, env))
            undo.callback(_finished, workers[-1])
        port = undo.enter_context(nginx(folder, *(machine.port for machine in machines)))
        said = template.credentials
        yield Everywhere(f"http://127.0.0.1:{port}", said["admin_token"], said["api_key"], machines)


def _ended(machine: Machine) -> None:
    machine.terminate()
    assert machine.wait() == 0, machine.log_tail()


def _finished(worker: Worker) -> None:
    assert worker.end() == 0, worker.log.read_text()[-2000:]
