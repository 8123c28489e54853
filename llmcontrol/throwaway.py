"""Secrets for commands that need none: settings do not load without, and on a fresh clone there are none yet.

They are made for one process, which seals, signs and opens nothing that outlives it.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

# Command → why it needs no secret. Whatever is not here says what is missing, and ends.
COMMANDS: Final = {
    "": "lists the commands",
    "help": "prints what commands take",
    "version": "prints Django's version",
    "check": "looks at code and settings",
    "makemigrations": "compares models with migrations, and reads no row",
    "translations": "compares sources with catalogues",
    "spectacular": "writes what REST answers and takes",
}
_HELP: Final = frozenset({"-h", "--help", "--version"})
# `check` looks at stored rows with the one, and judges the secrets themselves with the other.
_WITH_SECRETS: Final = ("--database", "--deploy")
_SECRETS: Final = ("SECRET_KEY", "KEY_ENCRYPTION_KEYS", "API_KEY_PEPPER")


def made_for(argv: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Variables to fall back on: secrets, and a database in memory. {} where the command needs its own, or some are set:
    then those that are missing are a mistake. `argv` with the program's name."""
    if any(name in environ or f"{name}_FILE" in environ for name in _SECRETS) or not _needs_none(argv):
        return {}
    return {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "KEY_ENCRYPTION_KEYS": "1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
        "API_KEY_PEPPER": secrets.token_urlsafe(48),
        "DATABASE_URL": "sqlite://:memory:",
    }


def _needs_none(argv: Sequence[str]) -> bool:
    if not argv or Path(argv[0]).name != "manage.py":
        return False
    command, *options = argv[1:] or [""]
    if not _HELP.isdisjoint((command, *options[:1])):
        return True
    return command in COMMANDS and not any(option.startswith(_WITH_SECRETS) for option in options)
