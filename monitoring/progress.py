"""How far the streams of one process have come, kept beside its journal for the case that the process is killed.

Two files take turns, each rewritten in place with one frame that says all of it: a kill in the middle of one write leaves
the other file whole, and however long streams last, nothing grows. In the journal itself an unfinished attempt keeps all
that was written since on disk, and the drainer would have to read what replay alone can use.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from core.errors import AccountingUnavailable
from monitoring.journal import AttemptSettled, frame
from monitoring.journal_reading import read_segment

# What would be settled if the attempt ended now; `status` and `error_code` are those of an answer that is whole.
Progress = dict[tuple[str, int], AttemptSettled]


def progress_paths(directory: Path, token: str) -> tuple[Path, Path]:
    return directory / f"{token}.progress-a", directory / f"{token}.progress-b"


class ProgressFiles:
    """The writer's side. Used from the event loop's thread alone."""

    def __init__(self, directory: Path, token: str) -> None:
        self._paths = progress_paths(directory, token)
        self._fds: list[int] = []
        self._turn = 0

    def write(self, so_far: Sequence[AttemptSettled]) -> None:
        """`so_far` holds every stream under way, and replaces what was written before. Raises AccountingUnavailable."""
        try:
            data = frame(*so_far)
            for path in self._paths[len(self._fds) :]:
                self._fds.append(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            written = os.pwrite(self._fds[self._turn], data, 0)
        except (OSError, UnicodeEncodeError) as exc:
            raise _unavailable(str(exc)) from exc
        if written != len(data):  # the other file, which is whole, must not be next
            raise _unavailable(f"{written} of {len(data)} bytes were written")
        self._turn = 1 - self._turn

    def close(self) -> None:
        """Idempotent; nothing can be written any more. The files stay until the journal is cleared away."""
        fds, self._fds = set(self._fds) - {-1}, [-1, -1]
        for fd in fds:
            os.close(fd)


def _unavailable(detail: str) -> AccountingUnavailable:
    return AccountingUnavailable("How far the streams have come cannot be written down.", detail=detail)


def read_progress(directory: Path, token: str) -> Progress:
    """Of each attempt the latest that can be read; also of some that have been settled since. Raises OSError."""
    latest: Progress = {}
    for path in progress_paths(directory, token):
        with suppress(FileNotFoundError):
            # Behind the frame there may be the end of a longer one of before, which counts as damage and is no loss.
            for _, records in read_segment(path).writes:
                _take_later(latest, [record for record in records if isinstance(record, AttemptSettled)])
    return latest


def _take_later(latest: Progress, records: Sequence[AttemptSettled]) -> None:
    for record in records:
        key = record.request_id, record.attempt
        known = latest.get(key)
        if known is None or record.duration_ms > known.duration_ms:
            latest[key] = record


def remove_progress(directory: Path, token: str) -> None:
    for path in progress_paths(directory, token):
        path.unlink(missing_ok=True)
