"""Rows that many tests begin with, made once for a file: they stand in a transaction around the tests, which are undone one by one."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from django.db import transaction
from pytest_django import DjangoDbBlocker


@contextmanager
def standing(blocker: DjangoDbBlocker, make: Callable[[], object]) -> Iterator[bytes]:
    """What `make` returns, pickled: each test loads a copy of its own, which it may change. Whatever runs meanwhile sees the rows."""
    around = transaction.atomic()
    around._from_testcase = True  # what is changed within it is told to the audit trail at once
    with ExitStack() as stack:
        with blocker.unblock():
            stack.enter_context(around)
            made = pickle.dumps(make())
        yield made
        with blocker.unblock():
            transaction.set_rollback(True)
            stack.close()
