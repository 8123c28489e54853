"""Bodies of requests and answers in a table of their own: entered behind the requests, compressed, read one at a time, soon deleted."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta

import msgspec
from django.db import transaction

from core.clock import Clock
from monitoring import audit
from monitoring.body_queue import Bodies, BodyQueue, Headers, Pairs
from monitoring.models import AuditEvent, RequestBody, RequestLog

PRUNE_INTERVAL_S = 600.0
_ROWS_PER_INSERT = 20
_INSERTS_PER_STEP = 10
_ROWS_PER_DELETE = 100
_LEVEL = 3  # of zlib: text shrinks to a third at some 60 MB/s


class BodyStore:
    """The other end of the queue, in the drainer's thread; keeps bodies for `days`."""

    def __init__(self, queue: BodyQueue | None, days: int, clock: Clock) -> None:
        """`queue` None: nothing comes any more, and what there is still goes."""
        self._queue = queue
        self._days = days
        self._clock = clock
        self._prune_at_s = clock.monotonic()

    def step(self) -> None:
        """Bounded work. Raises DatabaseError; what could not be entered then waits."""
        if self._queue is not None:
            _enter(self._queue)
        if self._clock.monotonic() >= self._prune_at_s and not prune(kept_since(self._clock.wall(), self._days)):
            self._prune_at_s = self._clock.monotonic() + PRUNE_INTERVAL_S


def _enter(queue: BodyQueue) -> None:
    for _ in range(_INSERTS_PER_STEP):
        waiting = queue.first(_ROWS_PER_INSERT)
        if not waiting:
            break
        # One that is there already was entered by a pass that did not hear of its own success.
        RequestBody.objects.bulk_create(map(_row, waiting), ignore_conflicts=True)
        queue.done(len(waiting))


def kept_since(now_s: float, days: int) -> datetime:
    return datetime.fromtimestamp(now_s, UTC) - timedelta(days=days)


def prune(before: datetime) -> int:
    """Deletes a batch of what is older; returns how many. Raises DatabaseError."""
    old = RequestBody.objects.filter(started_at__lt=before).order_by("started_at").values_list("pk", flat=True)
    return RequestBody.objects.filter(pk__in=list(old[:_ROWS_PER_DELETE])).delete()[0]


def kept(request: RequestLog) -> bool:
    """Whether there is something to read; that this was asked is not recorded."""
    return RequestBody.objects.filter(request_id=request.request_id).exists()


def read(request: RequestLog) -> Bodies | None:
    """What is kept of one request, None = nothing. That it was read is in the audit trail, or else it is not. Raises AuditUnavailable."""
    with transaction.atomic():
        row = RequestBody.objects.filter(request_id=request.request_id).first()
        if row is None:
            return None
        audit.record(AuditEvent.Action.BODY_READ, request)
    return Bodies(
        row.request_id,
        row.started_at.timestamp(),
        row.key_id,
        zlib.decompress(bytes(row.request)),
        zlib.decompress(bytes(row.response)),
        row.request_bytes,
        row.response_bytes,
        _unpacked(row.headers),
    )


def headers(request: RequestLog) -> Headers | None:
    """Those that are kept of one request, None = none. That they were looked at is not recorded: nothing of what was said is in them."""
    packed = RequestBody.objects.filter(request_id=request.request_id).values_list("headers", flat=True).first()
    return headers_of(_unpacked(packed))


def headers_of(kept: bytes) -> Headers | None:
    """`kept`: `Bodies.headers`."""
    return msgspec.json.decode(kept, type=Headers) if kept else None


def _unpacked(column: bytes | memoryview | None) -> bytes:
    return zlib.decompress(bytes(column)) if column else b""


def shown(text: bytes, whole_bytes: int) -> dict[str, object]:
    """For people and JSON: a sign stands for what is no text."""
    words = text.decode(errors="replace").replace("\0", "\ufffd")
    return {"text": words, "bytes": whole_bytes, "cut": whole_bytes > len(text)}


def as_json(headers: Headers) -> dict[str, object]:
    """For REST."""
    attempts = [{"attempt": each.attempt, "status": each.status, "headers": _named(each.headers)} for each in headers.attempts]
    return {"request": _named(headers.request), "response": _named(headers.response), "attempts": attempts}


def _named(pairs: Pairs) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs]


def _row(bodies: Bodies) -> RequestBody:
    return RequestBody(
        request_id=bodies.request_id,
        started_at=datetime.fromtimestamp(bodies.started_at, UTC),
        key_id=bodies.key_id,
        request=zlib.compress(bodies.request, _LEVEL),
        response=zlib.compress(bodies.response, _LEVEL),
        request_bytes=bodies.request_bytes,
        response_bytes=bodies.response_bytes,
        headers=zlib.compress(bodies.headers, _LEVEL),
    )
