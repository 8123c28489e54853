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
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from gateway.sharing.machine_directory import DOUBLE_BYTES, HEADER, Block, Directory, RegionFull, header

_log = logging.getLogger(__name__)
_MAGIC = 0x6C6C6D32
# Bytes of the header that stand for a lock: of the directory, of whoever made the region, and of each column.
_DIRECTORY_AT, _OWNER_AT, _COLUMNS_AT, MAX_COLUMNS = 0, 1, 64, 1024
# A lock is held for microseconds. A holder that was preempted lets go within this; one that is frozen costs it once.
PATIENCE_S = 0.01
_NAP_S = 0.0001
_DIRECTORY_PATIENCE_S = 1.0
# Who found nothing to free looks again so much later.
_LOOK_AGAIN_S = 10.0


def can_share() -> bool:
    return hasattr(fcntl, "F_OFD_SETLK") and hasattr(os, "posix_fallocate")


def create(path: Path, size_bytes: int, columns: int) -> None:
    """A new region of zeros. All its room is taken now, or a disk that is full would end a worker later. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size_bytes -= size_bytes % mmap.PAGESIZE
        os.posix_fallocate(fd, 0, size_bytes)
        os.pwrite(fd, header(_MAGIC, size_bytes, columns), 0)
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
        if HEADER.unpack_from(self._bytes, 0)[0] != _MAGIC:
            raise ValueError(f"{path} is no region of shared limits")
        self._names = Directory(self._bytes)
        self.columns = self._names.columns
        self.doubles: memoryview[float] = memoryview(self._bytes).cast("d")
        self.column = -1
        self.patience_s = patience_s
        self.unlocked = 0
        self._cells: WeakValueDictionary[str, Cell] = WeakValueDictionary()
        self._unused: list[Block] = []
        self._in_directory = False
        self._looks_again_at = 0.0

    def own(self) -> bool:
        """Holds the region as the one who made it. False = somebody does."""
        return self._try_lock(_OWNER_AT)

    def take_column(self) -> None:
        """One that nobody holds, for as long as this process lives; what a dead one counted in it is no more. Raises RegionFull."""
        for column in range(self.columns):
            if self._try_lock(_COLUMNS_AT + column):
                self.column = column
                self._begin_with_nothing(column)
                return
        raise RegionFull("every column is taken")

    def cell(self, name: str, doubles: int, *, tallied: bool = False) -> Cell:
        """The block called `name`, made of zeros where there is none; `tallied` ones have a double for each column besides.
        It is ours for as long as anyone here has the cell. Raises RegionFull."""
        cell = self._cells.get(name)
        if cell is None:
            digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
            cell = self._cells[name] = Cell(self, self._find(digest, doubles, self.columns if tallied else 0))
        return cell

    def unused(self, block: Block) -> None:
        """Nobody here has its cell any more. Called whenever Python finds that out, also in the middle of anything."""
        self._unused.append(block)
        if self._file >= 0 and not self._in_directory and self._try_lock(_DIRECTORY_AT):
            self._let_go()
            self._unlock(_DIRECTORY_AT)

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

    def _find(self, digest: bytes, doubles: int, columns: int) -> Block:
        with self._directory():
            self._let_go()
            try:
                block = self._names.find(digest, doubles, columns)
            except RegionFull:
                if not self._freed_the_unheld():
                    raise
                block = self._names.find(digest, doubles, columns)
            self._names.hold(block, self.column, held=True)
            return block

    def _freed_the_unheld(self) -> bool:
        """Whether there is room that was not. A look at all blocks takes milliseconds, and is not taken in vain again and again."""
        now = time.monotonic()
        if now < self._looks_again_at:
            return False
        freed = self._names.free_the_unheld(self._lives)
        self._looks_again_at = 0.0 if freed else now + _LOOK_AGAIN_S
        return freed > 0

    def _lives(self, column: int) -> bool:
        if column == self.column or not self._try_lock(_COLUMNS_AT + column):
            return True
        self._unlock(_COLUMNS_AT + column)
        return False

    def _let_go(self) -> None:
        while self._unused:
            self._names.hold(self._unused.pop(), self.column, held=False)

    def _begin_with_nothing(self, column: int) -> None:
        with self._directory():
            for block in self._names.blocks():
                self._names.hold(block, column, held=False)
                if block.whole > block.plain:
                    self.doubles[block.first + block.plain + column] = 0.0

    @contextmanager
    def _directory(self) -> Iterator[None]:
        """Never without its lock: two who add at once would get the same room."""
        give_up_at = time.monotonic() + _DIRECTORY_PATIENCE_S
        while not self._try_lock(_DIRECTORY_AT):
            if time.monotonic() > give_up_at:
                raise RegionFull("the directory is held by a worker that does not go on")
            time.sleep(_NAP_S)
        self._in_directory = True
        try:
            yield
        finally:
            self._in_directory = False
            self._unlock(_DIRECTORY_AT)

    def _try_lock(self, offset: int) -> bool:
        with suppress(OSError):
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, lock_of_byte(fcntl.F_WRLCK, offset))
            return True
        return False

    def _unlock(self, offset: int) -> None:
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, lock_of_byte(fcntl.F_UNLCK, offset))


class Cell:
    """One block. `with cell:` nobody else changes `values` meanwhile; it may be entered again inside. `tallies` may be empty."""

    __slots__ = ("__weakref__", "_block", "_depth", "_free", "_region", "_stuck", "_take", "tallies", "values")

    def __init__(self, region: Region, block: Block) -> None:
        self._region, self._block = region, block
        _, _, first, plain, whole = block
        self.values = region.doubles[first : first + plain]
        self.tallies = region.doubles[first + plain : first + whole]
        self._take, self._free = region.locks_of(first * DOUBLE_BYTES)
        self._depth = 0
        self._stuck = False

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ending():
            self._region.unused(self._block)

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
