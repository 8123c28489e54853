from __future__ import annotations

from pathlib import Path
from typing import Any

from llmcontrol.portable.command import DocumentCommand


class Command(DocumentCommand):
    help = (
        "Says what apply_config would make of a document of export_config, and changes nothing. The plan it names can be held to: --plan."
    )

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        self.take(file, dry_run=True)
        self.stdout.write("Nothing was changed.")
