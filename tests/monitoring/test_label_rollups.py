"""Sums by user, task type and tag: of everything, bounded, and the same as the rows tell."""

from __future__ import annotations

from typing import Any

import pytest

from monitoring import label_rollups, ledger, rollups
from monitoring.models import LabelRollup, Rollup
from tests.monitoring.records import BEGUN
from tests.monitoring.test_rollups import Rows, attempt, request

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    """As in a process that has just begun."""
    label_rollups.forget()


def of(name: str, user: str = "", tag: str = "", **changes: Any) -> Rows:
    labels = {"end_user": user, "tag": tag}
    return attempt(name, **labels, **changes) + request(name, **labels, **changes)


def found(*columns: str) -> list[tuple[Any, ...]]:
    return sorted(LabelRollup.objects.values_list("end_user", "tag", *(columns or ("requests", "attempts", "cost_micros"))))


def test_without_labels_there_is_one_sum_a_day() -> None:
    ledger.insert(of("a") + of("b") + of("c", started_at=BEGUN + 3600))
    assert found() == [("", "", 3, 3, 3 * 1234)]


def test_each_combination_is_told_apart() -> None:
    ledger.insert(of("a", "ann") + of("b", "ann", "x") + of("c") + of("d", tag="x") + of("e", "ann"))
    assert found() == [("", "", 1, 1, 1234), ("", "x", 1, 1, 1234), ("ann", "", 2, 2, 2468), ("ann", "x", 1, 1, 1234)]
    assert rollups.difference() is None


def test_batches_add_up_and_what_is_entered_again_counts_once() -> None:
    for _ in range(2):
        ledger.insert(of("a", "ann") + of("b"))
        ledger.insert(of("c", "ann"))
    assert found() == [("", "", 1, 1, 1234), ("ann", "", 2, 2, 2468)]


def test_days_teams_keys_models_and_currencies_are_told_apart() -> None:
    ledger.insert(of("a", "ann"))
    others = ({"started_at": BEGUN + 86_400}, {"team_id": "t2"}, {"key_id": "k2"}, {"alias": "m2"}, {"currency": "EUR"})
    for number, other in enumerate(others):
        ledger.insert(of(f"b{number}", "ann", **other))
    assert found() == [("ann", "", 1, 1, 1234)] * 6


def test_refused_and_failed_requests_count_for_their_user() -> None:
    refused = request("a", attempts=0, status_code=429, end_user="ann", alias="made-up")
    failed = attempt("b", end_user="ann", status="error", cost_micros=None) + request("b", status_code=502, end_user="ann")
    ledger.insert(refused + failed)
    assert found("alias", "refused_requests", "requests", "failed_requests", "failed_attempts", "unpriced_attempts") == [
        ("ann", "", "", 1, 0, 0, 0, 0),
        ("ann", "", "gpt-4o", 0, 1, 1, 1, 1),
    ]
    assert rollups.difference() is None


def test_beyond_the_bound_the_rest_is_summed_up_together(settings: Any) -> None:
    settings.MAX_LABELS_PER_DAY = 2
    ledger.insert(of("a", "ann") + of("b", "bob") + of("c", "cid", "x"))
    ledger.insert(of("d", "dan") + of("e", "ann") + of("f", "eve", team_id="t2") + of("g"))
    other = LabelRollup.OTHER
    assert [row[:3] for row in found()] == [("", "", 1), (other, other, 2), ("ann", "", 2), ("bob", "", 1), ("eve", "", 1)]
    assert rollups.difference() is None


def test_another_process_goes_on_where_this_one_was(settings: Any) -> None:
    settings.MAX_LABELS_PER_DAY = 1
    ledger.insert(of("a", "ann") + of("b", "bob"))
    label_rollups.forget()
    ledger.insert(of("c", "ann") + of("d", "dan"))
    assert [row[:3] for row in found()] == [(LabelRollup.OTHER,) * 2 + (2,), ("ann", "", 2)]


def test_a_difference_is_told_and_mended() -> None:
    ledger.insert(of("a", "ann") + of("b") + of("c", "bob", "x", started_at=BEGUN - 86_400))
    before = found()
    LabelRollup.objects.filter(end_user="ann").update(cost_micros=1)
    assert rollups.difference() == "On 2027-01-15 the rows have 2468 cost_micros, the rollups by user, task type and tag 1235."
    rollups.rebuild()
    assert rollups.difference() is None
    assert found() == before
    assert Rollup.objects.count() == 4
