"""Does every stored secret open, and under which key? Each is opened to find out; what was inside goes nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from django.db.models import Model

from core.secrets import CannotOpen, KekAway, KeyRing
from providers.sealing import DAMAGED, Column, columns, id_of, rows_of

# One look opens no more: under a key at a service, each secret may be a call there.
PAGE_ROWS = 100
State = Literal["opens", "away", "does_not_open"]


class Place(NamedTuple):
    """Where a secret lies, and the id of the KEK it names; DAMAGED = it names none."""

    column: Column
    pk: Any
    kek_id: int


class Health(NamedTuple):
    """Of one secret. `kek_version`: of the KEK, "" where there is but one or it is not known; `problem`: what to do, "" where it opens."""

    kind: str
    id: str
    name: str
    kek_id: int | None
    kek_version: str
    current: bool
    state: State
    problem: str


class Look(NamedTuple):
    """One page of them, numbered from 1. `by_key`: how many of all there are, by KEK id."""

    total: int
    by_key: dict[int, int]
    damaged: int
    current_key: int
    page: int
    pages: int
    results: list[Health]


def look(ring: KeyRing, page: int = 1, may_see: Callable[[type[Model]], bool] = lambda model: True) -> Look:
    """Secrets of the models that `may_see` admits. A page beyond the last is the last one."""
    places = [place for column in columns() if may_see(column.model) for place in _places(column)]
    pages = max(1, -(-len(places) // PAGE_ROWS))
    page = min(max(page, 1), pages)
    under = Counter(place.kek_id for place in places)
    damaged = under.pop(DAMAGED, 0)
    shown = places[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
    return Look(len(places), dict(sorted(under.items())), damaged, ring.current, page, pages, list(_opened(ring, shown)))


def _places(column: Column) -> Iterator[Place]:
    for pk, token in column.model._base_manager.order_by("pk").values_list("pk", column.name).iterator():
        yield Place(column, pk, id_of(bytes(token)))


def _opened(ring: KeyRing, places: Sequence[Place]) -> Iterator[Health]:
    for column, group in groupby(places, key=lambda place: place.column):
        for row in rows_of(column, [place.pk for place in group]):
            yield health(ring, row, bytes(getattr(row, column.name)))


def health(ring: KeyRing, row: Any, token: bytes) -> Health:
    kek_id, version, problem = id_of(token), "", ""
    state: State = "opens"
    try:
        version = ring.version(token)
        ring.open(token, row.bound_to())
    except KekAway as away:
        state, problem = "away", f"{away}."
    except CannotOpen as error:
        state, problem = "does_not_open", f"{error}."
    kind = str(row._meta.verbose_name).capitalize()
    return Health(kind, str(row.pk), str(row), kek_id or None, version, kek_id == ring.current, state, problem)
