"""A24 after every fault: no secret of a stage lies in its files, its rows, or what it tells an administrator.

Not searched: the vendor's own ledger and log (vendors know their keys), and whatever is away when the test ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from access.keys import API_KEY_PREFIX, TOKEN_PREFIX, shown
from tests.canary import Canary, postgres_rows
from tests.e2e import wire

if TYPE_CHECKING:
    from tests.faults.stage import Stage

# What an administrator is told: metrics, schema, exports, lists.
TOLD = (
    *("/metrics", "/api/schema/", "/api/v1/llm/providers", "/api/v1/providers/status", "/api/v1/llm/keys", "/api/v1/llm/secrets/health"),
    *("/api/v1/audit", "/api/v1/requests", "/api/v1/usage/records", "/api/v1/usage/stats"),
)
_ANSWER_S = 10.0


class Search:
    """How much was searched in a run."""

    def __init__(self) -> None:
        self.stages = self.files = self.bytes = self.answers = 0

    def leaks(self, stage: Stage) -> list[str]:
        """A sentence for each place that holds a secret; which secret is not said."""
        canary = _canary(stage)
        self.stages += 1
        places = [where for where, data in self._all(stage) if canary.find(data)]
        for path in _files(stage):
            try:
                self.bytes += path.stat().st_size
                if canary.find_in_file(path):
                    places.append(str(path.relative_to(stage.folder.parent)) if stage.folder in path.parents else str(path))
            except FileNotFoundError:
                continue  # a journal that has just been delivered
            self.files += 1
        return [f"a secret lies in {place}" for place in dict.fromkeys(places)]

    def _all(self, stage: Stage) -> Iterator[tuple[str, bytes]]:
        if stage.services.postgres:
            try:
                yield from postgres_rows(stage.services.postgres.url)
            except psycopg.OperationalError:
                pass
        for machine in stage.machines[:1]:
            for path in TOLD if machine.running and machine.is_ready() else ():
                for accept in ("*/*", "text/csv"):
                    headers = {"Authorization": f"Token {stage.token}", "Accept": accept}
                    try:
                        answer = wire.call(machine.base_url, "GET", path, headers=headers, timeout_s=_ANSWER_S)
                    except OSError:
                        return
                    if answer.status == 503:  # its database is still away: the others would wait for it too
                        return
                    self.answers += 1
                    yield f"the answer of {path}", f"{answer.headers}".encode() + answer.body


def _canary(stage: Stage) -> Canary:
    """Keys of key rings stand behind their id."""
    secrets = [secret.partition(":")[2] if secret[:2].rstrip(":").isdigit() else secret for secret in [*stage.secrets, stage.key]]
    shown_parts = [shown(secret, prefix) for secret in secrets for prefix in (API_KEY_PREFIX, TOKEN_PREFIX) if secret.startswith(prefix)]
    named = {f"secret {number}": secret for number, secret in enumerate(secrets)}
    return Canary(named, harmless=[*shown_parts, "0123456789abcdef"])  # the end of some keys of tests, and every digit of a hash


def _files(stage: Stage) -> Iterator[Path]:
    """Of PostgreSQL its log and its write-ahead log: what is in its tables, the rows say."""
    for machine in stage.machines:
        yield machine.log
        yield from _below(machine.state_dir)
    for path in _below(stage.services.folder):
        if "postgres" not in path.relative_to(stage.services.folder).parts or "pg_wal" in path.parts or path.suffix == ".log":
            yield path


def _below(folder: Path) -> list[Path]:
    """Of a tree that servers still change: what goes meanwhile is left out."""
    found = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    return [path for path in sorted(found) if path.is_file()]
