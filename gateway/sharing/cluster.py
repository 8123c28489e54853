"""Limits that every process of every machine shares, kept in Redis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol


class Line(NamedTuple):
    """One limit that a request has to pass, or one thing it takes from. The `name`s of one request differ.

    bucket: `amount` units of `capacity`, refilled at `rate` a second (`gateway.rates.Bucket`).
    window: one start, at most `capacity` in any `capacity / rate` seconds (`gateway.rates.Window`).
    slots: one call in flight, at most `capacity` at once; `rate` and `amount` are not looked at.

    `patience_s` None: it lets in at once, or refuses. Otherwise it is booked, from the future if need be, where the wait
    is no longer than that (`gateway.rates.Rate.book`).
    `place`: of a window that is given back, the one that `Taken.places` named.
    """

    name: str
    kind: Literal["bucket", "window", "slots"]
    capacity: float
    rate: float = 0.0
    amount: float = 1.0
    patience_s: float | None = None
    place: float = 0.0


class Taken(NamedTuple):
    """`admitted` False: one of the lines refused, and nothing was taken of any.

    `seen`, for each line: of a bucket the seconds until it is full again, of slots the calls in flight everywhere (this one
    included, if admitted), of a window the starts in it now. `waits_s`: until what was booked may be used, or, of a line
    that stands in the way, until it could let this request in (slots: 0.0, nobody knows). `places`: the moment of a window's
    start on the clock that all share, which `give_back` needs. All as of the moment of the answer.
    """

    admitted: bool
    seen: tuple[float, ...]
    waits_s: tuple[float, ...]
    places: tuple[float, ...] = ()


def placed(lines: Sequence[Line], taken: Taken) -> list[Line]:
    """`lines` as `Cluster.give_back` needs them, once they were taken."""
    return [line._replace(place=taken.places[at]) if line.kind == "window" else line for at, line in enumerate(lines)]


class ClusterDown(Exception):
    """Redis did not answer in time, or is known to be away: decide by what this machine knows."""


class Cluster(Protocol):
    @property
    def up(self) -> bool:
        """Whether it is worth asking. False from the first failure until Redis answers again."""
        ...

    async def take(self, lines: Sequence[Line]) -> Taken:
        """All of `lines`, or none where one refuses. Raises ClusterDown, after at most 50 ms."""
        ...

    def give_back(self, lines: Iterable[Line]) -> None:
        """`amount` of each bucket (negative: takes more), the windows' places and the slots; soon, without waiting. Never raises."""
        ...

    def hold(self, lines: Iterable[Line]) -> None:
        """The slots among `lines` were taken while nobody could be asked: they count once Redis is back. `give_back` ends it."""
        ...
