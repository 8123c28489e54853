"""Says whether the books balance, and names the first thing that does not."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from monitoring.balance import differences


class Command(BaseCommand):
    help = "Compares requests, attempts, budget entries, accounts and leases with each other. Reads only; exit status 1 on a difference."

    def handle(self, *args: Any, **options: Any) -> None:
        checked = 0
        for name, found in differences():
            if found is not None:
                raise CommandError(f"{name}: {found}")
            self.stdout.write(f"{name}: in balance")
            checked += 1
        self.stdout.write(f"All {checked} sums agree.")
