"""The journal's file: what is written is read back, and damage costs only what it touched."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.clock import FrozenClock
from core.errors import AccountingUnavailable, ConfigurationError
from monitoring import journal as journal_module
from monitoring import journal_reading
from monitoring.journal import (
    MAGIC,
    Journal,
    Position,
    Record,
    frame,
    segment_numbers,
    segment_path,
    take_lock,
    tokens,
)
from monitoring.journal_reading import read_segment
from tests.monitoring.records import ended, make_journal, opened, settled, whole

BASE_DIR = Path(__file__).resolve().parent.parent.parent


def read_all(path: Path, end: int | None = None) -> tuple[list[Record], list[str]]:
    """Everything up to `end`, read in as many steps as it takes."""
    records: list[Record] = []
    damage: list[str] = []
    offset, stop = 0, path.stat().st_size if end is None else end
    while offset < stop:
        read = read_segment(path, offset, end=end)
        assert read.next_offset > offset
        records += [record for _, written in read.writes for record in written]
        damage += [str(part) for part in read.damage]
        offset = read.next_offset
    return records, damage


def only_segment(journal: Journal) -> Path:
    return segment_path(journal.directory, journal.token, 1)


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("a"))
    journal.write(settled("a", first_token_ms=None, cost_micros=None), ended("a", error_message="Größe 模型"))

    records, damage = read_all(only_segment(journal))

    assert records == [opened("a"), settled("a", first_token_ms=None, cost_micros=None), ended("a", error_message="Größe 模型")]
    assert damage == []
    assert journal.committed() == Position(1, only_segment(journal).stat().st_size)


def test_all_records_of_a_write_go_out_in_one_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = make_journal(tmp_path)
    writes: list[bytes] = []
    monkeypatch.setattr(journal_module.os, "write", lambda fd, data: writes.append(data) or len(data))

    journal.write(*whole("a"))

    assert writes == [frame(*whole("a"))]


def test_offsets_say_where_each_write_begins(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    for name in "abc":
        journal.write(*whole(name))

    writes = read_segment(only_segment(journal)).writes
    assert len(writes) == 3
    for offset, records in writes:
        assert read_segment(only_segment(journal), offset).writes[0] == (offset, records)


@pytest.mark.parametrize(("max_records", "read_bytes", "taken"), [(50, 2**19, 50), (3000, 10 * len(frame(opened("r000"))) + 9, 10)])
def test_a_long_segment_is_read_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_records: int, read_bytes: int, taken: int
) -> None:
    monkeypatch.setattr(journal_reading, "MAX_RECORDS", max_records)
    monkeypatch.setattr(journal_reading, "READ_BYTES", read_bytes)
    journal = make_journal(tmp_path)
    written = [opened(f"r{number:03}") for number in range(130)]
    for record in written:
        journal.write(record)

    first = read_segment(only_segment(journal))

    assert [record for _, records in first.writes for record in records] == written[:taken]
    assert read_all(only_segment(journal)) == (written, [])


def test_a_record_longer_than_one_read_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_reading, "READ_BYTES", 1000)
    journal = make_journal(tmp_path)
    written = [opened("a"), ended("b", alias="x" * 5000), opened("c")]
    for record in written:
        journal.write(record)

    assert read_all(only_segment(journal)) == (written, [])


def test_segments_follow_each_other_without_losing_a_record(tmp_path: Path) -> None:
    journal = make_journal(tmp_path, segment_bytes=1000)
    written = [record for number in range(20) for record in whole(f"r{number}")]
    for record in written:
        journal.write(record)

    numbers = segment_numbers(tmp_path, journal.token)
    read = [read_all(segment_path(tmp_path, journal.token, number)) for number in numbers]

    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 5
    assert all(segment_path(tmp_path, journal.token, number).stat().st_size <= 1000 for number in numbers)
    assert [record for records, _ in read for record in records] == written
    assert journal.committed() == Position(numbers[-1], segment_path(tmp_path, journal.token, numbers[-1]).stat().st_size)


def test_a_segment_that_cannot_be_followed_goes_on_growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = make_journal(tmp_path, segment_bytes=2 * len(frame(opened("r0"))))

    def no_file(*args: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "open", no_file)
        for number in range(5):
            journal.write(opened(f"r{number}"))
    journal.write(opened("later"))

    assert read_all(only_segment(journal)) == ([opened(f"r{number}") for number in range(5)], [])
    assert read_all(segment_path(tmp_path, journal.token, 2)) == ([opened("later")], [])


def test_a_failed_write_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("before"))

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "write", full)
        with pytest.raises(AccountingUnavailable, match="journal cannot be written") as caught:
            journal.write(*whole("lost"))
    journal.write(opened("after"))

    assert "No space left" in (caught.value.detail or "")
    assert read_all(only_segment(journal)) == ([opened("before"), opened("after")], [])


def test_a_short_write_is_told_and_cut_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("before"))
    real = os.write

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "write", lambda fd, data: real(fd, data[: len(frame(opened("lost"))) + 9]))
        with pytest.raises(AccountingUnavailable):
            journal.write(opened("lost"), ended("lost"))
    assert read_all(only_segment(journal)) == ([opened("before")], [])
    journal.write(opened("after"))

    assert read_all(only_segment(journal)) == ([opened("before"), opened("after")], [])


def test_a_short_write_that_cannot_be_cut_back_ends_the_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("before"))
    real = os.write

    def refused(fd: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "write", lambda fd, data: real(fd, data[:50]))
        patch.setattr(journal_module.os, "ftruncate", refused)
        with pytest.raises(AccountingUnavailable):
            journal.write(opened("lost"))
    journal.write(opened("after"))

    records, damage = read_all(only_segment(journal))
    assert records == [opened("before")]
    assert len(damage) == 1
    assert read_all(segment_path(tmp_path, journal.token, 2)) == ([opened("after")], [])


def test_text_that_is_no_unicode_is_told(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    with pytest.raises(AccountingUnavailable):
        journal.write(ended("a", alias="\ud800"))
    assert read_all(only_segment(journal)) == ([], [])


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.close()
    journal.close()
    with pytest.raises(AccountingUnavailable):
        journal.write(opened("a"))


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigurationError, match=r"LLM_JOURNAL_DIR: .*/file"):
        Journal(file, 2**20, FrozenClock())


def test_a_torn_tail_is_left_for_later_while_its_end_is_not_committed(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("a"))
    committed = journal.committed()
    with only_segment(journal).open("ab") as file:
        file.write(frame(settled("a"))[:-1])

    read = read_segment(only_segment(journal), end=committed.offset)

    assert [records for _, records in read.writes] == [[opened("a")]]
    assert (read.next_offset, read.damage) == (committed.offset, [])


@pytest.mark.parametrize("cut", [1, 5, 20, len(frame(ended("a"))) - 1])
def test_a_torn_tail_of_a_dead_process_is_dropped_and_reported(tmp_path: Path, cut: int) -> None:
    journal = make_journal(tmp_path)
    for record in whole("a"):
        journal.write(record)
    path = only_segment(journal)
    whole_size = path.stat().st_size
    os.truncate(path, whole_size - cut)

    records, damage = read_all(path)

    assert records == list(whole("a")[:2])
    assert len(damage) == 1
    assert "cut off" in damage[0]
    assert path.name in damage[0]


WRITES = [records for name in "abcd" for records in ([opened(name)], [settled(name), ended(name)])]
FRAMES = [frame(*records) for records in WRITES]
RECORDS = [record for records in WRITES for record in records]
SIZE = sum(map(len, FRAMES))


def test_the_magic_cannot_occur_in_a_payload() -> None:
    with pytest.raises(UnicodeDecodeError):
        MAGIC.decode()
    assert not any(MAGIC in part[len(MAGIC) :] for part in FRAMES)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, SIZE - 1), flip=st.integers(1, 255))
def test_a_flipped_byte_costs_one_write_and_is_reported(tmp_path: Path, offset: int, flip: int) -> None:
    data = bytearray(b"".join(FRAMES))
    data[offset] ^= flip
    path = tmp_path / "flipped.journal"
    path.write_bytes(data)
    hit = next(number for number in range(len(FRAMES)) if offset < sum(map(len, FRAMES[: number + 1])))

    records, damage = read_all(path)

    assert records == [record for records in WRITES[:hit] + WRITES[hit + 1 :] for record in records]
    assert len(damage) == 1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(min_size=1, max_size=400), before=st.integers(0, len(FRAMES)))
def test_noise_between_records_costs_no_record(tmp_path: Path, noise: bytes, before: int) -> None:
    path = tmp_path / "noisy.journal"
    path.write_bytes(b"".join(FRAMES[:before]) + noise + b"".join(FRAMES[before:]))

    records, damage = read_all(path)

    assert records == RECORDS
    assert damage


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=2000))
def test_no_bytes_at_all_make_the_reader_fail_or_stall(tmp_path: Path, noise: bytes) -> None:
    path = tmp_path / "noise.journal"
    path.write_bytes(noise)
    assert read_all(path)[0] == []


def test_damage_across_reads_is_reported_and_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_reading, "READ_BYTES", 64)
    path = tmp_path / "torn.journal"
    for length in range(1, 140):
        path.write_bytes(b"?" * length + FRAMES[0] + b"?" * length + FRAMES[1])
        records, damage = read_all(path)
        assert records == RECORDS[:3]
        assert damage


def test_a_length_that_lies_does_not_hide_what_follows(tmp_path: Path) -> None:
    lying = MAGIC + (2**31).to_bytes(4, "big") + FRAMES[0][8:]
    path = tmp_path / "lying.journal"
    path.write_bytes(lying + FRAMES[1])

    assert read_all(path)[0] == WRITES[1]


def test_a_record_of_another_release_is_reported_and_passed(tmp_path: Path) -> None:
    class FromTheFuture(msgspec.Struct, tag="future", array_like=True):
        request_id: str

    path = tmp_path / "mixed.journal"
    path.write_bytes(FRAMES[0] + frame(FromTheFuture("a")) + FRAMES[1])  # type: ignore[arg-type]

    records, damage = read_all(path)

    assert records == RECORDS[:3]
    assert "future" in damage[0]


def test_a_record_with_one_more_field_at_its_end_is_read(tmp_path: Path) -> None:
    longer = msgspec.defstruct("Longer", [*opened("a").__struct_fields__, "added"], tag="open", array_like=True)
    path = tmp_path / "newer.journal"
    path.write_bytes(frame(longer(*msgspec.structs.astuple(opened("a")), "new")))

    assert read_all(path) == ([opened("a")], [])


def test_the_lock_tells_the_living_from_the_dead(tmp_path: Path) -> None:
    living, dead = make_journal(tmp_path), make_journal(tmp_path)
    dead.close()

    assert sorted(tokens(tmp_path)) == sorted([living.token, dead.token])
    assert take_lock(tmp_path, living.token) is None
    lock = take_lock(tmp_path, dead.token)
    assert lock is not None
    assert take_lock(tmp_path, dead.token) is None
    os.close(lock)


def test_a_journal_does_not_settle_on_a_lock_that_was_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, cleared = journal_module.fcntl.flock, []

    def cleared_away_first(fd: int, how: int) -> None:
        if not cleared:
            cleared.append(next(tmp_path.glob("*.lock")))
            cleared[0].unlink()
        real(fd, how)

    monkeypatch.setattr(journal_module.fcntl, "flock", cleared_away_first)
    journal = make_journal(tmp_path)

    assert journal.token != cleared[0].stem
    assert take_lock(tmp_path, journal.token) is None


WRITER = """
import sys
from pathlib import Path
from monitoring.journal_reading import read_segment
from tests.monitoring.records import make_journal, whole
journal = make_journal(Path(sys.argv[1]), segment_bytes=20_000)
number = 0
while True:
    journal.write(*whole(f"r{number}"))
    print(number, flush=True)
    number += 1
"""


def killed_writer(directory: Path, after: int) -> int:
    """Kills a writing process in the midst of it; how many writes it knew to have returned."""
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, cwd=BASE_DIR)
    assert child.stdout is not None
    with child.stdout:
        for line in child.stdout:
            if int(line) >= after:
                break
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
    child.wait()
    whole_lines = rest[: rest.rfind(b"\n") + 1].split()
    return int(whole_lines[-1] if whole_lines else line) + 1


@pytest.mark.process
def test_kill_9_loses_no_record_whose_write_returned(tmp_path: Path) -> None:
    returned = killed_writer(tmp_path, after=200)
    (token,) = tokens(tmp_path)

    read = [read_all(segment_path(tmp_path, token, number)) for number in segment_numbers(tmp_path, token)]
    records = [record for records, _ in read for record in records]

    assert returned > 200
    assert records[: 3 * returned] == [record for number in range(returned) for record in whole(f"r{number}")]
    assert len(records) <= 3 * (returned + 1)
    assert take_lock(tmp_path, token) is not None
