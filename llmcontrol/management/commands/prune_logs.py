"""Deletes requests and attempts that are older than LLM_RETENTION_DAYS, at once."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone

from monitoring.retention import first_kept_day, prune_batch


class Command(BaseCommand):
    help = (
        "Deletes the rows of requests and attempts that are older than LLM_RETENTION_DAYS. A serving process does the same by and by. "
        "Sums by hour and day stay. Can be stopped and run again at any time."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.RETENTION_DAYS:
            self.stdout.write("LLM_RETENTION_DAYS is 0: every row is kept.")
            return
        before, gone = first_kept_day(timezone.now(), settings.RETENTION_DAYS), 0
        try:
            while deleted := prune_batch(before):
                gone += deleted
        except DatabaseError as exc:
            raise CommandError(f"Stopped after {gone} rows: {exc}. Run this command again when that is repaired.") from exc
        self.stdout.write(f"Deleted {gone} rows from before {before:%Y-%m-%d}.")
