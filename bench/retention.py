"""What deleting old rows costs: the second half of `make bench-logs`, on the tables that it built."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import quantiles
from threading import Thread

_ASKED = 60


def measure(ask: Callable[[], float], write: Callable[[], None]) -> None:
    """Deletes the oldest day with the product's own batches, and prints how long a batch takes, and what a list and a write take meanwhile.

    `ask` gets one page and returns its ms; `write` enters one row of the ledger.
    """
    from monitoring.models import RequestLog, UsageRecord

    before = _end_of_the_oldest_day()
    old = sum(model.objects.filter(started_at__lt=before).count() for model in (RequestLog, UsageRecord))
    alone, writes_alone = [ask() for _ in range(_ASKED)], [_timed(write) for _ in range(_ASKED)]
    pruning = _Pruning(before)
    pruning.start()
    during, writes_during = [], []
    while len(during) < _ASKED or pruning.is_alive():
        during.append(ask())
        writes_during.append(_timed(write))
    pruning.join()
    print(f"\nthe oldest day deleted: {old:,} rows in {pruning.took_s:.0f} s, {old / pruning.took_s:,.0f} rows/s")
    for name, took in (
        ("one batch", pruning.batches_ms),
        ("one batch, CPU", pruning.cpu_ms),
        ("requests, first page: before", alone),
        ("requests, first page: meanwhile", during),
        ("one row written: before", writes_alone),
        ("one row written: meanwhile", writes_during),
    ):
        parts = quantiles(took, n=20, method="inclusive")
        print(f"{name:62}{parts[9]:9.1f}{parts[18]:9.1f}   longest {max(took):.1f}", flush=True)
    assert not pruning.failures, pruning.failures


def _end_of_the_oldest_day() -> datetime:
    from monitoring.models import RequestLog

    oldest = RequestLog.objects.order_by("started_at").values_list("started_at", flat=True)[0]
    return datetime.fromtimestamp((oldest.timestamp() // 86_400 + 1) * 86_400, UTC)


def _timed(what: Callable[[], None]) -> float:
    begun = time.perf_counter()
    what()
    return (time.perf_counter() - begun) * 1000


class _Pruning(Thread):
    """Batch after batch on a connection of its own, as a serving process deletes, but without its pauses."""

    def __init__(self, before: datetime) -> None:
        super().__init__()
        self._before = before
        self.batches_ms: list[float] = []
        self.cpu_ms: list[float] = []  # of this process: on SQLite that is all of it
        self.failures: list[Exception] = []
        self.took_s = 0.0

    def run(self) -> None:
        from django.db import DatabaseError, connection

        from monitoring.retention import prune_batch

        begun, gone = time.monotonic(), 1
        try:
            while gone:
                at, cpu = time.perf_counter(), time.thread_time()
                gone = prune_batch(self._before)
                self.batches_ms.append((time.perf_counter() - at) * 1000)
                self.cpu_ms.append((time.thread_time() - cpu) * 1000)
        except DatabaseError as exc:
            self.failures.append(exc)
        finally:
            self.took_s = time.monotonic() - begun
            connection.close()
