"""Finds every change that Django's ORM makes, and records it.

All of them (save, create, update, bulk operations, cascades, many-to-many fields, in admin, REST, commands and the shell) end in one of
three methods that execute an INSERT, UPDATE or DELETE. Those are wrapped here, and so is the end of a transaction, at which the trail
is written. Signals would miss `queryset.update()`, `bulk_create` and the columns that a cascade empties; a manager of our own would
miss the models that are not ours. Plain SQL is not seen: docs/audit.md says so. Why: docs/decisions/0010-audit-chain.md.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from functools import wraps
from typing import Any

from django.apps import apps
from django.db import connections, models, transaction
from django.db.models.query import QuerySet
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLDeleteCompiler, SQLInsertCompiler, SQLUpdateCompiler

from monitoring import audit, audit_chain
from monitoring.audit_scope import audited, is_secret, owner_side, recorded_fields

Values = dict[str, Any]
_MAX_TEXT = 2_000
_ROWS_AT_ONCE = 500


def install() -> None:
    """Once in a process, when all models are loaded. Again: nothing happens."""
    if hasattr(transaction.Atomic.__exit__, "__wrapped__"):
        return
    kinds: list[tuple[Any, Any]] = [(SQLInsertCompiler, _inserting), (SQLUpdateCompiler, _updating), (SQLDeleteCompiler, _deleting)]
    for compiler, watching in kinds:
        compiler.execute_sql = _watched(compiler.execute_sql, watching)
    block: Any = transaction.Atomic
    block.__exit__ = _ending(block.__exit__)


def _watched(execute: Callable[..., Any], watching: Callable[[Any], Any]) -> Any:
    @wraps(execute)
    def execute_sql(compiler: Any, *args: Any, **kwargs: Any) -> Any:
        if not audited(compiler.query.model):
            return execute(compiler, *args, **kwargs)
        with transaction.atomic(using=compiler.using, savepoint=False), watching(compiler) as found:
            found.result = execute(compiler, *args, **kwargs)
            return found.result

    return execute_sql


def _ending(leave: Callable[..., None]) -> Any:
    @wraps(leave)
    def __exit__(block: Any, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        connection = connections[block.using or "default"]
        if exc_type is None and connection.run_on_commit and not connection.needs_rollback and _is_outermost(block, connection):
            try:
                audit.write_waiting(connection)
            except BaseException as exc:
                leave(block, type(exc), exc, exc.__traceback__)
                raise
        leave(block, exc_type, exc_value, traceback)

    return __exit__


def _is_outermost(block: Any, connection: Any) -> bool:
    """Django's test cases keep a transaction of their own around everything."""
    return not block._from_testcase and all(outer._from_testcase for outer in connection.atomic_blocks[:-1])


class _Found:
    result: Any = None


# Three kinds of statements ------------------------------------------------------------------------------------------------
@contextmanager
def _inserting(compiler: Any) -> Iterator[_Found]:
    model, objects, found = compiler.query.model, list(compiler.query.objs), _Found()
    if (members := _members(model)) is not None:
        with members.watched(compiler.using, {getattr(row, members.owner_column) for row in objects}):
            yield found
        return
    yield found
    _record_inserts(model, objects, found.result, compiler.using)


def _record_inserts(model: type[models.Model], objects: Sequence[models.Model], returned: Any, using: str) -> None:
    """Where the database chose the id, it is in what the statement returned, in the order of the rows."""
    for number, row in enumerate(objects):
        pk = row.pk if row.pk is not None else returned[number][0] if number < len(returned or ()) else ""
        values = {name: value for name, value in _values(row).items() if value not in (None, "", [], {})}
        values.pop(model._meta.pk.name, None)
        _note("created", row, pk, {name: (None, value) for name, value in values.items()}, using)


@contextmanager
def _updating(compiler: Any) -> Iterator[_Found]:
    model, using = compiler.query.model, compiler.using
    before = {row.pk: _values(row) for row in _affected(compiler)}
    yield _Found()
    for row in _by_pk(model, list(before), using, lock=False):
        new, old = _values(row), before[row.pk]
        if changes := {name: (old[name], value) for name, value in new.items() if old[name] != value}:
            _note("changed", row, row.pk, changes, using)


@contextmanager
def _deleting(compiler: Any) -> Iterator[_Found]:
    model, using = compiler.query.model, compiler.using
    if (members := _members(model)) is not None:
        with members.watched(using, {getattr(row, members.owner_column) for row in _affected(compiler)}):
            yield _Found()
        return
    gone = [(row, audit.label_of(row), _values(row)) for row in _affected(compiler)]
    yield _Found()
    for row, label, values in gone:
        kept = {name: (value, None) for name, value in values.items() if value not in (None, "", [], {}) and name != model._meta.pk.name}
        audit.note(audit.Event("deleted", (model._meta.label, str(row.pk), label), kept), using)


def _note(action: str, row: models.Model, pk: Any, changes: audit.Changes, using: str) -> None:
    audit.note(audit.Event(action, (row._meta.label, str(pk), audit.label_of(row)), changes), using)


# Rows ---------------------------------------------------------------------------------------------------------------------
def _affected(compiler: Any) -> list[models.Model]:
    """The rows that the statement is about to change, locked so that they are what it will find."""
    model, using = compiler.query.model, compiler.using
    query = compiler.query.chain(klass=Query)
    query.clear_ordering(force=True)
    query.select_related = False
    pks = list(QuerySet(model, query=query, using=using).values_list("pk", flat=True))
    return list(_by_pk(model, pks, using, lock=True))


def _by_pk(model: type[models.Model], pks: Sequence[Any], using: str, *, lock: bool) -> Iterable[models.Model]:
    for start in range(0, len(pks), _ROWS_AT_ONCE):
        rows = model._base_manager.using(using).filter(pk__in=pks[start : start + _ROWS_AT_ONCE]).order_by("pk")
        yield from rows.select_for_update() if lock else rows


def _values(row: models.Model) -> Values:
    return {field.name: _shown(field, field.value_from_object(row)) for field in recorded_fields(type(row))}


def _shown(field: models.Field[Any, Any], value: Any) -> Any:
    """Fit for JSON. Long texts are cut, with a digest of the whole."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if is_secret(field):
        raw = value.encode() if isinstance(value, str) else bytes(value)
        return audit_chain.keyed_hash(audit.keys(), f"{field.model._meta.label}.{field.name}", raw) if raw else ""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | dict):
        return value
    text = str(value)
    if len(text) <= _MAX_TEXT:
        return text
    return f"{text[:_MAX_TEXT]}… ({len(text)} characters, sha256 {hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()})"


# Many-to-many -------------------------------------------------------------------------------------------------------------
class _Members:
    """The table behind a many-to-many field: a change of it is a change of the field at its owner."""

    def __init__(self, field: models.ManyToManyField[Any, Any], owner_column: str, target_column: str) -> None:
        self.field = field
        self.owner_column = owner_column
        self.target_column = target_column

    @contextmanager
    def watched(self, using: str, owners: set[Any]) -> Iterator[None]:
        before = self._of(owners, using)
        # Named now: a cascade may delete the owner next.
        rows = list(_by_pk(self.field.model, sorted(owners), using, lock=False))
        yield
        after = self._of(owners, using)
        for row in rows:
            if before[row.pk] != after[row.pk]:
                _note("changed", row, row.pk, {self.field.name: (before[row.pk], after[row.pk])}, using)

    def _of(self, owners: set[Any], using: str) -> dict[Any, list[str]]:
        through: Any = self.field.remote_field.through
        pairs = through._base_manager.using(using).filter(**{f"{self.owner_column}__in": owners})
        targets: dict[Any, list[Any]] = defaultdict(list)
        for owner, target in pairs.values_list(self.owner_column, self.target_column):
            targets[owner].append(target)
        named = self._names({target for found in targets.values() for target in found}, using)
        return defaultdict(list, {owner: sorted(named[target] for target in found) for owner, found in targets.items()})

    def _names(self, pks: set[Any], using: str) -> dict[Any, str]:
        target: Any = self.field.related_model
        rows = target._base_manager.using(using).filter(pk__in=pks)
        if target._meta.label == "auth.Permission":
            return {row.pk: f"{row.content_type.app_label}.{row.codename}" for row in rows.select_related("content_type")}
        return {row.pk: audit.label_of(row) for row in rows}


def _members(model: type[models.Model]) -> _Members | None:
    side = owner_side(model)
    return None if side is None else _Members(*side)


def audited_models() -> list[type[models.Model]]:
    return [model for model in apps.get_models(include_auto_created=True) if audited(model)]
