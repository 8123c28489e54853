from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from llmcontrol.portable import document
from llmcontrol.portable.kind import Scene
from llmcontrol.portable.plan import CHANGED, CREATED, Outcome, in_words
from llmcontrol.portable.registry import KINDS
from llmcontrol.portable.taking import PlanOutdated, take


class Command(BaseCommand):
    help = (
        "Brings the configuration in line with a document of export_config: all of it, or nothing where an entry is refused. What the "
        "document does not speak of is left alone, prices are superseded, and nothing is ever deleted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="A JSON document of export_config.")
        parser.add_argument("--dry-run", action="store_true", help="Say what would happen, and change nothing.")
        parser.add_argument("--plan", default="", help="Only if this is what would happen: the plan that a dry run named.")

    def handle(self, *args: Any, file: Path, dry_run: bool, plan: str, **options: Any) -> None:
        try:
            with file.open("rb") as source:
                text = source.read(settings.CONFIG_FILE_MAX_BYTES + 1)
            found = document.read(text, KINDS, settings.CONFIG_FILE_MAX_BYTES)
            came = take(found, Scene(timezone.now()), dry_run=dry_run, agreed=plan)
        except OSError as exc:
            raise CommandError(f"{file} cannot be read: {exc.strerror}.") from None
        except document.DocumentRefused as refused:
            raise CommandError(f"Nothing was imported.\n{refused}") from None
        except PlanOutdated as outdated:
            raise CommandError(str(outdated)) from None
        for outcome in came.outcomes:
            for line in _lines(outcome):
                self.stdout.write(line)
        self.stdout.write(", ".join(f"{count} {verb}" for verb, count in came.counts.items()) + f". Plan {came.fingerprint}.")
        if dry_run:
            self.stdout.write("This was a dry run: nothing was changed.")


def _lines(outcome: Outcome) -> Iterator[str]:
    """What changes nothing and asks for nothing is only counted."""
    if outcome.verb in (CREATED, CHANGED) or outcome.notes:
        yield f"{outcome.section} {outcome.name}: {outcome.verb}"
    yield from (f"    {change.field}: {in_words(change.before)} -> {in_words(change.after)}" for change in outcome.changes)
    yield from (f"    {note}" for note in outcome.notes)
