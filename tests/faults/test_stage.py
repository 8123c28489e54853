"""The stage itself: the checker sees what it is there to see, the vendor does what it says, the report is always the same."""

from __future__ import annotations

import secrets
import socket
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e import wire
from tests.faults.books import Books
from tests.faults.database import Usage
from tests.faults.figures import Figures, double_charges, iso, recovery_s, work_out
from tests.faults.goals import GOALS, all_double_charges
from tests.faults.history import History, Row, read_error
from tests.faults.judge import Judge, Result
from tests.faults.leaks import Search
from tests.faults.loads import LoadSize
from tests.faults.machine import Death
from tests.faults.notes import Note, read, write
from tests.faults.processes import until
from tests.faults.report import FAULTS, page
from tests.faults.stage import Stage, tracebacks
from tests.faults.vendor import Call, Vendor

pytestmark = pytest.mark.short

PORT = 9000
SECRET = "sk-planted-0123456789"


def row(number: int = 1, **fields: object) -> Row:
    known = {"outcome": "ok", "status": 200, "invoke_t": 100.0, "end_t": 100.5, "headers": {"x-request-id": f"req_{number}"}}
    made = Row(f"nonce:{number}", "alias", False, f"nonce:{number}", server_port=PORT, local_port=number)
    made.text = f"{made.echo} t1"
    for name, value in {**known, **fields}.items():
        setattr(made, name, value)
    return made


def call(number: int = 1, n: int = 1, tokens_sent: int = 2) -> Call:
    return Call(n, f"nonce:{number}", "", "", "ok", False, 200, "whole", 1, tokens_sent, 16, 100.0, 100.1, 100.2, None, "", False)


def usage(number: int = 1, attempt: int = 1, output: int = 2, source: str = "vendor") -> Usage:
    return Usage(f"req_{number}", attempt, 100.0, "alias", "ok", "vendor-1", "", "ok", "", source, 1, output, 5)


def figures(rows: list[Row], calls: list[Call], found: list[Usage], **options: object) -> Figures:
    return work_out(History(rows), calls, found, heard=rows, **options)  # type: ignore[arg-type]


def test_all_well() -> None:
    found = figures([row()], [call()], [usage()], expect_tokens=2)
    assert (found.lost, found.use_lost, found.dup, found.drift_pct, found.swap, found.short) == (0, 0, 0, 0, 0, 0)
    assert (found.amp, found.errq_pct, found.requests) == (1, 100, 1)


def test_a_call_without_a_record_is_lost_usage_whether_or_not_its_client_learnt_the_id() -> None:
    assert figures([row()], [call()], []).use_lost == 1
    cut = row(headers={}, outcome="unknown", reason="cut")
    assert figures([cut], [call()], []).use_lost == 1
    assert figures([cut], [call()], [usage(7)]).use_lost == 0
    assert figures([row()], [call(tokens_sent=0)], []).use_lost == 0


def test_records_of_another_load_stand_in_for_nothing() -> None:
    cut = row(headers={}, outcome="unknown", reason="cut")
    assert work_out(History([cut]), [call()], [usage(2)], heard=[cut, row(2)]).use_lost == 1


def test_a_record_more_than_calls_is_a_double_charge() -> None:
    assert figures([row()], [call()], [usage(), usage(attempt=2)]).dup == 1
    assert figures([row()], [call()], [usage(), usage()]).dup == 2  # charged beyond the call, and of one attempt
    assert figures([row()], [call()], [usage(attempt=2), usage(output=0, source="none")]).dup == 0


def test_drift_is_in_the_records_own_unit() -> None:
    assert figures([row()], [call(tokens_sent=9)], [usage(output=8)]).drift_pct == pytest.approx(10)
    assert figures([row()], [call(tokens_sent=9)], [usage(output=4, source="estimated")]).drift_pct == 0


def test_lost_are_those_without_an_answer_whose_connection_did_not_die() -> None:
    cut = row(outcome="unknown", reason="cut")
    assert figures([cut], [], []).lost == 1
    assert figures([cut], [], [], deaths=[Death(100.2, PORT, frozenset({1}), 100.2)]).lost == 0
    assert figures([cut], [], [], deaths=[Death(100.2, PORT, None, 100.2)]).lost == 0
    assert figures([cut], [], [], deaths=[Death(100.2, PORT, frozenset({2}), 100.2)]).lost == 1
    assert figures([cut], [], [], deaths=[Death(99.0, PORT, None, 99.0)]).lost == 1
    assert figures([row(outcome="unknown", reason="timeout")], [], [], deaths=[Death(100.2, PORT, None, 100.2)]).lost == 1


def test_a_swapped_answer() -> None:
    assert figures([row(text="echo:00000000 t1")], [], []).swap == 1


def test_the_form_of_errors() -> None:
    headers = {"x-request-id": "req_1"}
    good = b'{"error": {"message": "m", "type": "t", "code": null, "param": null}}'
    assert read_error(good, headers, 502)[1] == ()
    assert len(read_error(good, {}, 500)[1]) == 2
    assert read_error(b'{"error": {"message": "m"}}', headers, 502)[1]
    assert read_error(b"<html>", headers, 502)[0] is None
    leaking = row(outcome="fail", status=502, error_body=good.replace(b'"m"', f'"{SECRET}"'.encode()))
    assert figures([leaking, row(2, outcome="fail", status=502)], [], [], secrets=[SECRET]).errq_pct == 50


def test_recovery_and_isolation() -> None:
    ends = [(101.0, "fail"), (102.0, "fail"), (103.0, "ok"), (103.5, "ok"), (104.5, "ok")]
    rows = [row(number, end_t=end, outcome=outcome) for number, (end, outcome) in enumerate(ends)]
    assert recovery_s(rows, 100.5) == pytest.approx(2.5)
    assert recovery_s(rows[:2], 100.5) == float("inf")
    assert iso([row(end_t=101.0)], [row(end_t=100.5)]) == pytest.approx(2)


def test_a_missed_goal_is_noted_and_fails() -> None:
    results: list[Result] = []
    judge = Judge("sqlite", results)
    judge("F01", "REC", 2.0, at_most=3, unit="s")
    with pytest.raises(AssertionError, match=r"F01 LOST: 2, and the goal is ≤ 0"):
        judge("F01", "LOST", 2, at_most=0)
    text = page(results, "short")
    assert text == page(results[::-1], "short")
    assert "| LOST | ≤ 0 | **2** | not run |" in text
    assert "**Short load**" in text
    assert text.count("\n| F") == len(FAULTS) + 1
    assert "| G16 | longest recovery after any fault | REC | ≤ 5 s | 2 s, at F01 | not run | its own |" in text


def test_on_a_busy_machine_a_time_fails_only_out_of_all_proportion() -> None:
    results: list[Result] = []
    judge = Judge("sqlite", results, busy=True)
    judge("F01", "REC", 19.0, at_most=3, unit="s")
    judge("F34", "DRIFT of a single one", 5, at_most=1, unit="tokens", timed=True)
    assert [result.met for result in results] == [False, False]
    for figure, measured, options in (
        ("REC", 21.0, {"at_most": 3, "unit": "s"}),
        ("LOST", 1, {"at_most": 0}),
        ("DRIFT of a single one", 6, {"at_most": 1, "unit": "tokens", "timed": True}),
        ("shortest wait", 1.0, {"at_least": 2, "unit": "s"}),
    ):
        with pytest.raises(AssertionError, match=figure):
            judge("F01", figure, measured, **options)
    with pytest.raises(AssertionError, match="REC"):
        Judge("sqlite", results)("F01", "REC", 3.1, at_most=3, unit="s")


def test_a_goal_known_to_be_missed_is_shown_with_its_reason_until_it_is_met() -> None:
    results: list[Result] = []
    judge = Judge("sqlite", results)
    judge("F01", "REC", 4.0, at_most=3, unit="s", misses="a start takes two")
    assert "| REC | ≤ 3 s | **4 s** (a start takes two) | not run |" in page(results, "full")
    with pytest.raises(AssertionError, match="take its `misses` away"):
        judge("F01", "REC", 2.0, at_most=3, unit="s", misses="a start takes two")


def test_every_goal_names_a_fault_of_the_page() -> None:
    assert {fault for goal in GOALS.values() for fault, _ in goal.figures} <= {*FAULTS, *GOALS}


def test_double_charges_of_a_whole_stage() -> None:
    noted = Note("test_it", "short", "sqlite", True, [], [(3, 0), (4, 1)])
    assert [(result.measured, result.met) for result in all_double_charges([noted])] == [("1 in 7 requests", False)]
    assert double_charges([row()], [call()], [usage(), usage(attempt=2)]) == 1
    assert double_charges([row()], [call()], [usage(), usage()]) == 1
    assert double_charges([row()], None, [usage(), usage(attempt=2)]) == 0
    retried = [row(), row(headers={"x-request-id": "req_2"})]  # one Idempotency-Key: the second request made the call
    assert double_charges(retried, [call()], [usage(2)]) == 0
    cut = row(headers={}, outcome="unknown", reason="cut")
    assert double_charges([cut], [call()], [usage(7)]) == 0
    assert double_charges([cut], [call()], [usage(7), usage(8)]) == 1


def test_the_last_note_of_a_test_counts(tmp_path: Path) -> None:
    first = Note("test_it", "full", "sqlite", False, [Result("F01", "LOST", "≤ 0", "1", False, "sqlite", 1.0)], [(3, 0)])
    second = first._replace(passed=True, results=[Result("F01", "LOST", "≤ 0", "0", True, "sqlite", 0.0)])
    assert read(tmp_path / "notes") == []
    for note in (first, second, first._replace(load="short")):
        write(tmp_path / "notes", note)
    assert read(tmp_path / "notes") == [second, first._replace(load="short")]


def test_tracebacks_are_found_whole() -> None:
    log = "INFO fine\nTraceback (most recent call last):\n  File x\nValueError: broken\nINFO fine\n"
    assert tracebacks(log) == ["Traceback (most recent call last):\n  File x\nValueError: broken"]


# The vendor ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    vendor = Vendor(tmp_path_factory.mktemp("vendor"), tls=True)
    yield vendor
    vendor.close()


def told(vendor: Vendor, model: str, key: str = "sk-one") -> wire.Answer:
    return wire.chat(vendor.base_url.removesuffix("/v1"), key, model)


def test_the_vendor_takes_only_the_keys_it_was_told(vendor: Vendor) -> None:
    vendor.control(keys=["sk-two"])
    statuses = [told(vendor, "ok", key).status for key in ("sk-one", "sk-two")]
    vendor.control(keys=None)
    assert (statuses, told(vendor, "ok").status) == ([401, 200], 200)


def test_the_vendor_breaks_and_mends_live(vendor: Vendor) -> None:
    vendor.control(fail={"ok": "fault-503"})
    broken = told(vendor, "ok@tokens=3").status
    vendor.control(fail={})
    assert (broken, told(vendor, "ok@tokens=3").status) == (503, 200)


def test_the_vendor_flaps(vendor: Vendor) -> None:
    assert [told(vendor, "fault-500-flap@bad=2,good=1").status for _ in range(6)] == [500, 500, 200, 500, 500, 200]


def test_the_vendor_names_a_date(vendor: Vendor) -> None:
    assert told(vendor, "fault-429@retry_after=3,date=1").headers["retry-after"].endswith(" GMT")


@pytest.mark.parametrize("what", ["good", "wrong-name", "expired", "self-signed"])
def test_the_vendors_certificates(vendor: Vendor, what: str) -> None:
    context = ssl.create_default_context(cafile=str(vendor.ca_file))
    port = int(vendor.tls[what].removesuffix("/v1").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        if what == "good":
            context.wrap_socket(sock, server_hostname="127.0.0.1").close()
            return
        with pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(sock, server_hostname="127.0.0.1")


# All together -------------------------------------------------------------------------------------------------------


@pytest.mark.short("both")
def test_machines_share_a_database_and_the_services_come_and_go(new_stage: Callable[..., Stage]) -> None:
    stage = new_stage(workers=1, machines=2)
    alias = stage.model("ok@tokens=20,delay=0.005")
    load = stage.load(alias, LoadSize(4, 1.5, 0, 0), abandon=lambda dice: dice.randint(1, 5))
    load_of_all = load.history()
    assert {row.server_port for row in load_of_all.ok} == {machine.port for machine in stage.machines}
    found = stage.check(load_of_all)
    assert (found.lost, found.use_lost, found.dup) == (0, 0, 0), found.explain()
    assert load_of_all.where(lambda row: row.abandoned)
    if stage.services.redis and stage.services.postgres:
        stage.services.redis.restart(empty=True)
        stage.expect_traceback("OperationalError")
        stage.services.postgres.kill()
        stage.services.postgres.start()
        stage.services.postgres.freeze()
        stage.services.postgres.thaw()
    else:
        with stage.database.locked(), pytest.raises(Exception, match="locked"):
            exclusive(stage)
        with stage.database.hidden():
            assert not stage.database.path.exists()
    assert stage.database.usage()
    with stage.rss() as rss:
        assert stage.ask(alias, stream=True, machine=stage.machines[1]).outcome == "ok"
    assert rss.over_mb >= 0


def test_a_configuration_is_in_force_once_every_single_worker_has_it(stage: Stage) -> None:
    key, frozen = stage.api_key(), stage.machine.workers()[0]
    stage.machine.freeze(frozen)
    try:
        limited = {"scope": {"key": key["id"]}, "kind": "requests", "limit": "1", "period": "total"}
        stage.control.call("POST", "/api/v1/llm/budgets", limited)
        with pytest.raises(AssertionError, match="in force"):
            stage.apply(timeout_s=1.5)
    finally:
        stage.machine.thaw(frozen)
    stage.apply()


def test_books_that_do_not_balance_are_named(stage: Stage) -> None:
    """As they are looked at, at the end of every test here."""
    stage.ask(stage.model("ok@tokens=3"))
    until(stage.database.usage, "the request is in the ledger")
    books = Books()
    try:
        assert books.difference(stage.services) == ""
        stage.database.change("UPDATE monitoring_usagerecord SET cost_micros = cost_micros + 7")
        assert books.difference(stage.services).startswith("Usage records = rollups: hour ")
        stage.database.change("UPDATE monitoring_usagerecord SET cost_micros = cost_micros - 7")
    finally:
        books.close()
    assert books.checked == 1


@pytest.mark.full_only
def test_a_secret_that_lies_somewhere_is_found(stage: Stage) -> None:
    """As it is looked for at the end of every test with --fault-canary."""
    stage.ask(stage.model("ok@tokens=3"))
    until(stage.database.usage, "the request is in the ledger")
    search = Search()
    assert search.leaks(stage) == []
    assert (search.stages, search.answers > 5, search.files > 3) == (1, True, True)
    in_file, in_row = f"f{secrets.token_hex(18)}", f"r{secrets.token_hex(18)}"  # no beginning that the stage's own share
    stage.secrets += [in_file, in_row]
    stray = stage.machine.state_dir / "stray.log"
    stray.write_text(f"Authorization: {in_file[4:]}")
    stage.database.change(f"UPDATE monitoring_requestlog SET end_user = '{in_row}'")
    found = search.leaks(stage)
    assert any("stray.log" in leak for leak in found)
    assert any("monitoring_requestlog" in leak or "sqlite3" in leak for leak in found)
    assert "a secret lies in the answer of /api/v1/requests" in found
    assert not any(secret in leak for leak in found for secret in stage.secrets)
    stage.secrets[-2:] = []  # or it is found once more, when this test ends


def exclusive(stage: Stage) -> None:
    with closing(sqlite3.connect(stage.database.path, timeout=0.1)) as file:
        file.execute("BEGIN IMMEDIATE")
