"""One file that an installation can be made anew from."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from llmcontrol import backup
from llmcontrol.database_copy import CopyFailed
from monitoring import audit
from monitoring.models import AuditEvent


class Command(BaseCommand):
    help = (
        "Writes the database, this machine's journal and the audit checkpoints into one file, while the gateway serves. "
        "settings.env with the secrets is not in it unless asked: without KEY_ENCRYPTION_KEYS no stored vendor key can be read again."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="is made, readable by its owner alone; it must not be there yet")
        parser.add_argument(
            "--include-secrets", action="store_true", help="settings.env of the state folder too: who has the file has everything"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)
        file: Path = options["file"].absolute()
        try:
            backup.make(file, secrets=options["include_secrets"])
        except (backup.BackupRefused, CopyFailed, DatabaseError, OSError) as exc:
            raise CommandError(f"There is no backup: {exc}.") from exc
        self._record(file, options["include_secrets"])
        self.stdout.write(
            f"{file}: {file.stat().st_size / 1e6:.1f} MB, with the database, the journal of this machine and the audit checkpoints."
        )
        if options["include_secrets"]:
            self.stdout.write("The secrets are in it: who has this file has everything.")
        else:
            self.stdout.write(
                f"The secrets are NOT in it. Keep {settings.STATE_DIR / 'settings.env'}, or wherever they come from, elsewhere."
            )

    def _record(self, file: Path, secrets: bool) -> None:
        """A backup is wanted most where not much can be written any more: it is kept all the same."""
        what = "a backup, with the secrets" if secrets else "a backup"
        try:
            audit.record(AuditEvent.Action.EXPORTED, changes={"what": (None, what), "where": (None, f"{socket.gethostname()}:{file}")})
        except DatabaseError as exc:
            self.stderr.write(f"The backup is made, but the audit trail does not tell of it: {exc}")
