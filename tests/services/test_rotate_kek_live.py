"""`rotate_kek` in processes of its own: killed in the middle, twice at once, beside administrators and serving processes."""

from __future__ import annotations

import base64
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest

from core.secrets import KeyRing, sealed_under
from tests.engines import postgres_database
from tests.live import ROOT, copy_migrated, environment, manage

pytestmark = pytest.mark.process
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
SECRETS = 600
TIMEOUT_S = 60.0
WAITS_S = 1.5  # longer than PostgreSQL lets somebody wait before it looks for a deadlock, once
FILL = f"""
from providers.models import *
provider = Provider.objects.create(name="openai-main", provider_type="openai_compatible", base_url="https://vendor.example/v1")
keys = [ProviderKey(provider=provider) for _ in range({SECRETS})]
for key in keys:
    key.seal("sk-vendor-secret-0001")
ProviderKey.objects.bulk_create(keys)
"""
# As the gateway's watcher does, until its input ends: looks for a new version, and loads.
READ = """
import select, sys
from gateway.config.loader import load
from gateway.config.publisher import current_version
versions, snapshot = set(), None
while not select.select([sys.stdin], [], [], 0.01)[0]:
    if snapshot is None or current_version() != snapshot.version:
        fresh = load(None)
        assert fresh.alarms == (), fresh.alarms
        (provider,) = fresh.providers.values()
        found = {key.secret.reveal() for key in provider.keys}
        assert (len(provider.keys), found) == (%d, {"sk-vendor-secret-0001"}), (len(provider.keys), found)
        snapshot = fresh
        versions.add(fresh.version)
        print(len(versions), flush=True)
"""


def keks(**keys: bytes) -> str:
    return ",".join(f"{name[1:]}:{base64.b64encode(key).decode()}" for name, key in keys.items())


class Installation:
    """A database with secrets under key 1, and what runs on it with keys 1 and 2."""

    def __init__(self, state_dir: Path, database_url: str) -> None:
        self.url = database_url
        self.is_postgres = database_url.startswith("postgres")
        self.begin_writing = "BEGIN" if self.is_postgres else "BEGIN IMMEDIATE"
        self.env = {
            "LLM_STATE_DIR": str(state_dir),
            "DATABASE_URL": database_url,
            "KEY_ENCRYPTION_KEYS": keks(_1=OLD),
        }
        self._began: list[subprocess.Popen[str]] = []
        done = manage("shell", "-v", "0", "-c", FILL, env=self.env)
        assert done.returncode == 0, done.stderr
        self.env["KEY_ENCRYPTION_KEYS"] = keks(_1=OLD, _2=NEW)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment(self.env), stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self._began.append(process)
        return process

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return manage(*arguments, env=self.env | env, timeout_s=TIMEOUT_S)

    def connect(self) -> Any:
        """As another program: without a transaction until it begins one."""
        if self.is_postgres:
            return psycopg.connect(self.url, autocommit=True)
        return sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)

    def tokens(self) -> list[bytes]:
        with closing(self.connect()) as connection:
            return [bytes(secret) for (secret,) in connection.execute("SELECT secret FROM providers_providerkey").fetchall()]

    def ids(self) -> set[int]:
        return {sealed_under(token) for token in self.tokens()}

    def close(self) -> None:
        for process in self._began:
            process.kill()
            process.communicate()


@pytest.fixture(params=["sqlite", "postgres"])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    with nullcontext(copy_migrated(tmp_path)) if request.param == "sqlite" else postgres_database("kek", tmp_path) as url:
        made = Installation(tmp_path, url)
        yield made
        made.close()


def lines_until(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def ended(process: subprocess.Popen[str]) -> str:
    """What it said last. Fails where it failed."""
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    return out


def test_killed_in_the_middle_and_begun_again_while_others_read(installation: Installation) -> None:
    reader = installation.begin("shell", "-v", "0", "-c", READ % SECRETS)
    assert lines_until(reader, 1) == ["1\n"]
    killed = installation.begin("rotate_kek", "--batch", "5")
    assert lines_until(killed, 20)[0].startswith("0 re-sealed")
    killed.kill()
    killed.communicate()
    assert installation.ids() == {1, 2}
    done = installation.run("rotate_kek")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is left on key 1" in done.stdout
    assert installation.ids() == {2}
    assert int(ended(reader).splitlines()[-1]) > 1, "the reader saw no version but the first"
    new_alone = installation.begin("shell", "-v", "0", "-c", READ % SECRETS)
    new_alone_again = installation.run("rotate_kek", KEY_ENCRYPTION_KEYS=keks(_2=NEW))
    assert f"of {SECRETS} secrets; key 2 (current): {SECRETS}." in new_alone_again.stdout
    assert ended(new_alone) == "1\n"


def test_two_at_once_do_no_harm(installation: Installation) -> None:
    both = [installation.begin("rotate_kek", "--batch", "7") for _ in range(2)]
    said = [ended(process) for process in both]
    assert installation.ids() == {2}
    resealed = [int(text.splitlines()[-2].split()[0]) for text in said]
    assert sum(resealed) == SECRETS, "no secret is sealed anew twice"


def test_a_key_that_an_administrator_is_just_replacing_is_not_overwritten(installation: Installation) -> None:
    anew = KeyRing({1: OLD, 2: NEW}, 2).seal("sk-vendor-secret-anew", "whatever")
    with closing(installation.connect()) as administrator:
        administrator.execute(installation.begin_writing)
        (id_,) = administrator.execute("SELECT id FROM providers_providerkey ORDER BY id LIMIT 1").fetchone()
        mark = "%s" if installation.is_postgres else "?"
        administrator.execute(f"UPDATE providers_providerkey SET secret = {mark} WHERE id = {mark}", (anew, id_))
        command = installation.begin("rotate_kek")
        assert lines_until(command, 1)[0].startswith("0 re-sealed")
        time.sleep(WAITS_S)
        administrator.execute("COMMIT")
    assert ended(command).splitlines()[-2].startswith(f"{SECRETS - 1} re-sealed")
    assert anew in installation.tokens()
    assert installation.ids() == {2}


@pytest.mark.parametrize("installation", ["postgres"], indirect=True)  # SQLite locks no rows
def test_a_key_that_is_held_does_not_hold_up_the_others(installation: Installation) -> None:
    with closing(installation.connect()) as administrator:
        administrator.execute(installation.begin_writing)
        administrator.execute("SELECT id FROM providers_providerkey LIMIT 1 FOR UPDATE")
        command = installation.begin("rotate_kek")
        assert lines_until(command, 3)[2].startswith(f"{SECRETS - 1} re-sealed")
        administrator.execute("COMMIT")
    assert ended(command).splitlines()[-2].startswith(f"{SECRETS} re-sealed")


def test_who_holds_rows_and_the_version_is_given_way_to(installation: Installation) -> None:
    """A cascade holds the version from its first statement on and comes for keys that the command may have locked: on
    PostgreSQL they would wait for each other, and an administrator be the one to fail."""
    with closing(installation.connect()) as administrator:
        administrator.execute(installation.begin_writing)
        administrator.execute("UPDATE gateway_config_configversion SET version = version + 1")
        command = installation.begin("rotate_kek", "--batch", str(SECRETS))
        assert lines_until(command, 1)[0].startswith("0 re-sealed")
        time.sleep(WAITS_S)
        administrator.execute("DELETE FROM providers_providerkey WHERE id = (SELECT id FROM providers_providerkey LIMIT 1)")
        time.sleep(WAITS_S)
        administrator.execute("COMMIT")
    assert ended(command).splitlines()[-2].startswith(f"{SECRETS - 1} re-sealed")
    assert (len(installation.tokens()), installation.ids()) == (SECRETS - 1, {2})
