"""Deletes requests and attempts that are older than LLM_RETENTION_DAYS, and bodies older than LLM_BODY_RETENTION_DAYS, at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils import timezone

from monitoring import bodies
from monitoring.retention import first_kept_day, prune_batch


class Command(BaseCommand):
    help = (
        "Deletes the rows of requests and attempts that are older than LLM_RETENTION_DAYS, and bodies that are older than "
        "LLM_BODY_RETENTION_DAYS. A serving process does the same by and by. "
        "Sums by hour and day stay. Can be stopped and run again at any time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--all-bodies", action="store_true", help="delete every body that is kept, however new")

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        newest = now + timedelta(days=1) if options["all_bodies"] else bodies.kept_since(now.timestamp(), settings.BODY_RETENTION_DAYS)
        if gone := self._until_none_is_left(lambda: bodies.prune(newest)):
            self.stdout.write(f"Deleted the bodies of {gone} requests.")
        if not settings.RETENTION_DAYS:
            self.stdout.write("LLM_RETENTION_DAYS is 0: every row is kept.")
            return
        before = first_kept_day(now, settings.RETENTION_DAYS)
        gone = self._until_none_is_left(lambda: prune_batch(before))
        self.stdout.write(f"Deleted {gone} rows from before {before:%Y-%m-%d}.")

    @staticmethod
    def _until_none_is_left(batch: Callable[[], int]) -> int:
        gone = 0
        try:
            while deleted := batch():
                gone += deleted
        except DatabaseError as exc:
            raise CommandError(f"Stopped after {gone} rows: {exc}. Run this command again when that is repaired.") from exc
        return gone
