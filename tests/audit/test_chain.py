"""Tampering by whoever owns the database: the trail names the first bad row, and so does the verifier that knows no Django."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from access.models import Team
from monitoring import audit, audit_chain, audit_triggers
from monitoring.audit_checkpoints import rows, verify
from monitoring.models import AuditEvent

pytestmark = pytest.mark.django_db(transaction=True)
SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "verify_audit.py"
ROWS = 12
COLUMNS = ", ".join(AuditEvent._meta.get_field(name).column for name in audit_chain.Row._fields if name != "sequence")


@pytest.fixture
def tampered() -> Any:
    """A trail of ROWS rows, whose triggers the owner of the database has dropped."""
    for number in range(ROWS):
        Team.objects.create(name=f"team {number}")
    audit_triggers.remove()
    yield execute
    execute("DELETE FROM monitoring_auditevent")
    audit_triggers.install()


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def renumber(first: int, by: int) -> None:
    """One by one and in an order that meets no row of the same number."""
    numbers = range(first, ROWS + 1) if by < 0 else range(ROWS, first - 1, -1)
    for number in numbers:
        execute(f"UPDATE monitoring_auditevent SET sequence = {number + by} WHERE sequence = {number}")


def copy(source: int, target: int) -> None:
    read = f"SELECT {target}, {COLUMNS} FROM monitoring_auditevent WHERE sequence = {source}"
    execute(f"INSERT INTO monitoring_auditevent (sequence, {COLUMNS}) {read}")


def swap(one: int, other: int) -> None:
    for source, target in ((one, 900), (other, one), (900, other)):
        execute(f"UPDATE monitoring_auditevent SET sequence = {target} WHERE sequence = {source}")


def rechain(first: int) -> None:
    """As somebody who has the chain's key, but not the one that signs."""
    key = audit.keys().chain
    prev = AuditEvent.objects.get(sequence=first - 1).hash if first > 1 else audit_chain.GENESIS
    execute(f"UPDATE monitoring_auditevent SET actor = 'nobody' WHERE sequence = {first}")
    for row in list(rows())[first - 1 :]:
        linked = audit_chain.link(key, row._replace(prev=prev))
        execute(f"UPDATE monitoring_auditevent SET prev = '{prev}', hash = '{linked}' WHERE sequence = {row.sequence}")
        prev = linked


def put_in(at: int) -> None:
    renumber(at, 1)
    copy(at - 1, at)


def take_out(at: int) -> None:
    execute(f"DELETE FROM monitoring_auditevent WHERE sequence = {at}")
    renumber(at + 1, -1)


TAMPERINGS: dict[str, tuple[Callable[[], None], int]] = {
    "edit": (lambda: execute("UPDATE monitoring_auditevent SET object_label = 'x' WHERE sequence = 5"), 5),
    "edit of a moment": (lambda: execute("UPDATE monitoring_auditevent SET at = '2020-01-01 00:00:00' WHERE sequence = 5"), 5),
    "edit of the changes": (lambda: execute("UPDATE monitoring_auditevent SET changes = '{}' WHERE sequence = 5"), 5),
    "edit of a hash": (lambda: execute(f"UPDATE monitoring_auditevent SET hash = '{'0' * 64}' WHERE sequence = {ROWS}"), ROWS),
    "delete": (lambda: execute("DELETE FROM monitoring_auditevent WHERE sequence = 5"), 5),
    "delete and renumber": (lambda: take_out(5), 5),
    "delete the first": (lambda: execute("DELETE FROM monitoring_auditevent WHERE sequence = 1"), 1),
    "insert": (lambda: put_in(5), 5),
    "append": (lambda: copy(ROWS, ROWS + 1), ROWS + 1),
    "put before": (lambda: copy(1, 0), 0),
    "swap": (lambda: swap(4, 9), 4),
    "truncate": (lambda: execute("DELETE FROM monitoring_auditevent WHERE sequence > 7"), 8),
    "empty": (lambda: execute("DELETE FROM monitoring_auditevent"), 1),
    "re-chain": (lambda: rechain(6), 6),
    "re-chain all": (lambda: rechain(1), 1),
}


def by_command() -> dict[str, Any]:
    out = StringIO()
    refusal = ""
    try:
        call_command("verify_audit", "--json", stdout=out)
    except CommandError as error:
        refusal = str(error)
    found = json.loads(out.getvalue())
    assert refusal.startswith("First bad row") is not found["ok"]
    return found


def stand_alone(folder: Path, checkpoints: Path) -> dict[str, Any]:
    """From what an auditor has: an export that the tamperer has made, the checkpoints, two keys."""
    keys = audit.keys()
    (folder / "chain.key").write_text(keys.chain.hex())
    (folder / "public.key").write_text(audit_chain.public_key(keys).hex() + "\n")
    (folder / "trail.jsonl").write_text("".join(json.dumps(row._asdict()) + "\n" for row in rows()))
    command = [sys.executable, "-I", str(SCRIPT), "--json", "--rows", str(folder / "trail.jsonl"), "--checkpoints", str(checkpoints)]
    command += ["--chain-key-file", str(folder / "chain.key"), "--public-key-file", str(folder / "public.key")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1), done.stderr
    return found


def test_a_whole_trail_is_found_whole(tmp_path: Path, second_sink: Path) -> None:
    for number in range(ROWS):
        Team.objects.create(name=f"team {number}")
    found = by_command()
    assert found == {
        "ok": True,
        "rows": ROWS,
        "checkpoints": ROWS,
        "covered": ROWS,
        "first_bad": None,
        "problem": None,
        "missing_triggers": [],
    }
    assert stand_alone(tmp_path, second_sink) == {"ok": True, "rows": ROWS, "covered": ROWS, "first_bad": None, "problem": None}


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_the_first_bad_row_is_named_by_both(tampered: Any, tmp_path: Path, second_sink: Path, kind: str) -> None:
    tamper, first_bad = TAMPERINGS[kind]
    tamper()
    found = by_command()
    assert (found["ok"], found["first_bad"]) == (False, first_bad)
    assert str(first_bad) in found["problem"]
    other = stand_alone(tmp_path, second_sink)
    assert (other["ok"], other["first_bad"], other["rows"]) == (False, first_bad, found["rows"])


def test_the_sqlite_file_itself_can_be_verified(tmp_path: Path, second_sink: Path) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("there is no file")
    for number in range(ROWS):
        Team.objects.create(name=f"team {number}")
    stand_alone(tmp_path, second_sink)  # writes the keys
    execute(f"VACUUM INTO '{tmp_path}/copy.sqlite3'")
    command = [sys.executable, "-I", str(SCRIPT), "--sqlite", str(tmp_path / "copy.sqlite3"), "--checkpoints", str(second_sink)]
    command += ["--chain-key-file", str(tmp_path / "chain.key"), "--public-key-file", str(tmp_path / "public.key")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"All {ROWS} rows follow from each other; checkpoints vouch for rows 1 to {ROWS}.\n")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE monitoring_auditevent SET actor = 'nobody'",
        "DELETE FROM monitoring_auditevent",
        f"INSERT INTO monitoring_auditevent (sequence, {COLUMNS}) SELECT 7, {COLUMNS} FROM monitoring_auditevent",
    ],
)
def test_triggers_refuse(sql: str) -> None:
    Team.objects.create(name="search")
    before = list(rows())
    with pytest.raises(Exception, match="rows of the audit trail are never changed"):
        execute(sql)
    assert list(rows()) == before


def test_postgres_refuses_to_truncate() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no TRUNCATE")
    with pytest.raises(Exception, match="rows of the audit trail are never changed"):
        execute("TRUNCATE monitoring_auditevent CASCADE")


def test_missing_triggers_are_told_and_migrate_puts_them_back() -> None:
    audit_triggers.remove()
    try:
        assert set(verify().missing_triggers) >= {"audit_rows_stay_update", "audit_rows_stay_delete", "audit_rows_stay_insert"}
    finally:
        call_command("migrate", verbosity=0)
    assert verify().missing_triggers == []


def test_a_checkpoint_that_is_altered_is_told(second_sink: Path, tmp_path: Path) -> None:
    Team.objects.create(name="search")
    second_sink.write_text(second_sink.read_text().replace('"sequence":1', '"sequence":2'))
    assert (by_command()["first_bad"], stand_alone(tmp_path, second_sink)["first_bad"]) == (0, 0)


def test_a_torn_line_is_left_out_and_the_next_one_is_whole(second_sink: Path) -> None:
    Team.objects.create(name="search")
    second_sink.write_text(second_sink.read_text() + '{"sequence":2,"ha')
    Team.objects.create(name="find")
    found = verify()
    assert (found.bad, found.checkpoints, found.covered) == (None, 2, 2)


def test_verify_vouches_for_what_a_killed_process_left(second_sink: Path) -> None:
    Team.objects.create(name="search")
    second_sink.unlink()
    assert verify().covered == 0
    assert verify().covered == 1


def test_a_sink_that_cannot_be_written_stops_nothing_and_is_told(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.AUDIT_CHECKPOINTS = Path("/proc/nowhere/checkpoints.jsonl")
    Team.objects.create(name="search")
    assert Team.objects.count() == 1
    assert "could not be written" in caplog.text


def test_one_checkpoint_for_each_transaction(second_sink: Path) -> None:
    Team.objects.bulk_create([Team(name=f"team {number}") for number in range(50)])
    lines = [json.loads(line) for line in second_sink.read_text().splitlines()]
    assert [line["sequence"] for line in lines] == [50]
    assert second_sink.stat().st_mode & 0o077 == 0


def test_the_export_is_recorded_and_complete() -> None:
    Team.objects.create(name="search")
    out = StringIO()
    call_command("export_audit", stdout=out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["action"] for line in lines] == ["created", "exported"]
    out = StringIO()
    call_command("export_audit", "--chain-key", stdout=out)
    assert bytes.fromhex(out.getvalue().strip()) == audit.keys().chain
    assert AuditEvent.objects.first().action == "revealed"
    out = StringIO()
    call_command("export_audit", "--public-key", stdout=out)
    assert bytes.fromhex(out.getvalue().strip()) == audit_chain.public_key(audit.keys())
