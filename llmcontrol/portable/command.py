"""What `plan_config` and `apply_config` do alike: read a document, take it for real or in a trial, and say what became of each entry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from llmcontrol.portable import document
from llmcontrol.portable.kind import Scene
from llmcontrol.portable.plan import CHANGED, CREATED, Outcome, Plan, in_words
from llmcontrol.portable.registry import KINDS
from llmcontrol.portable.taking import PlanOutdated, take


class DocumentCommand(BaseCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="A JSON document of export_config.")

    def take(self, file: Path, *, dry_run: bool, agreed: str = "") -> None:
        """Raises CommandError."""
        plan = _taken(file, dry_run, agreed)
        for outcome in plan.outcomes:
            for line in _lines(outcome):
                self.stdout.write(line)
        self.stdout.write(", ".join(f"{count} {verb}" for verb, count in plan.counts.items()) + f". Plan {plan.fingerprint}.")


def _taken(file: Path, dry_run: bool, agreed: str) -> Plan:
    try:
        with file.open("rb") as source:
            text = source.read(settings.CONFIG_FILE_MAX_BYTES + 1)
        found = document.read(text, KINDS, settings.CONFIG_FILE_MAX_BYTES)
        return take(found, Scene(timezone.now()), dry_run=dry_run, agreed=agreed)
    except OSError as exc:
        raise CommandError(f"{file} cannot be read: {exc.strerror}.") from None
    except document.DocumentRefused as refused:
        raise CommandError(f"Nothing was taken.\n{refused}") from None
    except PlanOutdated as outdated:
        raise CommandError(str(outdated)) from None


def _lines(outcome: Outcome) -> Iterator[str]:
    """What changes nothing and asks for nothing is only counted."""
    if outcome.verb in (CREATED, CHANGED) or outcome.notes:
        yield f"{outcome.section} {outcome.name}: {outcome.verb}"
    yield from (f"    {change.field}: {in_words(change.before)} -> {in_words(change.after)}" for change in outcome.changes)
    yield from (f"    {note}" for note in outcome.notes)
