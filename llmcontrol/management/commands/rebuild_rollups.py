"""Sums up the ledger anew: the rollups that charts and usage statistics are made of."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from monitoring import rollups


class Command(BaseCommand):
    help = (
        "Sums up requests and attempts anew, by hour and by day. Meanwhile nothing is entered in the ledger; the journal keeps it. "
        "Days of which rows were deleted keep the sums they have."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="Compare only, and change nothing.")

    def handle(self, *args: Any, check: bool, **options: Any) -> None:
        try:
            if not check:
                self.stdout.write(f"Summed up {rollups.rebuild()} rows.")
            difference = rollups.difference()
        except DatabaseError as exc:
            raise CommandError(f"Stopped: {exc}. Nothing was changed; run this command again when that is repaired.") from exc
        if difference:
            raise CommandError(f"{difference} Run `manage.py rebuild_rollups` to sum them up anew.")
        self.stdout.write("Rows and rollups tell the same sums.")
