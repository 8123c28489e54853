"""What the ledger says of probes: what they cost today, and which calls make them needless."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import DjangoAssertNumQueries

from core.clock import FrozenClock
from core.config import PROBER, ModelSpec
from gateway.config.probes import DatabaseLedger
from monitoring import ledger, probes
from tests.monitoring.records import BEGUN
from tests.monitoring.test_rollups import attempt

pytestmark = pytest.mark.django_db
NOW = datetime.fromtimestamp(BEGUN, UTC)


def of_probe(name: str, **changes: object) -> None:
    ours = {"team_id": "", "team_name": "", "key_id": PROBER.key_id, "key_name": PROBER.key_name}
    ledger.insert(attempt(name, **ours, **{"cost_reporting_micros": 30, "reporting_currency": "USD", **changes}))


def test_what_probes_cost_today_is_summed_by_provider() -> None:
    of_probe("a")
    of_probe("b", started_at=BEGUN + 1)
    of_probe("c", provider_id="p2", provider_name="other")
    of_probe("d", started_at=BEGUN - 86_400)
    of_probe("e", reporting_currency="EUR")
    ledger.insert(attempt("f", cost_reporting_micros=1_000, reporting_currency="USD"))
    assert probes.spent_micros(["p1", "p2", "p3"], NOW) == {"p1": 60, "p2": 30}
    assert probes.spent_micros(["p2"], NOW + timedelta(days=1)) == {}


def test_of_no_provider_nothing_is_asked(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(0):
        assert probes.spent_micros([], NOW) == {}


def test_a_call_is_one_whoever_made_it_and_whatever_came_of_it() -> None:
    ledger.insert(attempt("a", alias="m", model_id="vendor-m", status="error"))
    since = NOW - timedelta(seconds=1)
    assert probes.was_called("m", "p1", "vendor-m", since)
    assert not probes.was_called("m", "p2", "vendor-m", since)
    assert not probes.was_called("m", "p1", "vendor-n", since)
    assert not probes.was_called("m", "p1", "vendor-m", NOW + timedelta(seconds=1))


@pytest.mark.django_db(transaction=True)
def test_the_gateway_reads_both_in_a_thread() -> None:
    of_probe("a", alias="m", model_id="vendor-m")
    models = [ModelSpec(f"id-{name}", "m", f"vendor-{name}", "p1") for name in "mn"]
    known = asyncio.run(DatabaseLedger(FrozenClock(BEGUN)).known("p1", models, BEGUN - 1))
    assert known == (30, frozenset({"id-m"}))
