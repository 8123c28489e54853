"""What was written in a journal, read back piece by piece, whatever became of the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec

from monitoring.journal import HEADER, MAGIC, Record

READ_BYTES = 2**20
MAX_RECORDS = 3072
_decode = msgspec.json.Decoder(list[Record]).decode


class Damage(NamedTuple):
    """Bytes from `start` up to, not including, `stop` of a segment that hold no readable frame."""

    path: Path
    start: int
    stop: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path.name}: {self.stop - self.start} bytes at offset {self.start} were skipped: {self.reason}"


# Of each write the offset of its frame, and its records.
Writes = list[tuple[int, list[Record]]]


class SegmentRead(NamedTuple):
    """What was written, and where to read on."""

    writes: Writes
    next_offset: int
    damage: list[Damage]


def read_segment(path: Path, offset: int = 0, *, end: int | None = None) -> SegmentRead:
    """The next writes from `offset` on: about MAX_RECORDS or READ_BYTES at most; call again until `next_offset` is `end`.

    `end` is how far the segment is known to be written, by default the file's size. A live writer's file must be read with
    an `end` from `Journal.committed`: a frame that is cut off by `end` counts as torn, and is skipped and reported.
    Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        end = size if end is None else min(end, size)
        window = READ_BYTES
        while True:
            data = os.pread(fd, max(0, min(window, end - offset)), offset)
            last = offset + len(data) >= end
            read = _scan(path, data, offset, last)
            if last or read.next_offset > offset:
                return read
            window *= 4  # one frame is longer than all we read
    finally:
        os.close(fd)


def _scan(path: Path, data: bytes, base: int, last: bool) -> SegmentRead:
    """`base` is the offset of `data` in the file; `last` says that nothing follows it."""
    writes: Writes = []
    damage: list[Damage] = []
    view = memoryview(data)
    at = count = 0
    while at < len(data) and count < MAX_RECORDS:
        try:
            payload = _payload(view, at)
            if payload is None:
                if not last:
                    break
                raise ValueError("the record is cut off")
            records = _decode(payload)
            writes.append((base + at, records))
            count += len(records)
            stop = at + HEADER.size + len(payload)
        except (ValueError, msgspec.MsgspecError) as exc:
            stop = _next_magic(data, at, last)
            damage.append(Damage(path, base + at, base + stop, str(exc)))
        at = stop
    return SegmentRead(writes, base + at, damage)


def _payload(data: memoryview, at: int) -> memoryview | None:
    """What the frame at `at` holds; None where `data` ends first. Raises ValueError where none is, or its sum is wrong."""
    if len(data) - at < HEADER.size:
        torn = data[at : at + len(MAGIC)]
        if torn != MAGIC[: len(torn)]:
            raise ValueError("no record begins here")
        return None
    magic, length, crc = HEADER.unpack_from(data, at)
    if magic != MAGIC:
        raise ValueError("no record begins here")
    start = at + HEADER.size
    payload = data[start : start + length]
    if len(payload) < length:
        return None
    if crc32(payload) != crc:
        raise ValueError("the checksum is wrong")
    return payload


def _next_magic(data: bytes, at: int, last: bool) -> int:
    found = data.find(MAGIC, at + 1)
    if found >= 0:
        return found
    # Without more to come nothing is left to find; otherwise the end of `data` may be the beginning of a magic.
    return len(data) if last else max(at + 1, len(data) - len(MAGIC) + 1)
