"""Numbers that all worker processes of one machine share: a file mapped into each of them, with a lock for each block of numbers.

The kernel frees a lock when its holder dies. CLOCK_MONOTONIC is one clock for all processes of a machine, so moments can be
shared as they are. The locks belong to an open file and not to a process (`F_OFD_SETLK`, Linux): two regions opened by one
process exclude each other as well. Not for more than one thread of a process.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

_log = logging.getLogger(__name__)
_MAGIC = 0x6C6C6D31
_HEADER = struct.Struct("=QQQQ")  # magic, columns, entries of the directory, next free double
_ENTRY = struct.Struct("=16sQII")  # digest of the name, first double, doubles without columns, doubles with them
_DOUBLE_BYTES = 8
_BYTES_PER_ENTRY = 256
_MAX_PROBES = 64
# Bytes of the header that stand for a lock: of the directory, of whoever made the region, and of each column.
_DIRECTORY_AT, _OWNER_AT, _COLUMNS_AT, MAX_COLUMNS = 0, 1, 64, 1024
_DIRECTORY_STARTS = 4096
# A lock is held for microseconds. A holder that was preempted lets go within this; one that is frozen costs it once.
PATIENCE_S = 0.01
_NAP_S = 0.0001
_DIRECTORY_PATIENCE_S = 1.0


class RegionFull(Exception):
    """No room for another block, or nobody may look for any: the limit is shared out instead."""


def can_share() -> bool:
    return hasattr(fcntl, "F_OFD_SETLK") and hasattr(os, "posix_fallocate")


def create(path: Path, size_bytes: int, columns: int) -> None:
    """A new region of zeros. All its room is taken now, or a disk that is full would end a worker later. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size_bytes -= size_bytes % mmap.PAGESIZE
        os.posix_fallocate(fd, 0, size_bytes)
        entries = size_bytes // _BYTES_PER_ENTRY
        first = (_DIRECTORY_STARTS + entries * _ENTRY.size) // _DOUBLE_BYTES
        os.pwrite(fd, _HEADER.pack(_MAGIC, columns, entries, first), 0)
    finally:
        os.close(fd)


class Region:
    """An open region. `column` is this process's own among `columns`, -1 until `take_column`."""

    def __init__(self, path: Path, patience_s: float = PATIENCE_S) -> None:
        """Raises OSError, or ValueError where the file is none of ours."""
        # Two files, as a mapping keeps its own open for as long as anyone looks at it, and with it its locks.
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 0)
        magic, self.columns, self._entries, _ = _HEADER.unpack_from(self._bytes, 0)
        if magic != _MAGIC:
            raise ValueError(f"{path} is no region of shared limits")
        self.doubles: memoryview[float] = memoryview(self._bytes).cast("d")
        self.column = -1
        self.patience_s = patience_s
        self.unlocked = 0
        self._cells: dict[str, Cell] = {}

    def own(self) -> bool:
        """Holds the region as the one who made it. False = somebody does."""
        return self._try_lock(_OWNER_AT)

    def take_column(self) -> None:
        """One that nobody holds, for as long as this process lives; what a dead one counted in it is no more. Raises RegionFull."""
        for column in range(self.columns):
            if self._try_lock(_COLUMNS_AT + column):
                self.column = column
                for first, plain, whole in self._blocks():
                    if whole > plain:
                        self.doubles[first + plain + column] = 0.0
                return
        raise RegionFull("every column is taken")

    def cell(self, name: str, doubles: int, *, tallied: bool = False) -> Cell:
        """The block called `name`, made of zeros where there is none; `tallied` ones have a double for each column besides.
        Raises RegionFull."""
        cell = self._cells.get(name)
        if cell is None:
            first, whole = self._find(hashlib.blake2b(name.encode(), digest_size=16).digest(), doubles, self.columns if tallied else 0)
            cell = self._cells[name] = Cell(self, first, doubles, whole)
        return cell

    def free_the_dead(self, tallies: memoryview[float]) -> None:
        """Zeroes what processes that are gone left in `tallies`. Their columns are held meanwhile, so that no new one counts there."""
        for column, count in enumerate(tallies):
            if count and column != self.column and self._try_lock(_COLUMNS_AT + column):
                tallies[column] = 0.0
                self._unlock(_COLUMNS_AT + column)

    def close(self) -> None:
        """Lets go of every lock, as the end of the process does."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def locks_of(self, offset: int) -> tuple[Callable[[], object], Callable[[], object]]:
        """What takes the lock of a byte, or raises OSError at once, and what frees it."""
        call = partial(fcntl.fcntl, self._file, fcntl.F_OFD_SETLK)
        return partial(call, lock_of_byte(fcntl.F_WRLCK, offset)), partial(call, lock_of_byte(fcntl.F_UNLCK, offset))

    def went_on_unlocked(self) -> None:
        self.unlocked += 1
        if self.unlocked == 1:
            _log.warning("another worker holds the lock of a shared limit for too long; going on without it, and not saying so again")

    def _find(self, digest: bytes, doubles: int, columns: int) -> tuple[int, int]:
        """(first double, doubles) of the block."""
        with self._directory():
            start = int.from_bytes(digest[:8], "little")
            for probe in range(_MAX_PROBES):
                at = _DIRECTORY_STARTS + (start + probe) % self._entries * _ENTRY.size
                found, first, plain, whole = _ENTRY.unpack_from(self._bytes, at)
                if not whole:
                    return self._add(at, digest, doubles, doubles + columns)
                if found == digest and plain == doubles:
                    return first, whole
        raise RegionFull("the directory is full")

    def _add(self, at: int, digest: bytes, plain: int, whole: int) -> tuple[int, int]:
        *fixed, first = _HEADER.unpack_from(self._bytes, 0)
        if first + whole > len(self.doubles):
            raise RegionFull("the room for numbers is used up")
        _HEADER.pack_into(self._bytes, 0, *fixed, first + whole)
        _ENTRY.pack_into(self._bytes, at, digest, first, plain, whole)
        return first, whole

    @contextmanager
    def _directory(self) -> Iterator[None]:
        """Never without its lock: two who add at once would get the same room."""
        give_up_at = time.monotonic() + _DIRECTORY_PATIENCE_S
        while not self._try_lock(_DIRECTORY_AT):
            if time.monotonic() > give_up_at:
                raise RegionFull("the directory is held by a worker that does not go on")
            time.sleep(_NAP_S)
        try:
            yield
        finally:
            self._unlock(_DIRECTORY_AT)

    def _blocks(self) -> Iterator[tuple[int, int, int]]:
        for entry in range(self._entries):
            _, first, plain, whole = _ENTRY.unpack_from(self._bytes, _DIRECTORY_STARTS + entry * _ENTRY.size)
            if whole:
                yield first, plain, whole

    def _try_lock(self, offset: int) -> bool:
        with suppress(OSError):
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, lock_of_byte(fcntl.F_WRLCK, offset))
            return True
        return False

    def _unlock(self, offset: int) -> None:
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, lock_of_byte(fcntl.F_UNLCK, offset))


class Cell:
    """One block. `with cell:` nobody else changes `values` meanwhile; it may be entered again inside. `tallies` may be empty."""

    __slots__ = ("_depth", "_free", "_region", "_stuck", "_take", "tallies", "values")

    def __init__(self, region: Region, first: int, plain: int, whole: int) -> None:
        self.values = region.doubles[first : first + plain]
        self.tallies = region.doubles[first + plain : first + whole]
        self._region = region
        self._take, self._free = region.locks_of(first * _DOUBLE_BYTES)
        self._depth = 0
        self._stuck = False

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1:
            try:
                self._take()
                self._stuck = False
            except OSError:
                self._insist()

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._free()

    @property
    def own(self) -> float:
        """What this process counts here. Nobody else writes it, so it needs no lock."""
        return self.tallies[self._region.column]

    @own.setter
    def own(self, count: float) -> None:
        self.tallies[self._region.column] = count

    def total(self, limit: int) -> int:
        """What all live processes count together; without a limit (0) only this one's, as nobody has to know. Who is alive is
        looked at only where the limit seems reached."""
        if not limit:
            return int(self.own)
        total = int(sum(self.tallies))
        if total >= limit:
            self._region.free_the_dead(self.tallies)
            total = int(sum(self.tallies))
        return total

    def _insist(self) -> None:
        """A holder that does not go on is waited for once, and not again before it has let go: a frozen one must not stop us."""
        give_up_at = 0.0 if self._stuck else time.monotonic() + self._region.patience_s
        while time.monotonic() < give_up_at:
            time.sleep(_NAP_S)
            with suppress(OSError):
                self._take()
                return
        self._stuck = True
        self._region.went_on_unlocked()


def lock_of_byte(kind: int, offset: int) -> bytes:
    """`struct flock` of one byte: kind, SEEK_SET, start, length, and no process id."""
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, offset, 1, 0)
