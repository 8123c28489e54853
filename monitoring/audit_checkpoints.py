"""The second sink: after each transaction, the head of the chain is signed and appended to a file outside the database.

Whoever cuts the end off the trail, or writes it anew with its key, would have to take the checkpoints back as well, wherever they have
been carried to by then. Each is also a line of the log, so that a log shipper carries them off the machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.db.models import TextField
from django.db.models.functions import Cast

from monitoring import audit, audit_chain, audit_triggers
from monitoring.audit_chain import Bad, Checkpoint, Row
from monitoring.models import AuditEvent
from monitoring.moment import one_moment

log = logging.getLogger(__name__)
_ROWS_AT_ONCE = 2_000


def write(row: Row) -> None:
    """Appends a checkpoint of `row`. Never raises: what it speaks of is committed, and the next checkpoint covers it too."""
    point = audit_chain.sign(audit.keys(), row.sequence, row.hash, row.at)
    line = audit_chain.line_of(point)
    log.info("audit checkpoint %s", line.rstrip())
    try:
        _append(settings.AUDIT_CHECKPOINTS, line.encode())
    except OSError as exc:
        log.error("the checkpoint of audit row %d could not be written to %s (%s)", row.sequence, settings.AUDIT_CHECKPOINTS, exc.strerror)


def _append(path: Path, line: bytes) -> None:
    """In one write, so that lines of several processes do not mix; after a line that lost its end, on a new one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (b"\n" if torn else b"") + line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read() -> tuple[list[Checkpoint], Bad | None]:
    """Raises OSError for a file that cannot be read; one that is not there has none."""
    try:
        text = settings.AUDIT_CHECKPOINTS.read_text(errors="replace")
    except FileNotFoundError:
        return [], None
    return audit_chain.read_checkpoints(text, audit_chain.public_key(audit.keys()))


def rows() -> Iterator[Row]:
    """The whole trail, oldest first."""
    found = AuditEvent.objects.annotate(moment=Cast("at", TextField())).order_by("sequence")
    columns = ["moment" if name == "at" else name for name in Row._fields]
    for values in found.values_list(*columns).iterator(chunk_size=_ROWS_AT_ONCE):
        row = Row(*values)
        yield row._replace(at=_as_hashed(row.at))


def _as_hashed(moment: str) -> str:
    """From the database's own writing. On SQLite anybody can write anything there: what is no moment stays as it is, and does not fit."""
    try:
        return audit_chain.written_moment(datetime.fromisoformat(moment).replace(tzinfo=UTC))
    except ValueError:
        return moment


class Verdict(NamedTuple):
    """`covered`: up to this row checkpoints vouch that nothing was cut off."""

    rows: int
    checkpoints: int
    covered: int
    bad: Bad | None
    missing_triggers: list[str]


def verify() -> Verdict:
    """Reads everything and changes nothing in the database; a whole trail gets a checkpoint of its last row.

    Raises DatabaseError, OSError.
    """
    with one_moment():
        # Before the rows: those that are committed meanwhile have checkpoints of rows that this moment does not have.
        points, bad_file = read()
        count, bad = audit_chain.first_bad(rows(), audit.keys().chain, points)
        last = AuditEvent.objects.order_by("-sequence").first()
    covered = max((point.sequence for point in points), default=0)
    bad = bad or bad_file
    if bad is None and last is not None and covered < count:
        write(Row(*(getattr(last, name) for name in Row._fields))._replace(at=audit_chain.written_moment(last.at)))
    return Verdict(count, len(points), covered, bad, audit_triggers.missing())
