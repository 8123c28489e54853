"""So many events a second, written to the database as `telling.events.add` writes them, in a process of its own: they come from elsewhere,
and the load's clients do not wait for them.

    python -m tests.faults.event_writer DATABASE EVENTS_PER_S < keys

DATABASE: the URL of a PostgreSQL server or a file of SQLite's. The first line of its input is a list of key ids: each event is one key's,
in turn. Ten times a second comes a large one that only those hear of who may see everything. The second line ends it; it writes how many
events there were, without those.
"""

from __future__ import annotations

import json
import select
import sqlite3
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg

EVERY_S = 0.1
LOCK = 0x6C6C6D65  # of telling.events: numbers are given out in the order of commits
LARGE = 100_000  # bytes, ten times a second: more than the kernel keeps for a socket that does not read, within seconds


def opened(where: str) -> Callable[[str], object]:
    """Runs a statement in a transaction of its own."""
    if where.startswith("postgres"):
        server = psycopg.connect(where, autocommit=True)
        return lambda sql: server.execute(f"SELECT pg_advisory_xact_lock({LOCK}); {sql}".encode())
    file = sqlite3.connect(where, timeout=20, isolation_level=None)
    return file.execute


def insert(topics: list[str], first: int, count: int) -> str:
    at = datetime.now(UTC).isoformat(sep=" ")
    rows = [f"""('alert', '["task.all"]', '{{"more": "{"x" * LARGE}"}}', '{at}')"""]
    rows += [f"""('task', '{topics[n % len(topics)]}', '{{"number": {n}}}', '{at}')""" for n in range(first, first + count)]
    return f"INSERT INTO telling_event (type, topics, data, at) VALUES {', '.join(rows)}"


def main(where: str, events_per_s: int) -> None:
    topics = [json.dumps(["task.all", f"task.key.{key_id}"]) for key_id in json.loads(sys.stdin.readline())]
    change, written = opened(where), 0
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        count = round(events_per_s * EVERY_S)
        change(insert(topics, written, count))
        written += count
        due = max(due + EVERY_S, time.monotonic() - 1.0)  # a machine that is too slow is not asked for all of it afterwards
    print(written, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
