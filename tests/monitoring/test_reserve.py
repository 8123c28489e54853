"""A full disk: what was begun is settled in the reserve, and nothing new is begun."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.clock import FrozenClock
from core.errors import AccountingUnavailable
from monitoring import journal as journal_module
from monitoring import reserve
from monitoring.journal import Journal, segment_numbers, segment_path
from monitoring.journal_reading import read_segment
from monitoring.reserve import RESERVE_BYTES, reserve_path, written_bytes
from tests.monitoring.records import ended, opened, settled

Disk = Callable[[bool], None]


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Says whether the disk is full: files cannot grow then, but what lies in them can be written over."""
    full = False
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if full and os.lseek(fd, 0, os.SEEK_CUR) + len(data) > os.fstat(fd).st_size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    for module in (journal_module, reserve):
        monkeypatch.setattr(module.os, "write", write)

    def set_to(value: bool) -> None:
        nonlocal full
        full = value

    return set_to


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def journal(tmp_path: Path, clock: FrozenClock) -> Journal:
    return Journal(tmp_path, 2**20, clock)


def everything(journal: Journal) -> list[object]:
    found: list[object] = []
    for sequence in segment_numbers(journal.directory, journal.token):
        path = segment_path(journal.directory, journal.token, sequence)
        read = read_segment(path, end=written_bytes(path))
        assert read.damage == []
        found += [record for _, records in read.writes for record in records]
    return found


def test_what_was_begun_is_settled_on_a_full_disk_and_nothing_new_is_begun(journal: Journal, fill: Disk) -> None:
    journal.write(opened("a"))
    journal.write(opened("b"))
    fill(True)
    with pytest.raises(AccountingUnavailable):
        journal.write(opened("new"))
    journal.write(settled("a"), ended("a"))
    with pytest.raises(AccountingUnavailable):
        journal.write(opened("new"))
    with pytest.raises(AccountingUnavailable):
        journal.write(ended("refused", attempts=0))
    journal.write(settled("b"))

    assert everything(journal) == [opened("a"), opened("b"), settled("a"), ended("a"), settled("b")]
    assert not reserve_path(journal.directory, journal.token).exists()


def test_a_process_that_dies_in_its_reserve_leaves_no_damage(journal: Journal, fill: Disk) -> None:
    journal.write(opened("a"))
    fill(True)
    journal.write(settled("a"))
    path = segment_path(journal.directory, journal.token, 2)

    assert path.stat().st_size == RESERVE_BYTES
    assert written_bytes(path) == journal.committed().offset < RESERVE_BYTES


def test_with_room_again_there_is_a_reserve_again(journal: Journal, clock: FrozenClock, fill: Disk) -> None:
    journal.write(opened("a"))
    fill(True)
    journal.write(settled("a"))
    with pytest.raises(AccountingUnavailable):
        journal.write(opened("b"))
    fill(False)
    with pytest.raises(AccountingUnavailable):
        journal.write(opened("b"))  # it is looked for room once a second
    clock.advance(1)
    journal.write(opened("b"))

    assert everything(journal) == [opened("a"), settled("a"), opened("b")]
    assert reserve_path(journal.directory, journal.token).stat().st_size == RESERVE_BYTES
    assert segment_path(journal.directory, journal.token, 2).stat().st_size < RESERVE_BYTES


def test_a_short_segment_does_not_end_the_reserve(tmp_path: Path, clock: FrozenClock, fill: Disk) -> None:
    journal = Journal(tmp_path, 100, clock)
    journal.write(opened("a"))
    journal.write(opened("b"))
    fill(True)
    journal.write(settled("a"))
    journal.write(settled("b"))

    assert everything(journal) == [opened("a"), opened("b"), settled("a"), settled("b")]


def test_a_disk_that_is_full_from_the_start_keeps_anything_from_being_begun(tmp_path: Path, clock: FrozenClock, fill: Disk) -> None:
    fill(True)
    journal = Journal(tmp_path, 2**20, clock)
    with pytest.raises(AccountingUnavailable):
        journal.write(opened("a"))
    fill(False)
    clock.advance(1)
    journal.write(opened("a"))

    assert everything(journal) == [opened("a")]


def test_nothing_of_it_is_left(journal: Journal) -> None:
    assert reserve_path(journal.directory, journal.token).exists()
    journal.close()
    assert not reserve_path(journal.directory, journal.token).exists()


def test_a_short_write_in_the_reserve_leaves_no_hole(journal: Journal, fill: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        journal.write(opened(name))
    fill(True)
    journal.write(settled("a"))
    whole = os.write
    monkeypatch.setattr(journal_module.os, "write", lambda fd, data: whole(fd, data[:100]))
    with pytest.raises(AccountingUnavailable):
        journal.write(settled("b"))
    monkeypatch.setattr(journal_module.os, "write", whole)
    fill(False)
    journal.write(settled("c"))

    assert everything(journal) == [opened("a"), opened("b"), opened("c"), settled("a"), settled("c")]
    assert written_bytes(segment_path(journal.directory, journal.token, 2)) == journal.committed().offset


def test_the_end_of_a_request_that_was_begun_has_room_too(journal: Journal, fill: Disk) -> None:
    """Its last attempt is settled already; without an end of its own it would hold its journal on the disk for a day."""
    journal.write(opened("a"))
    journal.write(settled("a"))
    fill(True)
    journal.write(ended("a", attempts=1))

    assert everything(journal) == [opened("a"), settled("a"), ended("a", attempts=1)]
