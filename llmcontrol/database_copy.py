"""The whole database into one file and back, while others write to it: SQLite's own online backup, PostgreSQL's own pg_dump."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

from django.db import connection

from core.errors import ConfigurationError


class CopyFailed(Exception):
    """Its text says what happened and what to do."""


def engine() -> str:
    """sqlite | postgresql"""
    return connection.vendor


def dump(target: Path) -> None:
    """As of one moment. Raises CopyFailed, DatabaseError; ConfigurationError where a program is missing."""
    if engine() == "sqlite":
        connection.ensure_connection()
        copy = sqlite3.connect(target)
        try:
            # In one step: it reads as of one moment and lets others write. In several it would begin anew whenever they do.
            connection.connection.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            (said,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            copy.close()
        if said != "ok":
            raise CopyFailed(f"the database itself is damaged ({said}): restore an earlier backup")
    else:
        _run("pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}")


def is_empty() -> bool:
    """Whether there is no table at all. Raises DatabaseError."""
    return not connection.introspection.table_names()


def load(source: Path) -> None:
    """Into an empty database. Raises CopyFailed; then nothing has changed. ConfigurationError as `dump`."""
    if engine() == "sqlite":
        path = Path(connection.settings_dict["NAME"])
        connection.close()
        for left in (path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            left.unlink(missing_ok=True)
        draft = path.with_name(f"{path.name}.restored")
        shutil.copyfile(source, draft)
        draft.chmod(0o600)
        os.replace(draft, path)
    else:
        _run("pg_restore", "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", str(source))


def _run(program: str, *options: str) -> None:
    """With the address as Django's `dbshell` has it: the password goes by the environment, where no list of processes shows it."""
    if shutil.which(program) is None:
        raise ConfigurationError(
            f"{program} is not installed: it comes with PostgreSQL's client programs, of the server's version or newer"
        )
    (_, *where, name), extra = connection.client.settings_to_cmd_args_env(connection.settings_dict, [])
    done = subprocess.run(
        [program, *options, *where, f"--dbname={name}"], env={**os.environ, **(extra or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CopyFailed(f"{program} ended with status {done.returncode}: {' '.join(done.stderr.split())[:500]}")
