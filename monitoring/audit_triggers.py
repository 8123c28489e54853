"""Triggers that refuse to change, delete or reorder rows of the audit trail, whoever asks. They stop accidents and applications; who
owns the database can drop them, and then the chain tells.

Installed after every `migrate`, as SQLite rebuilds a table to alter it and its triggers go with the old one.
"""

from __future__ import annotations

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

_NAME = "audit_rows_stay"
_FUNCTION = "audit_refuse"
_SENTENCE = "rows of the audit trail are never changed, deleted or put in between"


def install(using: str = DEFAULT_DB_ALIAS, **signal: Any) -> None:
    """Receiver of `post_migrate`; triggers that are there are replaced."""
    connection = connections[using]
    if _table() not in connection.introspection.table_names():
        return
    remove(using)
    create = _for_postgres if connection.vendor == "postgresql" else _for_sqlite
    with transaction.atomic(using=using), connection.cursor() as cursor:
        for statement in create(connection):
            cursor.execute(statement)


def remove(using: str = DEFAULT_DB_ALIAS) -> None:
    connection = connections[using]
    table = connection.ops.quote_name(_table())
    on_table = f" ON {table}" if connection.vendor == "postgresql" else ""
    with transaction.atomic(using=using), connection.cursor() as cursor:
        for event in ("update", "delete", "insert", "truncate"):
            cursor.execute(f"DROP TRIGGER IF EXISTS {_NAME}_{event}{on_table}")


def missing(using: str = DEFAULT_DB_ALIAS) -> list[str]:
    """Names of triggers that should be there."""
    connection = connections[using]
    events = ["update", "delete", "insert", *(["truncate"] if connection.vendor == "postgresql" else [])]
    query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    if connection.vendor == "postgresql":
        query = f"SELECT tgname FROM pg_trigger WHERE tgrelid = '{_table()}'::regclass AND tgenabled <> 'D'"
    with connection.cursor() as cursor:
        cursor.execute(query)
        there = {name for (name,) in cursor.fetchall()}
    return [name for event in events if (name := f"{_NAME}_{event}") not in there]


def _for_sqlite(connection: BaseDatabaseWrapper) -> list[str]:
    table, refuse = connection.ops.quote_name(_table()), f"SELECT RAISE(ABORT, '{_SENTENCE}')"
    out_of_order = f"NEW.sequence <> (SELECT coalesce(max(sequence), 0) + 1 FROM {table})"
    return [
        f"CREATE TRIGGER {_NAME}_update BEFORE UPDATE ON {table} BEGIN {refuse}; END",
        f"CREATE TRIGGER {_NAME}_delete BEFORE DELETE ON {table} BEGIN {refuse}; END",
        f"CREATE TRIGGER {_NAME}_insert BEFORE INSERT ON {table} WHEN {out_of_order} BEGIN {refuse}; END",
    ]


def _for_postgres(connection: BaseDatabaseWrapper) -> list[str]:
    table = connection.ops.quote_name(_table())
    refuse = f"RAISE EXCEPTION '{_SENTENCE}' USING ERRCODE = 'insufficient_privilege';"
    out_of_order = f"NEW.sequence <> (SELECT coalesce(max(sequence), 0) + 1 FROM {table})"
    in_order = f"IF {out_of_order} THEN {refuse} END IF; RETURN NEW;"
    return [
        f"CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {refuse} END $$",
        f"CREATE OR REPLACE FUNCTION {_FUNCTION}_disorder() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {in_order} END $$",
        f"CREATE TRIGGER {_NAME}_update BEFORE UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {_FUNCTION}()",
        f"CREATE TRIGGER {_NAME}_delete BEFORE DELETE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {_FUNCTION}()",
        f"CREATE TRIGGER {_NAME}_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {_FUNCTION}()",
        f"CREATE TRIGGER {_NAME}_insert BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {_FUNCTION}_disorder()",
    ]


def _table() -> str:
    from monitoring.models import AuditEvent

    return AuditEvent._meta.db_table
