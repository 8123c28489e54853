"""F07 to F12: a database that is busy, gone, hanging or short of connections, a full disk, a torn journal."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from monitoring.journal_reading import read_segment
from tests.e2e import wire
from tests.e2e.control import unique
from tests.faults.backends import ON_POSTGRES, ON_SQLITE, SQLITE_FILE
from tests.faults.database import Database
from tests.faults.figures import Figures, iso
from tests.faults.history import History
from tests.faults.judge import Judge
from tests.faults.loads import FULL, LoadSize
from tests.faults.processes import until
from tests.faults.stage import Stage

MODEL = "ok@tokens=40,delay=0.02"
DISK_BYTES = 24 * 2**20
# A request of the admin has a thread, and one more that waits for that where its client has left.
ASKING, ADMIN_REQUESTS, THREADS_EACH, OTHER_THREADS = 120, 10, 2, 8


def served_pct(history: Sequence[object], ok: Sequence[object]) -> float:
    return 100 * len(ok) / len(history)


def judge_serving(judge: Judge, fault: str, history: History, figures: Figures, *, rec_s: float = 5) -> None:
    judge(fault, "/v1 success", served_pct(history, history.ok), at_least=99.9, unit="%", why=figures.explain())
    judge(fault, "USE_LOST", figures.use_lost, at_most=0, why=figures.explain())
    judge(fault, "DUP", figures.dup, at_most=0, why=figures.explain())
    judge(fault, "REC", figures.rec_s, at_most=rec_s, unit="s", why=figures.explain())


def admin_write(stage: Stage) -> tuple[wire.Answer, float]:
    """(the answer, seconds) of a write over REST."""
    began = time.monotonic()
    headers = {"Authorization": f"Token {stage.control._token}"}
    answer = wire.call(stage.machine.base_url, "POST", "/api/v1/llm/teams", body={"name": unique("team")}, headers=headers, timeout_s=15)
    return answer, time.monotonic() - began


def refused_write(stage: Stage) -> wire.Answer | None:
    """None where there was room: files that were longer once have some on a full disk too."""
    answer, _ = admin_write(stage)
    return answer if answer.status != 201 else None


def config_age_s(stage: Stage) -> float:
    """What the oldest worker says of its configuration."""
    text = wire.call(stage.machine.base_url, "GET", "/metrics", headers={"Authorization": f"Token {stage.control._token}"}).body.decode()
    return max(float(line.split()[-1]) for line in text.splitlines() if line.startswith("llm_config_age_seconds"))


@pytest.mark.short
@ON_SQLITE
def test_f07_sqlite_locked_by_another_process(stage: Stage, size: LoadSize, judge: Judge) -> None:
    locked_s = 15.0 if size == FULL else 6.0
    load = stage.load(stage.model(MODEL), size._replace(seconds=max(size.seconds, 12)))
    load.wait_until(size.fault_at_s)
    with stage.database.locked():
        answer, took_s = admin_write(stage)
        load.wait_until(size.fault_at_s + locked_s)
        until_s = time.time()
    history = load.history()
    figures = stage.check(history, fault_end=until_s)
    assert admin_write(stage)[0].status == 201
    judge_serving(judge, "F07", history, figures)
    judge("F07", "status of an admin's write", answer.status, equals=503, why=repr(answer.body))
    judge("F07", "wait of an admin's write", took_s, at_most=6, unit="s")
    assert b"database" in answer.body


@pytest.mark.short("both")
def test_f08_database_gone(stage: Stage, size: LoadSize, judge: Judge) -> None:
    """Killed, or the file renamed. A file that is open stays readable: there only new connections find nothing."""
    postgres = stage.services.postgres
    load = stage.load(stage.model(MODEL), size._replace(seconds=max(size.seconds, 10)))
    load.wait_until(size.fault_at_s)
    with gone(stage):
        load.wait_until(size.fault_until_s - 1)
        known, unknown = stage.ask(load._alias), stage.ask(load._alias, key="sk-" + "x" * 40)
        answer, _ = admin_write(stage)
        load.wait_until(size.fault_until_s)
    back_at = time.time()
    history = load.history()
    figures = stage.check(history, fault_end=back_at)
    judge_serving(judge, "F08", history, figures)
    judge("F08", "status with a known key", known.status, equals=200, why=repr(known.body))
    judge("F08", "status of an admin's write", answer.status, equals=503, why=repr(answer.body))
    judge("G5", "/v1 success without the database", served_pct(history, history.ok), at_least=99.9, unit="%", why=figures.explain())
    judge("G5", "usage lost", figures.use_lost, at_most=0, why=figures.explain())
    if postgres is not None:
        judge("F08", "status with an unknown key", unknown.status, equals=503, why=repr(unknown.body))
        ages = [line for line in stage.machine.log_text().splitlines() if "cannot be read again" in line]
        judge("F08", "lines in the log of each worker", len(ages) / 2, at_most=1, why="\n".join(ages))
    until(lambda: config_age_s(stage) == 0, "the configuration is of now", timeout_s=5)
    assert stage.ask(load._alias, key="sk-" + "x" * 40).status == 401


@ON_POSTGRES
def test_f08_a_configuration_is_served_for_so_long_and_no_longer(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(env={"LLM_MAX_CONFIG_AGE_S": "3"})
    alias = stage.model("ok@tokens=2")
    postgres = stage.services.postgres
    assert postgres is not None
    postgres.kill()
    died = time.monotonic()
    until(lambda: {stage.ask(alias).status for _ in range(8)} == {503}, "no worker serves it any more", timeout_s=60)
    judge("F08", "served beyond LLM_MAX_CONFIG_AGE_S", time.monotonic() - died - 3, at_most=2, unit="s")
    assert not stage.machine.is_ready()
    postgres.start()
    stage.machine.wait_until_ready(10)
    assert stage.ask(alias).status == 200


@contextmanager
def gone(stage: Stage) -> Iterator[None]:
    if stage.services.postgres is None:
        with stage.database.hidden():
            yield
        return
    stage.services.postgres.kill()
    try:
        yield
    finally:
        stage.services.postgres.start()


@ON_POSTGRES
def test_f09_database_hangs(new_stage: Callable[..., Stage], size: LoadSize, judge: Judge) -> None:
    """The p99 is of the clients that ask `/v1`; meanwhile others ask the admin, get nothing, and leave."""
    stage = new_stage(env={"LLM_MAX_CONTROL_REQUESTS": str(ADMIN_REQUESTS)})
    postgres = stage.services.postgres
    assert postgres is not None
    size = longer(size, LoadSize(size.clients, 16, 5, 11))
    load = stage.load(stage.model(MODEL), size)
    load.wait_until(size.fault_at_s)
    threads = stage.machine.threads()
    postgres.freeze()
    frozen_at = time.time()
    most_threads = asked_by_many(stage)
    load.wait_until(size.fault_until_s)
    postgres.thaw()
    thawed_at = time.time()
    history = load.history()
    figures = stage.check(history, fault_end=thawed_at)
    ratio = iso(history.between(frozen_at, thawed_at), history.between(load.began + 1, frozen_at))
    judge_serving(judge, "F09", history, figures)
    judge("F09", "ISO", ratio, at_most=1.2, unit="×")
    allowed = THREADS_EACH * ADMIN_REQUESTS * 2 + OTHER_THREADS
    judge("F09", f"threads more in two workers, {ASKING} ask each for {ADMIN_REQUESTS} places", most_threads - threads, at_most=allowed)
    answer, _ = admin_write(stage)
    assert answer.status == 201, answer


def longer(size: LoadSize, short: LoadSize) -> LoadSize:
    """A full load as it is; `short` where that is shorter than the fault takes."""
    return size if size == FULL else short


def asked_by_many(stage: Stage) -> int:
    """Within a few seconds, while nothing is answered. Returns the most threads that the workers had meanwhile."""
    asking = [threading.Thread(target=leave_early, args=(stage,)) for _ in range(ASKING)]
    most = 0
    for thread in asking:
        thread.start()
        time.sleep(0.015)
        most = max(most, stage.machine.threads())
    for thread in asking:
        thread.join()
    return most


def leave_early(stage: Stage) -> None:
    try:
        wire.call(stage.machine.base_url, "GET", "/api/info", headers={"Authorization": f"Token {stage.control._token}"}, timeout_s=3)
    except OSError:
        return


@ON_POSTGRES
def test_f10_more_calls_than_connections(new_stage: Callable[..., Stage], judge: Judge) -> None:
    stage = new_stage(postgres={"max_connections": "20"})
    alias = stage.model("ok@tokens=2,ttfb=1")
    stage.load(alias, LoadSize(20, 0.1, 0, 0)).history()
    history = stage.load(alias, LoadSize(60, 0.5, 0, 0)).history()
    figures = stage.check(history)
    assert len(history) == 60
    judge("F10", "failures", len(history) - len(history.ok), at_most=0, why=figures.explain())
    wall_s = max(row.end_t for row in history) - min(row.invoke_t for row in history)
    judge("F10", "60 calls of 1 s", wall_s, at_most=1.5, unit="s")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() != 0 or not mounted(folder):
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("a small disk cannot be mounted; run as root")
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=10)


def mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0


def stage_on(disk: Path, new_stage: Callable[..., Stage], **env: str) -> Stage:
    """The database and the whole state folder lie on it."""
    stage = new_stage(start=False)
    shutil.copy(stage.database.path, disk / SQLITE_FILE)
    stage.database = Database(disk / SQLITE_FILE)
    machine = stage.machine
    machine.state_dir = disk / "state"
    machine.state_dir.mkdir()
    machine.env |= {"DATABASE_URL": f"sqlite:///{disk / SQLITE_FILE}", "LLM_STATE_DIR": str(machine.state_dir), **env}
    machine.start()
    return stage


def filled(disk: Path) -> Path:
    """What takes all the room that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for block in (2**16, 2**12):
            try:
                while file.write(bytes(block)) == block:
                    pass
            except OSError:
                continue
    return filler


@contextmanager
def kept_full(disk: Path) -> Iterator[None]:
    """Again and again: what others give back is taken too."""
    stopped = threading.Event()

    def fill() -> None:
        number = 0
        while not stopped.is_set():
            filled(disk).rename(disk / f"filler-{(number := number + 1)}")
            stopped.wait(0.05)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        for filler in disk.glob("filler*"):
            filler.unlink()


@ON_SQLITE
@pytest.mark.parametrize("policy", ["strict", "best_effort"])
def test_f11_disk_full(disk: Path, new_stage: Callable[..., Stage], size: LoadSize, judge: Judge, policy: str) -> None:
    stage = stage_on(disk, new_stage, LLM_ACCOUNTING=policy)
    size = longer(size, LoadSize(size.clients, 22, 3, 8))
    load = stage.load(stage.model(MODEL), size)
    load.wait_until(size.fault_at_s)
    workers = stage.machine.workers()
    with kept_full(disk):
        load.wait_until(size.fault_at_s + 2)
        full_from = time.time()
        answer = until(lambda: refused_write(stage), "an admin's write finds no room", timeout_s=60)
        load.wait_until(size.fault_until_s)
        full_until = time.time()
    space_at = time.time()
    history = load.history()
    figures = stage.check(history, fault_end=space_at)
    full = history.where(lambda row: full_from <= row.invoke_t and row.end_t <= full_until)
    assert len(full) > size.clients, "nobody asked while the disk was full"
    assert stage.machine.workers() == workers, "a full disk killed a worker"
    judge("F11", "status of an admin's write", answer.status, equals=507, why=repr(answer.body))
    judge("F11", f"REC ({policy})", figures.rec_s, at_most=10, unit="s", why=figures.explain())
    judge("F11", f"LOST ({policy})", figures.lost, at_most=0, why=figures.explain())
    with sqlite3.connect(disk / SQLITE_FILE) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    if policy == "strict":
        refused = [row for row in full if row.status == 503 and row.code == "accounting_unavailable"]
        judge("F11", "refused with accounting_unavailable (strict)", served_pct(full, refused), equals=100.0, unit="%")
        unrecorded = [a for a in figures.attempts if a.row and a.row.status == 200 and a.call and not a.usage]
        judge("F11", "answers without a record (strict)", len(unrecorded), at_most=0, why=figures.explain())
        judge("F11", "USE_LOST (strict)", figures.use_lost, at_most=0, why=figures.explain())
    else:
        judge("F11", "/v1 success (best effort)", served_pct(full, full.ok), at_least=99.9, unit="%", why=figures.explain())


@pytest.mark.short
@ON_SQLITE
def test_f12_torn_journal(new_stage: Callable[..., Stage], size: LoadSize, judge: Judge) -> None:
    """The last bytes of one process's journal are gone, and in another's a byte in the middle is wrong."""
    stage = new_stage(env={"LLM_DRAIN_INTERVAL_S": "60"})
    stage.expect_difference("Usage records = requests")  # of a request whose attempt lay in the damage
    load = stage.load(stage.model("ok@tokens=2"), size._replace(seconds=3), reconnect_every=2)
    load.history()
    stage.machine.kill()
    assert not stage.database.usage(), "something was drained: too little is left to damage"
    segments = sorted((stage.machine.state_dir / "journal").glob("*.journal"), key=lambda path: path.stat().st_size)[-2:]
    assert all(path.stat().st_size > 2000 for path in segments), "a worker got nothing to do: too little is left to damage"
    dice = random.Random(12)
    expected = tear_end(segments[0], dice) + flip_byte(segments[1], dice)
    stage.machine.start()
    settled = until(lambda: len(stage.database.usage()) >= expected and len(stage.database.usage()), "the journal is replayed")
    judge("F12", "records outside of the damage", 100 * settled / expected, at_least=100.0, unit="%")
    log = stage.machine.log_text()
    assert log.count("were skipped") == 2, log[-3000:]


def whole_of(path: Path) -> list[tuple[int, list[object]]]:
    writes, offset, size = [], 0, path.stat().st_size
    while offset < size:
        read = read_segment(path, offset)
        writes += [(at, list(records)) for at, records in read.writes]
        offset = read.next_offset
    return writes


def begun_outside(path: Path, start: int, stop: int) -> int:
    """Attempts whose beginning lies in a write that does not touch these bytes. Asked before anything is damaged."""
    writes = whole_of(path)
    ends = [at for at, _ in writes[1:]] + [path.stat().st_size]
    sound = [records for (at, records), end in zip(writes, ends, strict=True) if end <= start or at >= stop]
    return sum(type(record).__name__ == "AttemptOpened" for records in sound for record in records)


def tear_end(path: Path, dice: random.Random) -> int:
    size = path.stat().st_size
    torn_at = size - dice.randint(1, 300)
    expected = begun_outside(path, torn_at, size)
    os.truncate(path, torn_at)
    return expected


def flip_byte(path: Path, dice: random.Random) -> int:
    at = path.stat().st_size // 2 + dice.randint(0, 300)
    expected = begun_outside(path, at, at + 1)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))
    return expected
