"""Room that is kept on the disk for what must still be written down when the disk is full.

The file's blocks are filled beforehand, so that nobody else gets them, and writing over them needs no others. Once it is
needed it becomes a segment of the journal, written from its beginning. (A file system that copies on write, such as Btrfs
or ZFS, may want new blocks all the same; leave space free there.)
"""

from __future__ import annotations

import os
from pathlib import Path

RESERVE_BYTES = 2**20


def reserve_path(directory: Path, token: str) -> Path:
    return directory / f"{token}.reserve"


def make_reserve(path: Path) -> bool:
    """False where there is no room for it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError:
        return False
    try:
        made = os.write(fd, bytes(RESERVE_BYTES)) == RESERVE_BYTES
        os.fsync(fd)  # only now is it certain that the disk has the room
    except OSError:
        made = False
    finally:
        os.close(fd)
    if not made:
        path.unlink(missing_ok=True)
    return made


def open_reserve(path: Path, segment: Path) -> int:
    """A file descriptor of what was the reserve and is now `segment`. Raises OSError, FileNotFoundError where there is none."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.rename(path, segment)
    except OSError:
        os.close(fd)
        raise
    return fd


def written_bytes(segment: Path) -> int:
    """How far a dead process's segment is written. One that was the reserve ends in zeros, which are no damage. Raises OSError."""
    size = segment.stat().st_size
    if size != RESERVE_BYTES:
        return size
    return len(segment.read_bytes().rstrip(b"\0"))
