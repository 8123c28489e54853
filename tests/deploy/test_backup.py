"""The drill: filled, backed up under load, wiped, restored, the books and the trail verified, a request answered."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from tests.e2e import wire
from tests.e2e.control import Control, until
from tests.engines import SERVER, postgres_database
from tests.live import LiveServer, manage

pytestmark = pytest.mark.process
CLIENTS = 4
# In one process: starting one is most of what each of them takes.
CHECKED = """
from django.core.management import call_command
for command in ("migrate", "replay_journal", "ledger_check", "verify_audit"):
    print(command)
    call_command(command)
"""


class Place(NamedTuple):
    """An installation: `wipe` leaves nothing of it but the secrets."""

    state_dir: Path
    env: dict[str, str]
    engine: str
    wipe: Callable[[], None]

    def manage(self, *arguments: str) -> tuple[int, str]:
        done = manage(*arguments, env={**self.env, "LLM_STATE_DIR": str(self.state_dir)}, timeout_s=120)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    state_dir = tmp_path / "state"

    def wipe_folder() -> None:
        for path in state_dir.iterdir():
            if path.name != "settings.env":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    if request.param == "sqlite":
        yield Place(state_dir, {}, "sqlite", wipe_folder)
        return
    with postgres_database("backup", state_dir) as url, psycopg.connect(f"{SERVER}/postgres", autocommit=True) as admin:
        name = url.rpartition("/")[2]

        def wipe() -> None:
            wipe_folder()
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            admin.execute(f"CREATE DATABASE {name}")

        yield Place(state_dir, {"DATABASE_URL": url}, "postgresql", wipe)


class Load:
    """Clients that ask without a pause; `answered` holds the ids of what was answered well."""

    def __init__(self, live: LiveServer) -> None:
        self.answered: list[str] = []
        self._live, self._over = live, threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for client in self._clients:
            client.start()

    def stop(self) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            answer = wire.chat(self._live.base_url, self._live.api_key or "", self._live.model or "")
            assert answer.status == 200, answer.body
            self.answered.append(answer.headers["x-request-id"])


def on_record(place: Place, wanted: Mapping[str, None]) -> int:
    """How many of these requests have a usage record."""
    if place.engine == "sqlite":
        with sqlite3.connect(place.state_dir / "llmcontrol.sqlite3") as rows:
            found = rows.execute("SELECT request_id FROM monitoring_usagerecord WHERE error_code = ''").fetchall()
        rows.close()
    else:
        with psycopg.connect(place.env["DATABASE_URL"]) as connection:
            found = connection.execute("SELECT request_id FROM monitoring_usagerecord WHERE error_code = ''").fetchall()
    return sum(row[0] in wanted for row in found)


def test_a_drill(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar.gz"
    with LiveServer(place.state_dir, env={**place.env, "LLM_DRAIN_INTERVAL_S": "0.05"}) as live:
        key, model = live.api_key or "", live.model or ""
        control = Control(live.base_url, live.admin_token or "", key)
        control.new_key()  # something in the audit trail
        load = Load(live)
        try:
            until(lambda: len(load.answered) >= 20, "twenty answers", timeout_s=60)
            before = dict.fromkeys(load.answered)
            status, said = place.manage("backup", str(file))
            assert status == 0, said
            assert "The secrets are NOT in it" in said
            (told,) = control.call("GET", "/api/v1/audit?action=exported")["results"]
            assert told["actor"].startswith("manage.py backup (")
            assert told["changes"] == {"what": [None, "a backup"], "where": [None, f"{socket.gethostname()}:{file}"]}
            refused = place.manage("restore", str(file))
            assert refused[0] == 1
            assert "runs on" in refused[1]
        finally:
            load.stop()
    assert file.stat().st_mode & 0o777 == 0o600
    stopped = place.manage("restore", str(file))
    assert stopped[0] == 1
    assert "Nothing was changed" in stopped[1]

    place.wipe()
    status, said = place.manage("restore", str(file))
    assert status == 0, said
    status, said = place.manage("shell", "-v", "0", "-c", CHECKED)
    assert status == 0, said
    assert on_record(place, before) == len(before), "answered before the backup began, and not in it"
    with LiveServer(place.state_dir, env=place.env) as live:
        assert live.api_key is None, "the restored installation knows its credentials"
        assert wire.chat(live.base_url, key, model).status == 200


@pytest.fixture
def backed_up(tmp_path: Path) -> tuple[Place, Path]:
    """An empty installation on SQLite, and a backup of it with its secrets."""
    place = Place(tmp_path / "state", {}, "sqlite", lambda: None)
    with LiveServer(place.state_dir, model="none"):
        status, said = place.manage("backup", str(tmp_path / "backup"), "--include-secrets")
    assert status == 0, said
    assert "The secrets are in it" in said
    return place, tmp_path / "backup"


def test_a_backup_with_secrets_needs_nothing_else(backed_up: tuple[Place, Path], tmp_path: Path) -> None:
    place, file = backed_up
    shutil.rmtree(place.state_dir)
    place.state_dir.mkdir()
    with tarfile.open(file) as archive:
        archive.extract("settings.env", place.state_dir, filter="data")
    status, said = place.manage("restore", str(file))
    assert status == 0, said
    assert not [path for path in place.state_dir.rglob("*") if path.stat().st_mode & 0o077], "readable by its owner alone"
    assert place.manage("verify_audit")[0] == 0


def test_what_cannot_be_restored_changes_nothing(backed_up: tuple[Place, Path], tmp_path: Path) -> None:
    place, file = backed_up
    over = place.manage("backup", str(file))
    assert over[0] == 1
    assert "is there already" in over[1]
    for path in place.state_dir.iterdir():
        if path.name != "settings.env":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    cut, altered = tmp_path / "cut", tmp_path / "altered"
    cut.write_bytes(file.read_bytes()[:-2000])
    unpacked = tmp_path / "unpacked"
    with tarfile.open(file) as archive:
        archive.extractall(unpacked, filter="data")
    (unpacked / "database").write_bytes(b"another")
    with tarfile.open(altered, "w:gz") as archive:
        archive.add(unpacked, "")
    for bad, why in (
        (cut, "is no whole backup"),
        (altered, "damaged or of another version (database)"),
        (tmp_path / "none", "no whole backup"),
    ):
        status, said = place.manage("restore", str(bad))
        assert status == 1
        assert why in said
        assert "Nothing was changed" in said
    assert not list(place.state_dir.glob(".restore-*"))
    assert place.manage("restore", str(file))[0] == 0
