"""How far streams had come: written in place, read back after a kill, entered in the ledger."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from core.errors import AccountingUnavailable
from monitoring import ledger, progress
from monitoring.chain import Chain
from monitoring.journal import Journal
from monitoring.models import RequestLog, UsageRecord
from monitoring.progress import ProgressFiles, progress_paths, read_progress
from monitoring.usage import replay
from tests.monitoring.records import die, ended, make_journal, opened, settled

TOKEN = "token"


def output_tokens(directory: Path) -> dict[tuple[str, int], int]:
    return {attempt: record.output_tokens for attempt, record in read_progress(directory, TOKEN).items()}


def test_the_latest_of_each_attempt_is_read_back(tmp_path: Path) -> None:
    files = ProgressFiles(tmp_path, TOKEN)
    for tokens in range(1, 6):
        files.write(
            [settled("a", output_tokens=tokens, duration_ms=tokens), settled("b", 2, output_tokens=tokens * 10, duration_ms=tokens)]
        )
        assert output_tokens(tmp_path) == {("a", 1): tokens, ("b", 2): tokens * 10}


def test_files_do_not_grow_and_what_is_left_of_a_longer_write_is_not_read(tmp_path: Path) -> None:
    files = ProgressFiles(tmp_path, TOKEN)
    many = [settled(f"r{number}", duration_ms=1) for number in range(20)]
    for _ in range(10):
        files.write(many)
    size = max(path.stat().st_size for path in progress_paths(tmp_path, TOKEN))
    for duration_ms in (2, 3):
        files.write([settled("r0", output_tokens=7, duration_ms=duration_ms)])
    assert output_tokens(tmp_path) == {("r0", 1): 7}
    assert max(path.stat().st_size for path in progress_paths(tmp_path, TOKEN)) == size


@pytest.mark.parametrize("which", [0, 1])
def test_a_write_torn_by_a_kill_leaves_the_one_before(tmp_path: Path, which: int) -> None:
    files = ProgressFiles(tmp_path, TOKEN)
    for tokens in (1, 2):
        files.write([settled("a", output_tokens=tokens, duration_ms=tokens)])
    path = progress_paths(tmp_path, TOKEN)[which]
    for kept in range(path.stat().st_size):
        data = path.read_bytes()
        path.write_bytes(data[:kept])
        assert output_tokens(tmp_path) == {("a", 1): 1 if which else 2}
        path.write_bytes(data)


def test_without_files_nothing_is_known(tmp_path: Path) -> None:
    assert read_progress(tmp_path, TOKEN) == {}


def test_a_write_cut_short_is_told_and_the_next_takes_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ProgressFiles(tmp_path, TOKEN)
    files.write([settled("a", output_tokens=1, duration_ms=1)])
    with monkeypatch.context() as patch:
        whole = os.pwrite
        patch.setattr(progress.os, "pwrite", lambda fd, data, offset: whole(fd, data[:20], offset))
        with pytest.raises(AccountingUnavailable):
            files.write([settled("a", output_tokens=2, duration_ms=2)])
        with pytest.raises(AccountingUnavailable):
            files.write([settled("a", output_tokens=3, duration_ms=3)])
    assert output_tokens(tmp_path) == {("a", 1): 1}
    files.write([settled("a", output_tokens=4, duration_ms=4)])
    assert output_tokens(tmp_path) == {("a", 1): 4}


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(progress.os, "pwrite", refuse)
    with pytest.raises(AccountingUnavailable) as caught:
        ProgressFiles(tmp_path, TOKEN).write([settled("a")])
    assert "No space left" in (caught.value.detail or "")


def test_after_close_nothing_is_written(tmp_path: Path) -> None:
    files = ProgressFiles(tmp_path, TOKEN)
    files.write([settled("a")])
    files.close()
    files.close()
    with pytest.raises(AccountingUnavailable):
        files.write([settled("b")])


# Replay -------------------------------------------------------------------------------------------------------------


def so_far(name: str, attempt: int = 1, **changes: object):
    return settled(name, attempt, usage_source="estimated", **{"finish_reason": "", **changes})


def killed(directory: Path, *records: object) -> Journal:
    journal = make_journal(directory)
    for record in records:
        journal.write(record)
    ProgressFiles(directory, journal.token).write([so_far("a", 2), so_far("settled", output_tokens=9)])
    die(journal)
    return journal


@pytest.mark.django_db
def test_replay_enters_what_an_interrupted_stream_had_forwarded(tmp_path: Path) -> None:
    killed(tmp_path, opened("a"), settled("a", status="error", usage_source="none"), opened("a", 2))
    assert replay(tmp_path).interrupted == 1

    usage, request = UsageRecord.objects.get(attempt=2), RequestLog.objects.get()
    known = so_far("a", 2)
    assert (usage.status, usage.error_code, usage.usage_source) == ("interrupted", "process_died", "estimated")
    counts = [name for name in ledger.USAGE.fields if name.endswith("_tokens")]
    assert len(counts) == 10
    assert [getattr(usage, name) for name in counts] == [getattr(known, name) for name in counts]
    assert (usage.cost_micros, usage.currency, usage.price_id, usage.provider_key_id) == (1234, "USD", "price1", "pk1")
    assert (usage.duration_ms, usage.first_token_ms) == (812, 210)
    assert request.total_tokens == sum(getattr(usage, name) for name in counts)
    assert (request.cost_micros, request.currency, request.duration_ms, request.first_token_ms) == (1234, "USD", 812, 210)
    assert (request.status_code, request.error_code, request.attempts) == (500, "process_died", 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.django_db
def test_progress_of_what_was_settled_is_ignored(tmp_path: Path) -> None:
    killed(tmp_path, opened("settled"), settled("settled"), ended("settled"))
    replay(tmp_path)
    usage, request = UsageRecord.objects.get(), RequestLog.objects.get()
    assert (usage.status, usage.output_tokens, request.status_code) == ("ok", 50, 200)


@pytest.mark.django_db
def test_a_request_that_waited_for_another_attempt_has_used_nothing(tmp_path: Path) -> None:
    nothing = {name: 0 for name in ledger.USAGE.fields if name.endswith("_tokens")}
    killed(tmp_path, opened("b"), settled("b", status="error", usage_source="none", cost_micros=0, **nothing))
    replay(tmp_path)
    request = RequestLog.objects.get()
    assert (UsageRecord.objects.get().input_tokens, request.total_tokens, request.cost_micros) == (0, 0, 0)


@pytest.mark.django_db
def test_replay_killed_before_its_checkpoint_enters_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(tmp_path, opened("a", 2))
    with monkeypatch.context() as patch:
        patch.setattr(Chain, "_save_checkpoint", lambda self: None)
        patch.setattr(Chain, "remove", lambda self: None)
        replay(tmp_path)
    entered = UsageRecord.objects.values()[0]
    UsageRecord.objects.all().delete()
    replay(tmp_path)
    again = UsageRecord.objects.values()[0]
    assert again | {"id": 0} == entered | {"id": 0}
    assert again["output_tokens"] == 50
