from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from llmcontrol.portable.kind import Scene
from llmcontrol.portable.writing import UnknownSection, exported


class Command(BaseCommand):
    help = (
        "Writes the configuration as a JSON document for plan_config and apply_config, always in the same order; that it was written is "
        "recorded. Secrets are not in it, nor what belongs to people or API keys: members, grants to persons, keys and budgets of keys."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--out", type=Path, help="Write to this file instead of the terminal.")
        parser.add_argument("--only", default="", help='Only these sections, e.g. "providers,models".')

    def handle(self, *args: Any, out: Path | None, only: str, **options: Any) -> None:
        try:
            text = exported(Scene(timezone.now()), [name.strip() for name in only.split(",") if name.strip()])
            if out is not None:
                out.write_bytes(text)
                self.stderr.write(f"{out}: {len(text)} bytes.")
                return
        except UnknownSection as refused:
            raise CommandError(str(refused)) from None
        except OSError as exc:
            raise CommandError(f"{out} cannot be written: {exc.strerror}.") from None
        self.stdout.write(text.decode(), ending="")
