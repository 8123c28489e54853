"""The two engines of tasks, as whole installations: SQLite with a server alone, PostgreSQL with workers in processes of their own."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg

from llmcontrol import bootstrap
from tests.gateway_config.test_postgres import SERVER, require_server
from tests.live import ROOT, environment, manage

STARTS_WITHIN_S = 120.0
ENDS_WITHIN_S = 60.0


@contextmanager
def postgres_database(name: str, state_dir: Path | None = None) -> Iterator[str]:
    """The URL of a new database, which is gone afterwards; it is migrated, with secrets that `state_dir` is given.

    Skips where there is no server.
    """
    require_server()
    template, secrets = _migrated_database()
    if state_dir is not None:
        shutil.copytree(secrets, state_dir, dirs_exist_ok=True)
    name = f"llmcontrol_{name}_{os.getpid()}"
    with psycopg.connect(f"{SERVER}/postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield f"{SERVER}/{name}"
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@cache
def _migrated_database() -> tuple[str, Path]:
    """The name of a database that others are copies of, and a state folder with the secrets that it was migrated with."""
    name, folder = f"llmcontrol_template_{os.getpid()}", Path(tempfile.mkdtemp(prefix="llmcontrol-migrated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bootstrap.write_settings(folder, environment())
    _on_server(f"CREATE DATABASE {name}")
    atexit.register(_on_server, f"DROP DATABASE {name} WITH (FORCE)")
    env = {"LLM_STATE_DIR": str(folder), "DATABASE_URL": f"{SERVER}/{name}"}
    done = manage("migrate", "--verbosity", "0", env=env, timeout_s=STARTS_WITHIN_S)
    assert done.returncode == 0, done.stderr
    return name, folder


def _on_server(statement: str) -> None:
    with psycopg.connect(f"{SERVER}/postgres", autocommit=True) as admin:
        admin.execute(statement)


class TaskWorker:
    """`manage.py worker` on a state folder that is set up; `env` are settings."""

    def __init__(self, state_dir: Path, *, concurrency: int, env: Mapping[str, str]) -> None:
        """Returns when it is ready."""
        command = [sys.executable, str(ROOT / "manage.py"), "worker", "--concurrency", str(concurrency)]
        self.log = state_dir / f"worker-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment({"LLM_STATE_DIR": str(state_dir), **env}), stdout=log, stderr=log)
        give_up_at = time.monotonic() + STARTS_WITHIN_S
        while "the worker is ready" not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > give_up_at:
                self.kill()
                raise AssertionError(f"the worker did not get ready: {self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, sig: int = signal.SIGTERM) -> int:
        """Its exit status, or -9 where it had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode
