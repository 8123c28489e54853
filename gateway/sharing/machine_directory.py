"""The directory of a region: which block of numbers has which name, and which processes hold it. Only with its lock held.

A block keeps its numbers when nobody holds it any more, for whoever asks for the name again, until its room is needed: then
blocks that no live process holds become free, and their room serves others of the same size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cache
from mmap import mmap
from typing import NamedTuple

HEADER = struct.Struct("=QQQQ")  # magic, columns, entries of the directory, next free double
_ENTRY = struct.Struct("=16sQII")  # digest of the name, first double, doubles without columns, doubles with them
STARTS_AT = 4096
DOUBLE_BYTES = 8
_BYTES_PER_ENTRY = 256
_MAX_PROBES = 64
_NOBODY = bytes(16)
_ROOMLESS = (0, 0, 1)  # of a free entry that others are found behind: no block is so small


class RegionFull(Exception):
    """No room for another block, or nobody may look for any: the limit is shared out instead."""


class Block(NamedTuple):
    """`at`: the bytes of its entry; `whole` 0: there is none yet, and none behind it."""

    at: int
    digest: bytes
    first: int
    plain: int
    whole: int

    @property
    def free(self) -> bool:
        return self.digest == _NOBODY


def header(magic: int, size_bytes: int, columns: int) -> bytes:
    """Of a new region."""
    entries = size_bytes // _BYTES_PER_ENTRY
    return HEADER.pack(magic, columns, entries, (STARTS_AT + entries * _entry_bytes(columns)) // DOUBLE_BYTES)


def _entry_bytes(columns: int) -> int:
    """Behind each entry is a bit for every column: whether its process holds the block."""
    return _ENTRY.size + -(-columns // 64) * 8


class Directory:
    def __init__(self, data: mmap) -> None:
        self._data = data
        _, self.columns, self._entries, _ = HEADER.unpack_from(data, 0)
        self._step = _entry_bytes(self.columns)

    def find(self, digest: bytes, plain: int, columns: int) -> Block:
        """The block of that name, made of zeros where there is none. Raises RegionFull."""
        whole, free = plain + columns, []
        for at in self._probes(digest):
            block = self._block(at)
            if block.digest == digest and block.plain == plain:
                return block
            if block.free:
                free.append(block)
            if not block.whole:
                break
        if not free:
            raise RegionFull("the directory is full")
        return self._take(min(free, key=lambda block: (block.whole != whole, block.whole > 1)), digest, plain, whole)

    def hold(self, block: Block, column: int, *, held: bool) -> None:
        place, bit = block.at + _ENTRY.size + column // 8, 1 << column % 8
        self._data[place] = self._data[place] | bit if held else self._data[place] & ~bit

    def blocks(self) -> Iterator[Block]:
        """Those that have numbers."""
        every = map(self._block, range(STARTS_AT, STARTS_AT + self._entries * self._step, self._step))
        return (block for block in every if block.whole > 1)

    def free_the_unheld(self, lives: Callable[[int], bool]) -> int:
        """How many there were. `lives`: whether a process has that column."""
        lives, freed = cache(lives), 0
        for block in self.blocks():
            if not block.free and not any(lives(column) for column in self._holders(block)):
                self._write(block.at, _NOBODY, block.first, block.plain, block.whole)
                self._data[block.at + _ENTRY.size : block.at + self._step] = bytes(self._step - _ENTRY.size)
                freed += 1
        return freed

    def _take(self, entry: Block, digest: bytes, plain: int, whole: int) -> Block:
        first = entry.first if entry.whole == whole else self._room(entry, whole)
        self._data[first * DOUBLE_BYTES : (first + whole) * DOUBLE_BYTES] = bytes(whole * DOUBLE_BYTES)
        self._write(entry.at, digest, first, plain, whole)
        return Block(entry.at, digest, first, plain, whole)

    def _room(self, entry: Block, whole: int) -> int:
        """The first of so many doubles: new ones, or those of another free entry, which gets what room `entry` has. Raises RegionFull."""
        *fixed, first = HEADER.unpack_from(self._data, 0)
        if (first + whole) * DOUBLE_BYTES <= len(self._data):
            HEADER.pack_into(self._data, 0, *fixed, first + whole)
            return int(first)
        for other in self.blocks():
            if other.free and other.whole == whole:
                self._write(other.at, _NOBODY, *(_ROOMLESS if entry.whole <= 1 else entry[2:]))
                return other.first
        raise RegionFull("the room for numbers is used up")

    def _holders(self, block: Block) -> Iterator[int]:
        bits = int.from_bytes(self._data[block.at + _ENTRY.size : block.at + self._step], "little")
        return (column for column in range(self.columns) if bits >> column & 1)

    def _probes(self, digest: bytes) -> Iterator[int]:
        start = int.from_bytes(digest[:8], "little")
        return (STARTS_AT + (start + probe) % self._entries * self._step for probe in range(min(_MAX_PROBES, self._entries)))

    def _block(self, at: int) -> Block:
        return Block(at, *_ENTRY.unpack_from(self._data, at))

    def _write(self, at: int, digest: bytes, first: int, plain: int, whole: int) -> None:
        _ENTRY.pack_into(self._data, at, digest, first, plain, whole)
