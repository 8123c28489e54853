"""The folder in which the workers of one machine share their limits."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from core.config import LimitSpec
from core.errors import CallerLimited
from gateway.limits import Gate, Local, Slots
from gateway.rates import Bucket
from gateway.sharing import machine_folder
from gateway.sharing.machine import joined
from gateway.sharing.machine_folder import FOLDER_VARIABLE, WORKERS_VARIABLE, shared_folder
from gateway.sharing.machine_region import Region, create
from tests.gateway.test_machine import SIZE_BYTES, dies, gates, outcome


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (FOLDER_VARIABLE, WORKERS_VARIABLE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(machine_folder, "_MEMORY", folder)
    return folder


def test_workers_join_the_folder_of_their_supervisor_which_is_gone_at_the_end(memory: Path, tmp_path: Path) -> None:
    with shared_folder(tmp_path / "state", 2, SIZE_BYTES):
        (folder,) = memory.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "limits").stat().st_mode) == 0o600
        machines = [joined(), joined()]
        first, second = gates(machines, LimitSpec(requests_per_minute=1))  # type: ignore[arg-type]
        first.enter(1, 0.0)
        assert "1 of 1" in outcome(second, 1, 0.0)[0]
        for machine in machines:
            dies(machine)  # type: ignore[arg-type]
    assert not list(memory.iterdir())


def test_what_a_killed_supervisor_left_is_removed_and_what_a_live_one_has_is_not(memory: Path, tmp_path: Path) -> None:
    with shared_folder(tmp_path / "state", 2, SIZE_BYTES):
        (live,) = memory.iterdir()
        orphan = live.with_name(live.name + "-orphan")
        orphan.mkdir()
        create(orphan / "limits", SIZE_BYTES, 2)
        with shared_folder(tmp_path / "state", 2, SIZE_BYTES):
            assert not orphan.exists()
            assert live in memory.iterdir()


def test_without_room_in_memory_the_state_folder_serves(memory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory.rmdir()
    (tmp_path / "state").mkdir()
    with shared_folder(tmp_path / "state", 2, SIZE_BYTES):
        assert len(list((tmp_path / "state").iterdir())) == 1
        assert not caplog.records
    assert not list((tmp_path / "state").iterdir())


def test_where_nothing_can_be_shared_each_worker_has_its_part_and_one_line_says_so(
    memory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory.rmdir()
    with shared_folder(tmp_path / "nowhere", 4, SIZE_BYTES):
        (gate,) = gates([joined()], LimitSpec(requests_per_minute=8))  # type: ignore[list-item]
    assert gate.limits == LimitSpec(requests_per_minute=2)
    assert ["limit ÷ 4" in record.message for record in caplog.records] == [True]


def test_a_worker_that_finds_no_folder_holds_its_part(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(WORKERS_VARIABLE, "4")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "gone"))
    assert joined().workers == 4
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_one_process_has_no_region(memory: Path) -> None:
    limits = joined()
    assert type(limits) is Local
    gate = limits.gate("k", "This key", LimitSpec(requests_per_minute=1), CallerLimited, 0.0, 1)
    assert (type(gate), type(gate.requests), type(limits.slots("p"))) == (Gate, Bucket, Slots)


def test_a_file_that_is_no_region_is_refused(tmp_path: Path) -> None:
    (tmp_path / "limits").write_bytes(bytes(2**14))
    with pytest.raises(ValueError, match="no region"):
        Region(tmp_path / "limits")
