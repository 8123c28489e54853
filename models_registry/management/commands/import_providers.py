from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from models_registry.provider_file import MAX_FILE_BYTES, FileRefused, Outcome, import_file


class Command(BaseCommand):
    help = "Creates and updates providers, their keys and models from a JSON file: all of it or nothing. Keys are never printed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help='JSON of the form {"provider": {name: {"api_keys": […], "base_url": …, "model": …}}}')
        parser.add_argument("--dry-run", action="store_true", help="Say what would happen, and change nothing.")

    def handle(self, *args: Any, file: Path, dry_run: bool, **options: Any) -> None:
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                raise CommandError(f"{file} is larger than {MAX_FILE_BYTES} bytes.")
            outcomes = import_file(file.read_bytes(), dry_run=dry_run)
        except OSError as exc:
            raise CommandError(f"{file} cannot be read: {exc.strerror}.") from None
        except FileRefused as refused:
            raise CommandError(f"Nothing was imported.\n{refused}") from None
        for outcome in outcomes:
            self.stdout.write(_line(outcome))
        verbs = [outcome.verb for outcome in outcomes]
        counts = ", ".join(f"{verbs.count(verb)} {verb}" for verb in ("created", "updated", "unchanged"))
        self.stdout.write(f"{counts}.{' This was a dry run: nothing was changed.' if dry_run else ''}")


def _line(outcome: Outcome) -> str:
    changes = f" ({', '.join(outcome.changes)})" if outcome.changes else ""
    ignored = f"; ignored, because providers have no such setting: {', '.join(outcome.ignored)}" if outcome.ignored else ""
    return f"{outcome.name}: {outcome.verb}{changes}{ignored}"
