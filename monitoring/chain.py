"""One process's journal, read in order into the ledger.

Whatever fails, the records stay in the journal and are tried again. Nothing is inserted twice, because every row has a
unique id; so each step may be interrupted anywhere and repeated.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from monitoring import journal_reading, ledger
from monitoring.interruption import Interruption
from monitoring.journal import AttemptSettled, Position, segment_numbers, segment_path
from monitoring.journal_reading import SegmentRead, read_segment
from monitoring.ledger import REQUESTS, USAGE, Row, Table
from monitoring.pairing import Books, Unfinished
from monitoring.progress import read_progress, remove_progress
from monitoring.reserve import reserve_path

log = logging.getLogger(__name__)

REFUSED_FILE = "refused.jsonl"
# Renaming a file costs up to milliseconds, reading some batches once more after a crash costs little.
_BATCHES_PER_CHECKPOINT = 16


@dataclass
class Report:
    """What was done: numbers of journals and of new rows, and in plain words what could not be done."""

    journals: int = 0
    in_use: int = 0
    usage_records: int = 0
    request_logs: int = 0
    interrupted: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Batch:
    """Records that were read and are not in the ledger yet. `begin` is where they were read."""

    begin: Position
    rows: list[tuple[Table, Row]] = field(default_factory=list)
    strays: list[AttemptSettled] = field(default_factory=list)


class Chain:
    """One process's segments, read in order into the ledger, with the place up to which that is done on disk beside them."""

    def __init__(self, directory: Path, token: str, report: Report | None = None, *, adopted: bool = False) -> None:
        """`adopted`: its process is dead, and may have entered more than the checkpoint says."""
        self.report = report if report is not None else Report()
        self._directory = directory
        self._token = token
        self._adopted = adopted
        self._checkpoint_path = directory / f"{token}.checkpoint"
        self._new_checkpoint_path = directory / f"{token}.checkpoint-new"
        self._checkpoint = self._at = self._load_checkpoint()
        self._books = Books()
        self._waiting: deque[Batch] = deque()
        self._stored_since_checkpoint = 0

    def advance(self, last: Position) -> bool:
        """Brings the next records before `last` into the ledger. False where there are none.

        Raises DatabaseError or OSError; the records are then kept and come first in the next call.
        """
        if not self._waiting:
            batch = self._read(last)
            if batch is None:
                self._save_checkpoint()
                return False
            self._waiting.append(batch)
        self._store_waiting()
        return True

    def give_up(self, why: Interruption, begun_before: float = float("inf")) -> None:
        """Enters everything that began before that moment (wall seconds) and has no end as interrupted. Raises as `advance`."""
        if not self._books.has_unfinished(begun_before):
            return self._save_checkpoint()
        rows = self._books.give_up(why, begun_before, read_progress(self._directory, self._token))
        self.report.interrupted += sum(table is USAGE for table, _ in rows)
        size = journal_reading.MAX_RECORDS
        self._waiting.extend(Batch(self._at, rows[start : start + size]) for start in range(0, len(rows), size))
        self._store_waiting()
        self._save_checkpoint()

    def open_requests(self, most: int) -> list[Unfinished]:
        """See `Books.open_requests`: as of what was read last."""
        return self._books.open_requests(most)

    def backlog_bytes(self, last: Position) -> int:
        """How much of the journal before `last` is not in the ledger."""
        at = self._waiting[0].begin if self._waiting else self._at
        waiting = last.offset - at.offset
        for sequence in range(at.sequence, last.sequence):
            with suppress(FileNotFoundError):
                waiting += segment_path(self._directory, self._token, sequence).stat().st_size
        return max(0, waiting)

    def remove(self) -> None:
        """Clears the journal of a dead process away. The lock's file goes last: until then it is ours."""
        for sequence in segment_numbers(self._directory, self._token):
            segment_path(self._directory, self._token, sequence).unlink(missing_ok=True)
        for path in (self._checkpoint_path, self._new_checkpoint_path, reserve_path(self._directory, self._token)):
            path.unlink(missing_ok=True)
        remove_progress(self._directory, self._token)
        (self._directory / f"{self._token}.lock").unlink(missing_ok=True)

    def _read(self, last: Position) -> Batch | None:
        while self._at < last:
            is_last = self._at.sequence == last.sequence
            path = segment_path(self._directory, self._token, self._at.sequence)
            try:
                read = read_segment(path, self._at.offset, end=last.offset if is_last else None)
            except FileNotFoundError:
                if is_last:
                    raise
                self._problem(f"{path.name} is missing; its records are lost")
                read = SegmentRead([], self._at.offset, [])
            if read.next_offset > self._at.offset:
                return self._pair(path, read)
            if is_last:
                break
            self._at = Position(self._at.sequence + 1, 0)
        return None

    def _pair(self, path: Path, read: SegmentRead) -> Batch:
        if read.damage:
            with suppress(FileExistsError):  # the segment itself goes when it is drained; this name keeps it for a look
                os.link(path, path.with_suffix(".damaged"))
        for damage in read.damage:
            self._problem(str(damage))
        batch = Batch(self._at, *self._books.take(self._at.sequence, read.writes))
        self._at = Position(self._at.sequence, read.next_offset)
        return batch

    def _store_waiting(self) -> None:
        while self._waiting:
            self._store(self._waiting[0])
            self._waiting.popleft()
            self._stored_since_checkpoint += 1
        if self._stored_since_checkpoint >= _BATCHES_PER_CHECKPOINT:
            self._save_checkpoint()

    def _store(self, batch: Batch) -> None:
        rows, too_old = ledger.recallable(batch.rows) if self._adopted else (batch.rows, [])
        new, refused = ledger.insert(rows) if rows else ({}, [])
        self.report.usage_records += new.get(USAGE, 0)
        self.report.request_logs += new.get(REQUESTS, 0)
        lines = [row.as_json() for row in (*too_old, *refused)]
        if batch.strays:  # usual after a restart: their openings lie before the checkpoint, and they are in the ledger
            known = ledger.known_attempts(settled.request_id for settled in batch.strays)
            lines += [_stray_line(settled) for settled in batch.strays if (settled.request_id, settled.attempt) not in known]
        if lines:
            self._refuse(lines)

    def _refuse(self, lines: Sequence[str]) -> None:
        path = self._directory / REFUSED_FILE
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
            file.write("".join(line + "\n" for line in lines))
        self.report.refused += len(lines)
        self._problem(f"{len(lines)} records cannot be entered in the ledger; they and the reasons are in {path}")

    def _problem(self, sentence: str) -> None:
        log.error("journal: %s", sentence)
        self.report.problems.append(sentence)

    def _load_checkpoint(self) -> Position:
        try:
            return msgspec.convert(json.loads(self._checkpoint_path.read_bytes()), Position)
        except (FileNotFoundError, ValueError, msgspec.ValidationError):
            # Reading too much is harmless, so a checkpoint that does not read means "from the beginning".
            return Position(next(iter(segment_numbers(self._directory, self._token)), 1), 0)

    def _save_checkpoint(self) -> None:
        """Never past the beginning of something unfinished, so that whoever reads on from here finds it."""
        self._stored_since_checkpoint = 0
        oldest = self._books.oldest()
        checkpoint = min(oldest, self._at) if oldest else self._at
        if checkpoint == self._checkpoint:
            return
        self._new_checkpoint_path.write_text(json.dumps(checkpoint))
        self._new_checkpoint_path.replace(self._checkpoint_path)
        for sequence in range(self._checkpoint.sequence, checkpoint.sequence):
            segment_path(self._directory, self._token, sequence).unlink(missing_ok=True)
        self._checkpoint = checkpoint


def _stray_line(settled: AttemptSettled) -> str:
    reason = "the record of this attempt's beginning is lost"
    row = msgspec.structs.asdict(settled)  # in the journal it is an array, here it names its fields
    return msgspec.json.encode({"table": USAGE.model._meta.db_table, "reason": reason, "row": row}).decode()
