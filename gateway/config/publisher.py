"""Every committed change of a configuration row raises one integer, in the same transaction.

Done by triggers in the database, because they also see what signals and save() do not: `queryset.update()`, bulk
operations, cascades and plain SQL. They are installed after every `migrate`: SQLite rebuilds a table to alter it, and its
triggers go with the old table, so a migration that creates them once would not be enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.migrations import Migration

from core.errors import ConfigurationError
from gateway.config.models import ConfigVersion

CONFIGURATION = (
    *("providers.Provider", "providers.ProviderKey"),
    *("models_registry.LLMModel", "models_registry.Price", "models_registry.Route", "models_registry.ExchangeRate"),
    *("models_registry.PromptTemplate", "models_registry.PromptVersion"),
    *("access.Team", "access.ApiKey", "access.Budget", "access.Grant"),
)
_NAME = "config_version_on_"
_OPERATIONS = ("INSERT", "UPDATE", "DELETE")


def current_version() -> int:
    """The version in force. Raises ConfigurationError before `migrate` has run, DatabaseError where there is no database."""
    version = ConfigVersion.objects.filter(pk=1).values_list("version", flat=True).first()
    if version is None:
        raise ConfigurationError("The configuration version is missing from the database: run `manage.py migrate`.")
    return version


def install(using: str = DEFAULT_DB_ALIAS, **signal: Any) -> None:
    """Puts the version's row and all triggers in place; those that are there are replaced. Receiver of `post_migrate`."""
    connection = connections[using]
    if ConfigVersion._meta.db_table not in connection.introspection.table_names():
        return
    with transaction.atomic(using=using), connection.cursor() as cursor:
        ConfigVersion.objects.using(using).get_or_create(pk=1)
        for table in _tables(connection):
            _drop(connection, cursor, table)
            _create(connection, cursor, table)


def make_way(using: str = DEFAULT_DB_ALIAS, plan: Sequence[tuple[Migration, bool]] = (), **signal: Any) -> None:
    """Removes the triggers where the version's own table is about to change: SQLite refuses to alter a table that other
    tables' triggers name. Receiver of `pre_migrate`; `install` follows when the migration is through."""
    if not any(migration.app_label == ConfigVersion._meta.app_label for migration, _ in plan):
        return
    connection = connections[using]
    with transaction.atomic(using=using), connection.cursor() as cursor:
        for table in _tables(connection):
            _drop(connection, cursor, table)


def _tables(connection: BaseDatabaseWrapper) -> list[str]:
    """The configuration's tables that exist: a partial `migrate` may not have made all of them yet."""
    existing = set(connection.introspection.table_names())
    return [table for label in CONFIGURATION if (table := apps.get_model(label)._meta.db_table) in existing]


def _drop(connection: BaseDatabaseWrapper, cursor: CursorWrapper, table: str) -> None:
    quote = connection.ops.quote_name
    if connection.vendor == "postgresql":
        cursor.execute(f"DROP TRIGGER IF EXISTS {quote(_NAME + table)} ON {quote(table)}")
        return
    for operation in _OPERATIONS:
        cursor.execute(f"DROP TRIGGER IF EXISTS {quote(f'{_NAME}{table}_{operation.lower()}')}")


def _create(connection: BaseDatabaseWrapper, cursor: CursorWrapper, table: str) -> None:
    quote = connection.ops.quote_name
    raise_version = f"UPDATE {quote(ConfigVersion._meta.db_table)} SET version = version + 1 WHERE id = 1;"
    if connection.vendor == "postgresql":
        function, events = f"{_NAME}change", " OR ".join((*_OPERATIONS, "TRUNCATE"))
        body = f"BEGIN {raise_version} RETURN NULL; END"
        cursor.execute(f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        trigger = f"CREATE TRIGGER {quote(_NAME + table)} AFTER {events} ON {quote(table)}"
        cursor.execute(f"{trigger} FOR EACH STATEMENT EXECUTE FUNCTION {function}()")
        return
    for operation in _OPERATIONS:
        trigger = f"CREATE TRIGGER {quote(f'{_NAME}{table}_{operation.lower()}')} AFTER {operation} ON {quote(table)}"
        cursor.execute(f"{trigger} BEGIN {raise_version} END")
