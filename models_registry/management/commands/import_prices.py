from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from models_registry import catalogue, price_file
from providers.models import Provider

CATALOGUE = "catalogue"


class Command(BaseCommand):
    help = (
        "Sets prices: of models that have none, from the catalogue that came with this program, or whatever a JSON or CSV file says. "
        "No price is edited; another one ends it. All of it is taken, or nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from", dest="origin", default=CATALOGUE, help='"catalogue" (the default), or the path of a .json or .csv file.'
        )
        parser.add_argument("--provider", default="", help="Only models of the provider of this name.")
        parser.add_argument(
            "--replace", action="store_true", help="With the catalogue: also end prices of yours that it says otherwise about."
        )
        parser.add_argument("--dry-run", action="store_true", help="Say what would happen, and change nothing.")

    def handle(self, *args: Any, origin: str, provider: str, dry_run: bool, replace: bool, **options: Any) -> None:
        if provider and not Provider.objects.filter(name=provider).exists():
            raise CommandError(f"There is no provider named {provider!r}.")
        if origin == CATALOGUE:
            self.stdout.write(f"The catalogue's data: {catalogue.dates()}.")
            lines = price_file.from_catalogue(provider, dry_run=dry_run, replaces=replace)
        else:
            lines = self._from_file(Path(origin), provider, dry_run)
        if not lines:
            self.stdout.write("There is nothing to do.")
            return
        for row in price_file.table(lines):
            self.stdout.write(row)
        if differing := sum(line.verb == "differs" for line in lines):
            self.stdout.write(f"{differing} differ from the catalogue and stay as they are; --replace takes its prices.")
        if dry_run:
            self.stdout.write("This was a dry run: nothing was changed.")
        if refused := sum(line.verb == "refused" for line in lines):
            raise CommandError(f"{refused} of {len(lines)} could not be taken, the reasons stand beside them; nothing was changed.")

    def _from_file(self, path: Path, provider: str, dry_run: bool) -> list[price_file.Line]:
        try:
            return price_file.from_file(path, provider, dry_run=dry_run)
        except OSError as exc:
            raise CommandError(f"{path} cannot be read: {exc.strerror}.") from None
        except price_file.PricesRefused as refused:
            raise CommandError(str(refused)) from None
