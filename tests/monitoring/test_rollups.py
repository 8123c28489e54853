"""Sums beside the ledger: each row once, whatever is repeated, and the same sums as the rows themselves tell."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from core.clock import FrozenClock
from monitoring import ledger, retention, rollups
from monitoring.ledger import REQUESTS, USAGE, Row, Table, request_row, usage_row
from monitoring.models import Pruned, RequestLog, Rollup, UsageRecord
from tests.monitoring.records import BEGUN, ended, opened, settled

pytestmark = pytest.mark.django_db
HOUR, DAY = Rollup.Span.HOUR, Rollup.Span.DAY
Rows = list[tuple[Table, Row]]


def attempt(name: str, number: int = 1, **changes: object) -> Rows:
    of_opening = {key: value for key, value in changes.items() if hasattr(opened(name), key)}
    of_end = {key: value for key, value in changes.items() if key not in of_opening}
    return [(USAGE, usage_row(opened(name, number, **of_opening), settled(name, number, **of_end)))]


def request(name: str, **changes: object) -> Rows:
    return [(REQUESTS, request_row(ended(name, **changes)))]


def the(span: Rollup.Span = HOUR, **where: object) -> Rollup:
    return Rollup.objects.get(span_s=span, **where)


def snapshot() -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "id"} for row in Rollup.objects.order_by(*rollups.KEY).values()]


def test_an_answered_request_is_one_rollup_an_hour_and_one_a_day() -> None:
    ledger.insert(attempt("a") + request("a"))
    for span, start in ((HOUR, BEGUN - BEGUN % 3600), (DAY, BEGUN - BEGUN % 86_400)):
        row = the(span)
        assert row.start == datetime.fromtimestamp(start, UTC)
        assert (row.team_id, row.key_name, row.provider_id, row.alias, row.status) == ("t1", "backend", "p1", "gpt-4o", "ok")
        assert (row.requests, row.failed_requests, row.refused_requests, row.attempts, row.failed_attempts) == (1, 0, 0, 1, 0)
        assert (row.cost_micros, row.input_tokens, row.output_image_tokens, row.duration_ms) == (1234, 100, 9, ended("a").duration_ms)
    assert Rollup.objects.count() == 2


def test_batches_add_up() -> None:
    for number in range(3):
        ledger.insert(attempt(f"a{number}") + request(f"a{number}") + attempt(f"b{number}") + request(f"b{number}"))
    assert (the().requests, the().attempts, the().cost_micros) == (6, 6, 6 * 1234)
    assert sum(getattr(the(), name) for name in rollups.DURATION_COLUMNS) == 6


def test_what_is_entered_again_counts_once() -> None:
    ledger.insert(attempt("a") + request("a"))
    before = snapshot()
    assert ledger.insert(attempt("a") + request("a"))[0][USAGE] == 0
    assert snapshot() == before
    new, _ = ledger.insert(attempt("a") + attempt("a", 2) + request("a") + attempt("b") + request("b"))
    assert (new[USAGE], new[REQUESTS]) == (2, 1)
    assert (the().attempts, the().requests) == (3, 2)


def test_what_comes_twice_in_a_batch_counts_once() -> None:
    new, _ = ledger.insert(attempt("a") + attempt("a", cost_micros=9) + request("a") + request("a"))
    assert (new[USAGE], new[REQUESTS]) == (1, 1)
    assert (the().attempts, the().requests, the().cost_micros) == (1, 1, 1234)


def test_of_a_batch_that_is_rolled_back_nothing_counts() -> None:
    with transaction.atomic():
        ledger.insert(attempt("a") + request("a"))
        transaction.set_rollback(True)
    assert not Rollup.objects.exists()


def test_a_batch_stored_one_by_one_counts_what_was_stored() -> None:
    new, refused = ledger.insert(attempt("a") + attempt("b", cost_micros=2**70) + request("a"))
    assert (new[USAGE], new[REQUESTS], len(refused)) == (1, 1, 1)
    assert (the().attempts, the().requests) == (1, 1)
    assert rollups.difference() is None


def test_a_batch_over_midnight_has_two_days() -> None:
    midnight = BEGUN - BEGUN % 86_400
    ledger.insert(attempt("a", started_at=midnight - 1.0) + attempt("b", started_at=midnight) + attempt("c", started_at=midnight + 3600))
    assert Rollup.objects.filter(span_s=HOUR).count() == 3
    assert [row.attempts for row in Rollup.objects.filter(span_s=DAY).order_by("start")] == [1, 2]


def test_a_refused_request_counts_for_its_key_and_for_no_model() -> None:
    ledger.insert(
        request("a", attempts=0, status_code=404, alias="made-up-1") + request("b", attempts=0, status_code=429, alias="made-up-2")
    )
    row = the()
    assert (row.alias, row.key_id, row.refused_requests, row.requests, row.failed_requests) == ("", "k1", 2, 0, 0)


@pytest.mark.parametrize(
    ("code", "error_code", "status", "failed"),
    [(200, "", "ok", 0), (502, "upstream_error", "error", 1), (499, "", "client_closed", 0), (500, "process_died", "interrupted", 1)],
)
def test_a_request_has_the_outcome_of_attempts(code: int, error_code: str, status: str, failed: int) -> None:
    ledger.insert(request("a", status_code=code, error_code=error_code))
    assert (the().status, the().failed_requests) == (status, failed)


def test_unknown_prices_are_counted_and_not_summed() -> None:
    ledger.insert(attempt("a", cost_micros=None) + attempt("b", cost_micros=5))
    assert (the().unpriced_attempts, the().cost_micros, the().attempts) == (1, 5, 2)


def test_the_latest_name_of_a_caller_stays() -> None:
    ledger.insert(attempt("a") + request("a"))
    ledger.insert(request("b", team_name="growth & co"))
    assert (the().team_name, the().provider_id) == ("growth & co", "p1")


def scattered(seed: int) -> Rows:
    chance = random.Random(seed)
    rows: Rows = []
    for number in range(150):
        name = f"r{chance.randrange(300)}"
        moment = BEGUN + chance.randrange(3) * 40_000.0
        who = {"key_id": f"k{chance.randrange(3)}", "alias": f"m{chance.randrange(2)}", "started_at": moment}
        rows += attempt(
            name, chance.randrange(1, 3), status=chance.choice(["ok", "error"]), cost_micros=chance.choice([None, number]), **who
        )
        rows += request(name, status_code=chance.choice([200, 429, 502]), attempts=chance.randrange(2), **who)
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_rollups_tell_what_the_rows_tell(seed: int) -> None:
    for part in range(4):
        ledger.insert(scattered(seed * 2 + part % 3))
    assert rollups.difference() is None
    before = snapshot()
    assert rollups.rebuild() == UsageRecord.objects.count() + RequestLog.objects.count()
    assert rollups.difference() is None
    # Which of two names is the latest is not known afterwards; here all have the same.
    assert snapshot() == before


@pytest.mark.parametrize("span", [HOUR, DAY])
def test_a_difference_is_told_with_its_day(span: Rollup.Span) -> None:
    ledger.insert(attempt("a") + request("a"))
    Rollup.objects.filter(span_s=span).update(cost_micros=1)
    assert rollups.difference() == f"On 2027-01-15 the rows have 1234 cost_micros, the rollups by {span.label.lower()} 1."
    Rollup.objects.all().delete()
    assert rollups.difference() is not None
    call_command("rebuild_rollups", verbosity=0)
    assert rollups.difference() is None
    UsageRecord.objects.all().delete()
    with pytest.raises(CommandError, match="rows have 0 attempts"):
        call_command("rebuild_rollups", check=True)


@pytest.mark.django_db(transaction=True)
def test_comparing_holds_up_nobody_who_writes() -> None:
    with CaptureQueriesContext(connection) as queries:
        assert rollups.difference() is None
    begun = [query["sql"] for query in queries if query["sql"].startswith(("BEGIN", "SET TRANSACTION"))]
    expected = {"sqlite": ["BEGIN DEFERRED"], "postgresql": ["BEGIN", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"]}
    assert begun == expected[connection.vendor]


def test_rows_from_before_the_rollups_are_summed_up_after_a_migration() -> None:
    ledger.insert(attempt("a") + request("a"))
    Rollup.objects.all().delete()
    rollups.fill_if_empty()
    assert the().attempts == 1
    rollups.fill_if_empty()
    assert the().attempts == 1


# Retention ----------------------------------------------------------------------------------------------------------

LAST_DAY = datetime(2027, 1, 15, tzinfo=UTC)


def old_and_new() -> None:
    """Three requests ten days before, and one of today."""
    for number in range(3):
        ledger.insert(attempt(f"old{number}", started_at=BEGUN - 10 * 86_400) + request(f"old{number}", started_at=BEGUN - 10 * 86_400))
    ledger.insert(attempt("new") + request("new"))


def test_old_rows_go_and_their_sums_stay() -> None:
    old_and_new()
    before = snapshot()
    assert retention.prune_batch(LAST_DAY - timedelta(days=7)) == 6
    assert retention.prune_batch(LAST_DAY - timedelta(days=7)) == 0
    assert [str(row) for row in UsageRecord.objects.all()] == ["new-1"]
    assert snapshot() == before
    assert rollups.difference() is None, "days that were pruned are not compared"
    rollups.rebuild()
    assert snapshot() == before, "nor summed up anew"


def test_days_are_kept_whole() -> None:
    moment = datetime(2027, 1, 15, 23, 59, tzinfo=UTC)
    assert retention.first_kept_day(moment, 7) == datetime(2027, 1, 8, tzinfo=UTC)


def test_the_pruner_does_bounded_work_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS_PER_BATCH", 1)
    monkeypatch.setattr(retention, "_BATCHES_PER_STEP", 2)
    clock = FrozenClock(BEGUN)
    pruner = retention.Pruner(7, clock)
    old_and_new()
    assert [pruner.step() for _ in range(3)] == [4, 2, 0]
    ledger.insert(attempt("late", started_at=BEGUN - 9 * 86_400))
    assert pruner.step() == 0, "not again within the hour"
    clock.advance(retention.INTERVAL_S)
    assert pruner.step() == 1
    assert Pruned.objects.get().before == LAST_DAY - timedelta(days=7)


def test_without_retention_nothing_goes() -> None:
    old_and_new()
    assert retention.Pruner(0, FrozenClock()).step() == 0
    assert not Pruned.objects.exists()


def test_the_command_prunes_at_once(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    old_and_new()
    settings.RETENTION_DAYS = 0
    call_command("prune_logs")
    assert UsageRecord.objects.count() == 4
    UsageRecord.objects.update(started_at=datetime(2020, 1, 1, tzinfo=UTC))
    settings.RETENTION_DAYS = 400
    call_command("prune_logs")
    assert UsageRecord.objects.count() == 0
    assert "Deleted 4 rows" in capsys.readouterr().out


def test_a_batch_costs_a_handful_of_statements(django_assert_max_num_queries: Any) -> None:
    batch: Sequence[Any] = [row for number in range(200) for row in attempt(f"a{number}") + request(f"a{number}")]
    with django_assert_max_num_queries(40):
        ledger.insert(batch)
    assert the().requests == 200
