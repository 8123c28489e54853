"""What the admin says that has no translation, and the catalogues brought in line with the code."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llmcontrol.languages import stored


class Command(BaseCommand):
    help = (
        "Lists what people read in the admin and what has no translation. With --write, enters it into llmcontrol/locale/**/*.po without "
        "one, takes out what nothing uses, and compiles. For those who change the program: it writes into the program's own files."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--write", action="store_true", help="bring the files in line with the code")

    def handle(self, *args: Any, **options: Any) -> None:
        found = stored.catalogues()
        for one in found:
            for what, messages in (("missing", one.missing), ("not used", one.unused)):
                for message in messages:
                    self.stdout.write(f"{one.path.name}: {what}: {message.text!r}")
            if options["write"]:
                stored.write(one)
        missing, unused = sum(len(one.missing) for one in found), sum(len(one.unused) for one in found)
        said = f"{sum(len(one.needed) for one in found)} messages, {missing} without a translation, {unused} translated that nothing uses."
        if missing or (unused and not options["write"]):
            raise CommandError(said)
        self.stdout.write(said)
