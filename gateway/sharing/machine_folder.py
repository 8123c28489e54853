"""The folder that the worker processes of one machine share, made and removed by their supervisor."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.sharing.machine_region import MAX_COLUMNS, Region, can_share, create

_log = logging.getLogger(__name__)
_MEMORY = Path("/dev/shm")  # holds a folder of ours, mode 0700  # nosec B108
# What the workers are told by their environment. No folder: each holds its own part of a limit.
WORKERS_VARIABLE, FOLDER_VARIABLE = "LLM_MACHINE_WORKERS", "LLM_MACHINE_DIR"
_SPARE_COLUMNS = 4
_PREFIX = "llmcontrol-"


@contextmanager
def shared_folder(state_dir: Path, workers: int, size_bytes: int) -> Iterator[Path | None]:
    """For as long as it is open, processes started from here share their limits; where that cannot be, one log line says so, and
    there is no folder."""
    os.environ[WORKERS_VARIABLE] = str(workers)
    made = _made(state_dir, workers, size_bytes)
    if made is None:
        yield None
        return
    folder, region = made
    os.environ[FOLDER_VARIABLE] = str(folder)
    try:
        yield folder
    finally:
        os.environ.pop(FOLDER_VARIABLE, None)
        shutil.rmtree(folder, ignore_errors=True)
        region.close()


def _made(state_dir: Path, workers: int, size_bytes: int) -> tuple[Path, Region] | None:
    """Memory first: a page of a disk is locked while it is written back, and whoever counts there would wait for the disk."""
    columns = min(2 * workers + _SPARE_COLUMNS, MAX_COLUMNS)  # those whose place is taken may serve on for a while
    failure = "this system has no locks for it"
    for parent in (_MEMORY, state_dir) if can_share() else ():
        folder = None
        try:
            _remove_orphans(parent)
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))  # mode 0700
            making = folder / "limits.new"  # it has its name once it is held, or another supervisor would take it for an orphan
            create(making, size_bytes, columns)
            region = Region(making)
            region.own()
            making.rename(folder / "limits")
            return folder, region
        except OSError as exc:
            failure = str(exc)
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
    _log.warning("workers cannot share their limits (%s): each holds limit ÷ %d of its own", failure, workers)
    return None


def _remove_orphans(parent: Path) -> None:
    """What any supervisor of this user that was killed could not remove; one that is alive holds its region."""
    for folder in parent.glob(_PREFIX + "*"):
        try:
            if folder.stat().st_uid != os.getuid():
                continue
            region = Region(folder / "limits")
        except (OSError, ValueError):
            continue
        if region.own():
            shutil.rmtree(folder, ignore_errors=True)
        region.close()
