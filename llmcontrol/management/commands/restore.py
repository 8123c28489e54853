"""What `manage.py backup` wrote, put back into an empty installation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from llmcontrol import backup
from llmcontrol.database_copy import CopyFailed


class Command(BaseCommand):
    help = (
        "Puts a backup into an empty database and state folder; refuses where there is anything already. It needs the same secrets. "
        "Those of a backup with --include-secrets are taken out first: tar -xzf FILE -C STATE_FOLDER settings.env"
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="what `manage.py backup` made")

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)
        try:
            made_at = backup.restore(options["file"].absolute())
        except backup.BackupRefused as exc:
            raise CommandError(f"Nothing was changed: {exc}.") from exc
        except (CopyFailed, DatabaseError, OSError) as exc:
            raise CommandError(f"Not restored: {exc}.") from exc
        self.stdout.write(f"Restored as of {made_at}. What was asked since is not in it.")
        self.stdout.write(
            "Next: `manage.py migrate`, `manage.py replay_journal`, `manage.py ledger_check`, `manage.py verify_audit`, then start."
        )
