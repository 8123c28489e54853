"""Says whether the audit trail is as it was written, and names the first row that is not."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from monitoring.audit_checkpoints import Verdict, verify


class Command(BaseCommand):
    help = (
        "Checks every row of the audit trail against the one before it and against the signed checkpoints. "
        "Exit status 1 where a row was altered, put in, taken out or cut off. What it cannot prove: docs/audit.md."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one line of JSON, for scripts")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            verdict = verify()
        except (DatabaseError, OSError) as exc:
            raise CommandError(f"The trail cannot be read: {exc}.") from exc
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(verdict)))
        else:
            self._tell(verdict)
        if verdict.bad is not None:
            raise CommandError(f"First bad row: {verdict.bad.sequence}. {verdict.bad.problem}.")

    def _tell(self, verdict: Verdict) -> None:
        if verdict.missing_triggers:
            self.stderr.write(f"Triggers are missing ({', '.join(verdict.missing_triggers)}): `manage.py migrate` puts them back.")
        if verdict.bad is None:
            covered = f"{verdict.checkpoints} signed checkpoints vouch for rows 1 to {verdict.covered}"
            self.stdout.write(f"All {verdict.rows} rows follow from each other; {covered}.")


def _as_json(verdict: Verdict) -> dict[str, Any]:
    bad = verdict.bad
    return {
        "ok": bad is None,
        "rows": verdict.rows,
        "checkpoints": verdict.checkpoints,
        "covered": verdict.covered,
        "first_bad": None if bad is None else bad.sequence,
        "problem": None if bad is None else bad.problem,
        "missing_triggers": verdict.missing_triggers,
    }
