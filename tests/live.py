"""A whole gateway in a process of its own, set up and driven as a script would: by `quickstart --json`."""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llmcontrol import bootstrap, seeds

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
# What the tests' own settings, or the developer's shell, would hand down. The server is to read its state folder instead.
_NOT_HANDED_DOWN = (
    "DATABASE_URL",
    "REDIS_URL",
    "SECRET_KEY",
    "KEY_ENCRYPTION_KEYS",
    "API_KEY_PEPPER",
    "AUDIT_KEY",
    "OUTBOUND_ALLOW",
    "LOCAL_MODEL_ENDPOINT",
    "PYTHONDONTWRITEBYTECODE",
    *seeds.KEYS.values(),
)
# What decides which database it is, and what in it is sealed and signed with.
_OF_THE_DATABASE = frozenset({"DATABASE_URL", "SECRET_KEY", "KEY_ENCRYPTION_KEYS", "API_KEY_PEPPER", "AUDIT_KEY", "LLM_AUDIT_CHECKPOINTS"})


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any setting of the product, plus `extra`. What one process has compiled, the next ones find."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_", "DJANGO_"))}
    for name in _NOT_HANDED_DOWN:
        kept.pop(name, None)
        kept.pop(f"{name}_FILE", None)
    return {**kept, "LLM_SHUTDOWN_GRACE_S": "5", **(extra or {})}


def manage(*arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Runs one command of manage.py to its end."""
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    return subprocess.run(command, env=environment(env), capture_output=True, text=True, timeout=timeout_s, check=False)


@cache
def _migrated_folder() -> Path:
    """A state folder with secrets and a database without rows of anybody's: most of what a first start takes."""
    folder = Path(tempfile.mkdtemp(prefix="llmcontrol-migrated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bootstrap.write_settings(folder, environment())
    done = manage("migrate", "--verbosity", "0", env={"LLM_STATE_DIR": str(folder)}, timeout_s=START_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return folder


def copy_migrated(folder: Path) -> str:
    """Gives `folder` secrets, and a SQLite database that is migrated with them. Returns the database's URL."""
    shutil.copytree(_migrated_folder(), folder, dirs_exist_ok=True)
    return f"sqlite:///{folder / 'llmcontrol.sqlite3'}"


class LiveServer:
    """A context manager; the attributes are those of the JSON line, plus `pid`, `state_dir` and `log` (a path).

    `model` given is quickstart's option (echo, local, none); the attribute `model` is the alias that answers. An empty `state_dir`
    is given a copy of secrets and database that are the same for every server of this process, unless it is to start `from_nothing`.
    """

    base_url: str
    admin_url: str
    username: str
    password: str | None
    api_key: str | None
    admin_token: str | None
    model: str | None

    def __init__(
        self,
        state_dir: Path | str,
        *,
        model: str = "echo",
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        port: int = 0,
        from_nothing: bool = False,
    ) -> None:
        self.state_dir = Path(state_dir)
        self._from_nothing = from_nothing or not _OF_THE_DATABASE.isdisjoint(env or ())
        self.log = self.state_dir / "server.log"
        self.exit_status: int | None = None
        self.said: dict[str, Any] = {}
        self._env = environment(env)
        self._options = ["--json", "--port", str(port), "--state-dir", str(self.state_dir), "--model", model, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LiveServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process

    def start(self) -> None:
        """Returns when the gateway is ready. Fails with the end of its log."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        if not self._from_nothing and not any(self.state_dir.iterdir()):
            copy_migrated(self.state_dir)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "quickstart", *self._options],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            self.said = json.loads(self._first_line())
        except BaseException:
            self.stop()
            raise
        for name, value in self.said.items():
            setattr(self, name, value)

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """As Ctrl-C or a service manager would; a server that does not end is killed, by its id. More than once is fine."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(sig)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.exit_status = self._process.returncode
        assert self._process.stdout is not None
        self._process.stdout.close()

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def _first_line(self) -> bytes:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT_S)
        line = self.process.stdout.readline() if readable else b""
        assert line, f"quickstart did not get ready; its log ends with:\n{self.log_tail()}"
        return line


def children_of(pid: int) -> list[int]:
    """Process ids, read from /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended while we looked
            if int(after_name[1]) == pid:
                found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    """A process that has ended and waits to be collected is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone_within(pids: Sequence[int], timeout_s: float = STOP_TIMEOUT_S) -> bool:
    give_up_at = time.monotonic() + timeout_s
    while any(alive(pid) for pid in pids):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.02)
    return True
