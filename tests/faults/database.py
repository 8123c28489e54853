"""The product's rows, read straight from where they lie."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from tests.faults.services import Postgres

_LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
connection.rollback()
"""


class Usage(NamedTuple):
    """One usage record; `started_at` in wall seconds."""

    request_id: str
    attempt: int
    started_at: float
    alias: str
    model_id: str
    provider_name: str
    key_id: str
    status: str
    error_code: str
    usage_source: str
    input_tokens: int
    output_tokens: int
    cost_micros: int | None
    duration_ms: int = 0

    @property
    def ended_at(self) -> float:
        return self.started_at + self.duration_ms / 1000


class Database:
    def __init__(self, where: Path | Postgres) -> None:
        """A file of SQLite's, or a server."""
        self._where = where

    @property
    def path(self) -> Path:
        assert isinstance(self._where, Path), "only SQLite has a file"
        return self._where

    @property
    def address(self) -> str:
        return self._where.url if isinstance(self._where, Postgres) else str(self._where)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Of one query. Raises what the driver raises where the database is away."""
        if isinstance(self._where, Postgres):
            with psycopg.connect(self._where.url, connect_timeout=5) as server:
                return server.execute(sql).fetchall()  # type: ignore[call-overload]
        with closing(sqlite3.connect(f"file:{self._where}?mode=ro", uri=True, timeout=20)) as file:
            return file.execute(sql).fetchall()

    def change(self, sql: str) -> None:
        """Past the product, as nobody should. Raises what the driver raises."""
        if isinstance(self._where, Postgres):
            with psycopg.connect(self._where.url, connect_timeout=5) as server:
                server.execute(sql)  # type: ignore[call-overload]
            return
        with closing(sqlite3.connect(self._where, timeout=20)) as file, file:
            file.execute(sql)

    def usage(self) -> list[Usage]:
        columns = ", ".join(Usage._fields)
        found = [Usage(*row) for row in self.rows(f"SELECT {columns} FROM monitoring_usagerecord ORDER BY id")]
        return [row._replace(started_at=_seconds(row.started_at)) for row in found]

    def config_version(self) -> int:
        return int(self.rows("SELECT version FROM gateway_config_configversion")[0][0])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """SQLite: another process holds the file for itself alone."""
        command = [sys.executable, "-c", _LOCKER, str(self.path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locker:
            assert locker.stdout is not None
            assert locker.stdin is not None
            assert locker.stdout.readline(), "the file could not be locked"
            try:
                yield
            finally:
                locker.stdin.close()
                locker.wait(10)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """SQLite: the file is not where it was, and nor is what belongs to it."""
        names = [Path(f"{self.path}{end}") for end in ("", "-wal", "-shm")]
        moved = [name for name in names if name.exists()]
        for name in moved:
            name.rename(f"{name}.hidden")
        try:
            yield
        finally:
            for name in moved:
                Path(f"{name}.hidden").rename(name)


def _seconds(value: Any) -> float:
    """SQLite keeps UTC as text."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return float((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
