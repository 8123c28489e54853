"""Adds the prompt templates that come with the product. `quickstart` does so by itself on its first start."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from models_registry.prompt_services import add_shipped_prompts


class Command(BaseCommand):
    help = "Add the shipped prompt templates that are missing; what is there stays as it is."

    def handle(self, *args: Any, **options: Any) -> None:
        added = add_shipped_prompts()
        self.stdout.write(f"Added: {', '.join(added)}." if added else "All of them are there already.")
