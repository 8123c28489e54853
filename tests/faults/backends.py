"""The two ways the product keeps its rows, each migrated once in a run and copied for every stage."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import clean_environment
from tests.faults.services import Postgres, Redis, require_services
from tests.live import ROOT

SQLITE, POSTGRES = "sqlite", "postgres+redis"
ON_SQLITE = pytest.mark.parametrize("backend", [SQLITE], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("backend", [POSTGRES], indirect=True)
SQLITE_FILE = "llmcontrol.sqlite3"
SECRETS = {
    "SECRET_KEY": "planted-signing-key-of-more-than-32-characters",
    "KEY_ENCRYPTION_KEYS": "1:" + base64.b64encode(b"planted-key-encryption-key-32-by").decode(),
    "API_KEY_PEPPER": "planted-pepper-of-more-than-thirty-two-characters",
}


class Services:
    """What a stage's machines share. `env` says so to the product."""

    def __init__(self, folder: Path, postgres: Postgres | None = None, redis: Redis | None = None) -> None:
        self.folder = folder
        self.postgres, self.redis = postgres, redis
        self.env = {**SECRETS, "DATABASE_URL": postgres.url if postgres else f"sqlite:///{folder / SQLITE_FILE}"}
        if redis:
            self.env["REDIS_URL"] = redis.url

    def logs(self) -> list[Path]:
        return [service.log for service in (self.postgres, self.redis) if service]

    def close(self) -> None:
        for service in (self.postgres, self.redis):
            if service:
                service.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Template:
    """A migrated, empty product with an administrator, a token and an API key: `credentials`."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._folder = _folder()
        self._postgres: Postgres | None = None
        services = Services(self._folder)
        if backend == POSTGRES:
            require_services()
            self._postgres = Postgres(_below(self._folder, "postgres"))
            self._postgres.initialize()
            services = Services(self._folder, self._postgres)
        self.credentials = _prepared(services.env, self._folder)
        if self._postgres:
            self._postgres.stop()

    def services(self, postgres_settings: Mapping[str, str] | None = None) -> Services:
        """Running, with a copy of everything."""
        folder = _folder()
        if self._postgres is None:
            shutil.copy(self._folder / SQLITE_FILE, folder / SQLITE_FILE)
            return Services(folder)
        postgres, redis = Postgres(_below(folder, "postgres"), postgres_settings), Redis(_below(folder, "redis"))
        postgres.copy_of(self._postgres)
        try:
            postgres.start()
            redis.start()
        except BaseException:
            Services(folder, postgres, redis).close()
            raise
        return Services(folder, postgres, redis)

    def close(self) -> None:
        if self._postgres:
            self._postgres.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _folder() -> Path:
    """Not pytest's: PostgreSQL runs as a user of its own, who may not look into that one."""
    folder = Path(tempfile.mkdtemp(dir=_root()[0]))
    folder.chmod(0o755)
    return folder


@cache
def _root() -> tuple[Path, subprocess.Popen[bytes]]:
    """For all of this process's, and a shell that removes it when its pipe says that we have ended, however that came."""
    root = Path(tempfile.mkdtemp(prefix="llmcontrol-stage-"))
    root.chmod(0o755)
    command = ["sh", "-c", 'cat; sleep 1; rm -rf "$0"', str(root)]  # a second for the servers to be gone
    return root, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)


def _below(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def _prepared(env: Mapping[str, str], folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.faults.prepare"]
    state = {**env, "LLM_STATE_DIR": str(folder)}
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(**state), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
