"""From the journals of the dead to the ledger: every record once, however often it is tried and wherever that is cut off."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from monitoring import chain as chain_module
from monitoring import ledger
from monitoring.chain import Chain
from monitoring.journal import frame, segment_path, take_lock, tokens
from monitoring.models import RequestLog, UsageRecord
from monitoring.usage import replay
from tests.monitoring.drainers import DOWN, database_down, ids, make_drainer
from tests.monitoring.records import die, ended, make_journal, opened, settled, whole
from tests.monitoring.test_journal import killed_writer

pytestmark = pytest.mark.django_db


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


def test_replay_enters_everything_once_and_clears_up(tmp_path: Path) -> None:
    journal = make_journal(tmp_path, segment_bytes=1000)
    for number in range(30):
        journal.write(*whole(f"r{number}"))
    make_drainer(journal).drain()
    for number in range(30, 40):
        journal.write(*whole(f"r{number}"))
    die(journal)

    first, second = replay(tmp_path), replay(tmp_path)

    assert ids() == {f"r{number}-1" for number in range(40)}
    assert RequestLog.objects.count() == 40
    assert (first.journals, first.usage_records, first.request_logs) == (1, 10, 10)
    assert (second.journals, second.usage_records, second.problems) == (0, 0, [])
    assert list(tmp_path.iterdir()) == []


def test_replay_enters_an_attempt_without_an_end_as_interrupted(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    journal.write(opened("a", 1))
    journal.write(settled("a", 1, status="error"))
    journal.write(opened("a", 2))
    die(journal)

    report = replay(tmp_path)

    usage = UsageRecord.objects.get(attempt=2)
    assert (usage.status, usage.usage_source, usage.input_tokens, usage.output_tokens) == ("interrupted", "estimated", 120, 0)
    assert (usage.cost_micros, usage.error_code, usage.provider_name) == (None, "process_died", "openai-main")
    request = RequestLog.objects.get()
    assert (request.status_code, request.error_code, request.attempts, request.cost_micros) == (500, "process_died", 2, None)
    assert request.error_message
    assert report.interrupted == 1


def test_replay_reads_openings_before_the_checkpoint_of_their_settlement(tmp_path: Path) -> None:
    """The checkpoint may lie between an opening and its settlement when both are in the ledger: no alarm, no second row."""
    journal = make_journal(tmp_path)
    journal.write(opened("a"), opened("b"))
    journal.write(settled("a"), ended("a"))
    journal.write(opened("c"))
    journal.write(settled("b"), ended("b"))
    make_drainer(journal).drain()
    die(journal)

    report = replay(tmp_path)

    assert (report.problems, report.refused, report.interrupted) == ([], 0, 1)
    assert ids() == {"a-1", "b-1", "c-1"}


def test_replay_leaves_the_living_alone(tmp_path: Path) -> None:
    living = make_journal(tmp_path)
    living.write(*whole("a"))

    report = replay(tmp_path)

    assert (report.in_use, report.journals, ids()) == (1, 0, set())
    assert segment_path(tmp_path, living.token, 1).exists()


def test_replay_of_damage_enters_the_rest_and_keeps_the_segment(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    for name in "abc":
        journal.write(opened(name))
        journal.write(settled(name), ended(name))
    die(journal)
    path = segment_path(tmp_path, journal.token, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data[:-5])

    report = replay(tmp_path)

    assert {"a-1", "c-1"} <= ids()
    assert [problem for problem in report.problems if "checksum" in problem]
    assert [problem for problem in report.problems if "cut off" in problem]
    assert path.with_suffix(".damaged").read_bytes() == bytes(data[:-5])
    assert tokens(tmp_path) == []


def test_replay_passes_a_segment_that_somebody_deleted(tmp_path: Path) -> None:
    journal = make_journal(tmp_path, segment_bytes=len(frame(*whole("r0"))))
    for number in range(4):
        journal.write(*whole(f"r{number}"))
    assert journal.committed().sequence == 4
    die(journal)
    segment_path(tmp_path, journal.token, 2).unlink()

    report = replay(tmp_path)

    assert ids() == {"r0-1", "r2-1", "r3-1"}
    assert ["is missing" in problem for problem in report.problems] == [True]


@pytest.mark.parametrize("content", ["", "null", "[1", '["x", 0]'])
def test_a_checkpoint_that_does_not_read_means_from_the_beginning(tmp_path: Path, content: str) -> None:
    journal = make_journal(tmp_path)
    journal.write(*whole("a"))
    (tmp_path / f"{journal.token}.checkpoint").write_text(content)
    die(journal)
    replay(tmp_path)

    assert ids() == {"a-1"}


POINTS = [(ledger, "insert"), (Chain, "_save_checkpoint"), (Chain, "give_up"), (Chain, "remove"), (chain_module.Path, "unlink")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS, ids=[name for _, name in POINTS])
def test_replay_may_be_killed_anywhere_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Any, when: str) -> None:
    journal = make_journal(tmp_path, segment_bytes=1000)
    for number in range(10):
        journal.write(*whole(f"r{number}"))
    journal.write(opened("cut"))
    die(journal)
    owner, name = point
    real = getattr(owner, name)
    survivals = 0

    while True:
        calls = 0

        def killed(*args: Any, survivals: int = survivals, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > survivals and when == "before":
                raise Killed
            result = real(*args, **kwargs)
            if calls > survivals:
                raise Killed
            return result

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killed)
            try:
                replay(tmp_path)
            except Killed:
                survivals += 1
                continue
        break

    replay(tmp_path)
    assert survivals
    assert ids() == {"cut-1"} | {f"r{number}-1" for number in range(10)}
    assert UsageRecord.objects.count() == RequestLog.objects.count() == 11
    assert tokens(tmp_path) == []


def test_of_two_adopters_one_adopts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = make_journal(tmp_path)
    journal.write(*whole("a"))
    die(journal)
    others = []
    real = ledger.insert

    def meanwhile(rows: Any) -> Any:
        if not others:
            others.append(replay(tmp_path))
        return real(rows)

    monkeypatch.setattr(ledger, "insert", meanwhile)
    report = replay(tmp_path)

    assert (report.journals, report.usage_records) == (1, 1)
    assert (others[0].journals, others[0].in_use) == (0, 1)


def test_an_adopter_that_comes_late_makes_no_mess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It listed the journal, then another process adopted it and cleared it away."""
    journal = make_journal(tmp_path)
    journal.write(*whole("a"))
    die(journal)
    listed = tokens(tmp_path)
    replay(tmp_path)

    monkeypatch.setattr("monitoring.usage.tokens", lambda directory: listed)
    report = replay(tmp_path)

    assert (report.journals, report.usage_records, list(tmp_path.iterdir())) == (0, 0, [])


@pytest.mark.process
def test_kill_9_then_replay_has_every_record_once(tmp_path: Path) -> None:
    returned = killed_writer(tmp_path, after=100)

    report = replay(tmp_path)

    known = {f"r{number}-1" for number in range(returned)}
    assert known <= ids() <= known | {f"r{returned}-1"}
    assert UsageRecord.objects.count() == len(ids()) == RequestLog.objects.count()
    assert report.problems == []


def test_the_command_says_what_it_did(tmp_path: Path, settings: Any) -> None:
    settings.JOURNAL_DIR = tmp_path
    journal = make_journal(tmp_path)
    journal.write(*whole("a"), opened("b"))
    die(journal)
    living = make_journal(tmp_path)

    first, second = StringIO(), StringIO()
    call_command("replay_journal", stdout=first)
    call_command("replay_journal", stdout=second)

    assert "Entered 2 usage records and 2 request logs" in first.getvalue()
    assert "1 attempts never ended" in first.getvalue()
    assert "nothing to do" in second.getvalue()
    assert take_lock(tmp_path, living.token) is None


def test_the_command_says_why_it_stopped(tmp_path: Path, settings: Any) -> None:
    settings.JOURNAL_DIR = tmp_path
    journal = make_journal(tmp_path)
    journal.write(*whole("a"))
    die(journal)

    with database_down(), pytest.raises(CommandError, match=rf"({DOWN}).*Nothing is lost"):
        call_command("replay_journal")
    call_command("replay_journal", stdout=StringIO())

    assert ids() == {"a-1"}
