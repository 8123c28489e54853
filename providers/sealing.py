"""Every stored secret, whatever its table, and sealing it anew under the current key-encryption key (KEK), while serving.

A model joins by having an `EncryptedField` and a method `bound_to()`; in reports a row goes by `str(row)`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.apps import apps
from django.db import OperationalError, connection, models, transaction

from core.secrets import CannotOpen, KekAway, KeyRing, sealed_under
from providers.fields import EncryptedField

DAMAGED = 0  # stands for the KEK id of bytes that name none
DEFAULT_BATCH_ROWS = 500
MAX_BATCH_ROWS = 2_000

# What PostgreSQL says where we waited too long for another transaction, or it and we waited for each other.
_BUSY = ("55P03", "40P01")
# Half of PostgreSQL's `deadlock_timeout`: where we and an administrator wait for each other, we are the one to give way.
_LOCK_TIMEOUT_MS = 500
_IDLE_PASSES = 50
_IDLE_S = 0.2


class Column(NamedTuple):
    """A column of sealed secrets."""

    model: type[models.Model]
    name: str


@dataclass
class Census:
    """Which secrets there are. `under`: how many by KEK id; `stale`: the rows that are not sealed under the current KEK."""

    under: Counter[int] = field(default_factory=Counter)
    stale: dict[Column, list[Any]] = field(default_factory=dict)

    @property
    def stale_rows(self) -> int:
        return sum(map(len, self.stale.values()))


@dataclass
class Progress:
    """What a run has done: `resealed` rows so far, and `problems`, a sentence for each row that was found not to open."""

    census: Census
    resealed: int = 0
    problems: dict[tuple[Column, Any], str] = field(default_factory=dict)


def take_census(ring: KeyRing) -> Census:
    """Reads every sealed secret's head, and opens none."""
    census = Census()
    for column in columns():
        stale = census.stale[column] = []
        for pk, token in column.model._base_manager.order_by("pk").values_list("pk", column.name).iterator():
            id_ = id_of(bytes(token))
            census.under[id_] += 1
            if id_ != ring.current:
                stale.append(pk)
    return census


def unreadable(ring: KeyRing, census: Census, batch_rows: int = DEFAULT_BATCH_ROWS) -> list[str]:
    """A sentence for each stale row that could not be sealed anew. Changes nothing. Raises KekAway."""
    problems: dict[tuple[Column, Any], str] = {}
    for column, pks in _batches(census, batch_rows):
        _prepared(ring, column, pks, problems)
    return list(problems.values())


def reseal_all(ring: KeyRing, batch_rows: int = DEFAULT_BATCH_ROWS, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[Progress]:
    """Seals all stale rows under the current KEK. Yields at the start and after each batch; the last census is the final one.

    A batch is a transaction, so this can be killed and begun again at any point, and can run twice at once: rows that
    another transaction holds are left alone and looked at again. Rows that are held on to for long stay stale in the last
    census. A row that does not open is no obstacle to the others. Raises DatabaseError and KekAway; what was done by then is done.
    """
    progress = Progress(take_census(ring))
    yield progress
    idle_passes = 0
    while progress.census.stale_rows > len(progress.problems) and idle_passes < _IDLE_PASSES:
        before, progress.problems = progress.resealed, {}
        for column, pks in _batches(progress.census, batch_rows):
            _reseal_batch(ring, column, pks, progress)
            yield progress
        if progress.resealed == before:
            idle_passes += 1
            sleep(_IDLE_S)
        progress.census = take_census(ring)  # also finds what processes without the new KEK have sealed meanwhile
        yield progress


def _reseal_batch(ring: KeyRing, column: Column, pks: Sequence[Any], progress: Progress) -> None:
    """Sealed anew before anything is locked: a key at a service takes its time. What is found changed under the lock is left
    for the next pass, so that a secret that somebody enters meanwhile is never overwritten."""
    problems: dict[tuple[Column, Any], str] = {}
    prepared = _prepared(ring, column, pks, problems)
    moved: Counter[int] = Counter()
    try:
        with transaction.atomic():
            changed = []
            for row in _locked(rows_of(column, list(prepared))):
                before, after = prepared[row.pk]
                if bytes(getattr(row, column.name)) == before:
                    setattr(row, column.name, after)
                    moved[id_of(before)] += 1
                    changed.append(row)
            # One statement: on PostgreSQL it raises the configuration's version once, on SQLite once for each row; either
            # way processes see one change, when it is committed.
            column.model._base_manager.bulk_update(changed, [column.name])
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) not in _BUSY:
            raise
        return
    progress.problems |= problems
    progress.resealed += len(changed)
    progress.census.under[ring.current] += len(changed)
    progress.census.under -= moved


def _prepared(ring: KeyRing, column: Column, pks: Sequence[Any], problems: dict[tuple[Column, Any], str]) -> dict[Any, tuple[bytes, bytes]]:
    """Key of a row → what is stored, and what is to be. Into `problems` a sentence for each that does not open."""
    prepared: dict[Any, tuple[bytes, bytes]] = {}
    for row in rows_of(column, pks):
        token = bytes(getattr(row, column.name))
        if id_of(token) == ring.current:
            continue
        try:
            prepared[row.pk] = token, ring.reseal(token, row.bound_to())
        except KekAway:
            raise
        except CannotOpen as error:
            problems[column, row.pk] = _sentence(row, error)
    return prepared


def columns() -> list[Column]:
    return [
        Column(model, each.name)
        for model in apps.get_models()
        for each in model._meta.local_fields
        if isinstance(each, EncryptedField) and not model._meta.proxy
    ]


def _batches(census: Census, batch_rows: int) -> Iterator[tuple[Column, list[Any]]]:
    for column, pks in census.stale.items():
        for start in range(0, len(pks), batch_rows):
            yield column, pks[start : start + batch_rows]


def rows_of(column: Column, pks: Sequence[Any]) -> models.QuerySet[Any]:
    """With the rows they refer to: a provider key is bound to its provider's address."""
    return column.model._base_manager.filter(pk__in=pks).select_related().order_by("pk")


def _locked(rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
    """SQLite has one writer, and inside a transaction that is us; PostgreSQL locks rows."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
    return rows.select_for_update(of=("self",), skip_locked=True)


def _sentence(row: models.Model, error: CannotOpen) -> str:
    return f"{str(row._meta.verbose_name).capitalize()} {row}: {error}."


def id_of(token: bytes) -> int:
    try:
        return sealed_under(token)
    except CannotOpen:
        return DAMAGED
