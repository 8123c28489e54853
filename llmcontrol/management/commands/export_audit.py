"""The whole audit trail as JSON lines, and what somebody else needs to verify it."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from monitoring import audit, audit_chain
from monitoring.audit_checkpoints import rows
from monitoring.models import AuditEvent
from monitoring.moment import one_moment


class Command(BaseCommand):
    help = (
        "Writes every row of the audit trail, one line of JSON each, for deploy/verify_audit.py; this too is recorded. "
        "--public-key and --chain-key print what that needs instead. The chain key lets its holder check rows, and write rows that would "
        "pass but for the checkpoints: hand it to auditors only."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--public-key", action="store_true", help="print the key that verifies checkpoints, in hex")
        what.add_argument("--chain-key", action="store_true", help="print the key that verifies rows, in hex")

    def handle(self, *args: Any, public_key: bool, chain_key: bool, **options: Any) -> None:
        if public_key:
            self.stdout.write(audit_chain.public_key(audit.keys()).hex())
            return
        try:
            audit.record(
                AuditEvent.Action.REVEALED if chain_key else AuditEvent.Action.EXPORTED, changes={"what": (None, _what(chain_key))}
            )
            if chain_key:
                self.stdout.write(audit.keys().chain.hex())
                return
            with one_moment():
                for row in rows():
                    self.stdout.write(json.dumps(row._asdict()))
        except DatabaseError as exc:
            raise CommandError(f"The trail cannot be exported: {exc}.") from exc


def _what(chain_key: bool) -> str:
    return "the audit trail's chain key" if chain_key else "the whole audit trail"
