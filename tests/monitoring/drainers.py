"""What tests of draining and replaying start from, and a database that is away."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection

from core.clock import FrozenClock
from monitoring.journal import Journal, Position
from monitoring.models import UsageRecord
from monitoring.usage import Drainer


def make_drainer(journal: Journal, clock: FrozenClock | None = None, interval_s: float = 0.5) -> Drainer:
    return Drainer(journal, interval_s, clock or FrozenClock())


def checkpoint(journal: Journal) -> Position:
    return Position(*json.loads((journal.directory / f"{journal.token}.checkpoint").read_text()))


DOWN = "the database is away|attempt to write a readonly database"


@contextmanager
def database_down() -> Iterator[None]:
    """Reads work, writes fail: on SQLite by the database itself, because the ledger writes to it past Django's cursor."""

    def refuse(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if sql.startswith("INSERT"):
            raise OperationalError("the database is away")
        return execute(sql, *args)

    if connection.vendor != "sqlite":
        with connection.execute_wrapper(refuse):
            yield
        return
    connection.ensure_connection()
    connection.connection.execute("PRAGMA query_only = ON")
    try:
        yield
    finally:
        connection.connection.execute("PRAGMA query_only = OFF")


def ids() -> set[str]:
    """Of attempts, as `request-number`."""
    return {str(row) for row in UsageRecord.objects.all()}
