from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from llmcontrol.portable.command import DocumentCommand


class Command(DocumentCommand):
    help = (
        "Brings the configuration in line with a document of export_config: all of it, or nothing where an entry is refused. What the "
        "document does not speak of is left alone, prices are superseded, and nothing is ever deleted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--plan", default="", help="Only if this is what would happen: the plan that plan_config named.")

    def handle(self, *args: Any, file: Path, plan: str, **options: Any) -> None:
        self.take(file, dry_run=False, agreed=plan)
