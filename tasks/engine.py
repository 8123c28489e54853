"""The port between the queue and what wakes its workers. Whichever engine it is, it carries no more than ids: the row is the truth.

SQLite, embedded: dispatchers look at the rows themselves, and whoever submits in the same process wakes its own.
PostgreSQL, distributed: procrastinate hands the ids to workers on any number of machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from django.apps import apps

DISTRIBUTED_APP = "procrastinate.contrib.django"


class Waiting(NamedTuple):
    """A task that has just come into the queue. Of those that are due, the one of the smallest `rank` comes first; `run_after`:
    wall seconds before which it is not due."""

    task_id: str
    rank: float
    run_after: float


def distributed() -> bool:
    return apps.is_installed(DISTRIBUTED_APP)


def enqueue(waiting: Sequence[Waiting]) -> None:
    """Called in the transaction that puts them into the queue, so that no id is told of that is not there, and none is forgotten."""
    if waiting and distributed():
        from tasks import jobs  # what SQLite does without

        jobs.enqueue(waiting)
