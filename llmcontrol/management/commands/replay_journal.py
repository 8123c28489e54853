"""Enters what dead gateway processes left in the journal, and says what it did."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from monitoring.chain import Report
from monitoring.usage import replay


class Command(BaseCommand):
    help = "Enters what dead gateway processes left in the journal into the ledger. Harmless at any time and as often as you like."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = replay(settings.JOURNAL_DIR)
        except (DatabaseError, OSError) as exc:
            raise CommandError(f"Stopped: {exc}. Nothing is lost; run this command again when that is repaired.") from exc
        for sentence in sentences(report):
            self.stdout.write(sentence)
        for problem in report.problems:
            self.stderr.write(problem)


def sentences(report: Report) -> list[str]:
    lines = [f"Left alone: {report.in_use} journals of running processes."] if report.in_use else []
    if not report.journals:
        return [*lines, f"No dead process left a journal in {settings.JOURNAL_DIR}: nothing to do."]
    lines.append(f"Adopted the journals of {report.journals} dead processes.")
    lines.append(f"Entered {report.usage_records} usage records and {report.request_logs} request logs that were not in the ledger yet.")
    if report.interrupted:
        lines.append(f"{report.interrupted} attempts never ended: entered as interrupted, with estimated input tokens and unknown cost.")
    if report.refused:
        lines.append(f"{report.refused} records could not be entered and were set aside.")
    return lines
