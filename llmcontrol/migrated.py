"""Whether the database has every migration that this version brings: without them a query fails here and there, later."""

from __future__ import annotations

import pkgutil
from pathlib import Path

from django.apps import apps
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder


class NotMigrated(Exception):
    """Its text says what is missing and what to do."""


def require_migrated() -> None:
    """Raises NotMigrated; DatabaseError. Migrations that the database has beside ours are those of a newer version, which bears us."""
    applied = set(MigrationRecorder(connection).applied_migrations())
    if missing := sorted(_shipped() - applied):
        named = ", ".join(f"{app}.{name}" for app, name in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise NotMigrated(f"the database lacks migrations of this version ({named}{more}): run `manage.py migrate`")


def _shipped() -> set[tuple[str, str]]:
    """(app, migration), by the names of their files: importing them would cost every process megabytes."""
    folders = ((config.label, Path(config.path) / "migrations") for config in apps.get_app_configs())
    return {
        (label, module.name) for label, folder in folders for module in pkgutil.iter_modules([str(folder)]) if module.name[0] not in "_~"
    }
