"""Seals all stored secrets under the newest key-encryption key. How to rotate, step by step: docs/secrets.md."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from core.errors import ConfigurationError
from core.secrets import KekAway, KeyRing
from providers import sealing
from providers.vault import key_ring


class Command(BaseCommand):
    help = (
        "Seals every stored secret under the highest key in KEY_ENCRYPTION_KEYS, while the gateway serves. "
        "Every process must have been started with that key before. Can be killed and begun again at any point."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--batch",
            type=_batch_rows,
            default=sealing.DEFAULT_BATCH_ROWS,
            metavar="N",
            help=f"Secrets in one transaction, 1 to {sealing.MAX_BATCH_ROWS}; {sealing.DEFAULT_BATCH_ROWS} unless told.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Say which secrets are on which key, and change nothing.")

    def handle(self, *args: Any, batch: int, dry_run: bool, **options: Any) -> None:
        try:
            ring = key_ring()
            census, problems = self._look(ring, batch) if dry_run else self._rotate(ring, batch)
        except (ConfigurationError, DatabaseError, KekAway) as exc:
            raise CommandError(f"Stopped: {exc}. Nothing is lost; run this command again when that is repaired.") from exc
        for problem in problems:
            self.stderr.write(problem)
        if problems:
            raise CommandError(f"{len(problems)} secrets do not open; what to do stands beside each. {_kept(ring, census)}")
        if dry_run:
            self._say("This was a dry run: nothing was changed.")
        elif census.stale_rows:
            raise CommandError(
                f"{census.stale_rows} secrets are held by another transaction: run this command again. {_kept(ring, census)}"
            )
        else:
            self._say(_farewell(ring))

    def _look(self, ring: KeyRing, batch_rows: int) -> tuple[sealing.Census, list[str]]:
        census = sealing.take_census(ring)
        self._say(f"{census.under.total()} secrets; {_by_key(ring, census)}.")
        return census, sealing.unreadable(ring, census, batch_rows)

    def _rotate(self, ring: KeyRing, batch_rows: int) -> tuple[sealing.Census, list[str]]:
        said = ""
        for progress in sealing.reseal_all(ring, batch_rows):
            state = f"{progress.resealed} re-sealed of {progress.census.under.total()} secrets; {_by_key(ring, progress.census)}."
            if state != said:
                self._say(state)
            said = state
        return progress.census, list(progress.problems.values())

    def _say(self, sentence: str) -> None:
        """At once, also into a pipe: whoever waits sees that it goes on."""
        self.stdout.write(sentence)
        self.stdout.flush()


def _batch_rows(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= sealing.MAX_BATCH_ROWS:
        raise ArgumentTypeError(f"write a whole number from 1 to {sealing.MAX_BATCH_ROWS}")
    return int(text)


def _by_key(ring: KeyRing, census: sealing.Census) -> str:
    return ", ".join(f"{_name(ring, id_)}: {census.under[id_]}" for id_ in sorted(ring.ids | census.under.keys()))


def _name(ring: KeyRing, id_: int) -> str:
    if id_ == sealing.DAMAGED:
        return "damaged"
    if id_ == ring.current:
        return f"key {id_} (current)"
    return f"key {id_}" if id_ in ring.ids else f"key {id_} (not configured)"


def _kept(ring: KeyRing, census: sealing.Census) -> str:
    """What must not be removed yet."""
    needed = sorted(id_ for id_ in ring.ids - {ring.current} if census.under[id_])
    return f"Keep in KEY_ENCRYPTION_KEYS, besides {ring.current}: {', '.join(map(str, needed))}." if needed else ""


def _farewell(ring: KeyRing) -> str:
    old = sorted(ring.ids - {ring.current})
    if not old:
        return f"Every secret is sealed under key {ring.current}. To rotate, first add a key with a higher id to KEY_ENCRYPTION_KEYS."
    ids, them = ", ".join(map(str, old)), "it" if len(old) == 1 else "them"
    return (
        f"Every secret is sealed under key {ring.current}; nothing is left on key {ids}. You may remove {them} from "
        f"KEY_ENCRYPTION_KEYS and restart every process; keep {them} beside backups of the database made before now."
    )
