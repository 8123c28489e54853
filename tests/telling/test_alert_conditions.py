"""Each condition, with time handed in: it fires once, however often it is looked at, and ends once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import pytest

from access.models import Budget, Team
from core.periods import period_at
from monitoring.models import BudgetAccount
from providers.models import Provider, ProviderState
from tasks.models import Task
from telling.alert_models import Alert, AlertRule, AlertSample
from telling.alerts import evaluation
from telling.models import Event, Webhook
from tests.gateway_config.rows import a_provider
from tests.telling.alert_rows import NOW, a_channel, a_rule, at, firing, requests, told

pytestmark = pytest.mark.django_db
MIB = 2**20


def state(**said: object) -> None:
    provider = Provider.objects.first() or a_provider(name="vendor")
    whole = {"breakers": [], "rests": [], **said}
    ProviderState.objects.create(process="one", provider=provider, state=whole, updated_at=at(NOW + 44))


def an_open_breaker(name: str = "open") -> None:
    state(breakers=[{"key": "k", "model": "m", "state": name, "failures": 5, "reason": "502 from the vendor", "next_try_at": 0}])


def a_rejected_key() -> None:
    state(rests=[{"key": "k", "model": "", "reason": "invalid api key", "next_try_at": 0}])


def a_budget_at(percent: int) -> Budget:
    budget = Budget.objects.first() or Budget.objects.create(
        team=Team.objects.create(name="search"), kind="requests", limit=100, period="day"
    )
    account = {"budget_id": str(budget.pk), "period_start": period_at("day", NOW).start}
    BudgetAccount.objects.update_or_create(**account, defaults={"spent": percent})
    return budget


def a_waiting_task() -> None:
    Task.objects.create(kind="custom", prompt="hi", timeout_s=60, max_attempts=1, rank=NOW, created_at=at(NOW - 90))


class Case(NamedTuple):
    """What is the matter, how it goes away (nothing needs to be done where time alone ends it), and a part of what is said."""

    threshold: str
    begin: Callable[[], object]
    says: str
    end: Callable[[], object] = lambda: None


CASES = {
    "error_rate": Case("10", lambda: requests(40, NOW + 1, failed=5), "12.5 % of the requests failed: 5 of 40"),
    "p95_duration": Case("30", lambda: requests(40, NOW + 1, duration_ms=45_000), "One request in twenty took longer than"),
    "call_cost": Case("0.5", lambda: requests(1, NOW + 1, cost_reporting_micros=1_250_000), "One call cost 1.25 USD (request req-0, key"),
    "usage_missing": Case("5", lambda: requests(25, NOW + 1, usage_source="estimated"), "25 of 25 answers came without counts of tokens"),
    "budget": Case("80", lambda: a_budget_at(80), "80 % of the day budget of team search (requests) is used.", lambda: a_budget_at(79)),
    "breaker_open": Case("0", an_open_breaker, "are open (model m)", ProviderState.objects.all().delete),
    "key_rejected": Case("0", a_rejected_key, "It says: invalid api key", ProviderState.objects.all().delete),
    "queue_delay": Case("60", a_waiting_task, "one has waited 105 s", lambda: Task.objects.update(status="completed")),
    "journal_backlog": Case(
        "64",
        lambda: evaluation.say_backlog("host:1", 65 * MIB, NOW + 44),
        "65.0 MiB",
        lambda: evaluation.say_backlog("host:1", 0, NOW + 90),
    ),
}


def test_every_condition_has_a_case_and_a_shipped_rule() -> None:
    assert set(CASES) == {name for name, _ in AlertRule._meta.get_field("condition").flatchoices}
    assert set(AlertRule.objects.values_list("condition", flat=True)) == set(CASES)
    assert sorted(AlertRule.objects.filter(condition="budget").values_list("threshold", flat=True)) == [50, 80, 100]


@pytest.mark.parametrize("condition", CASES)
def test_it_fires_once_and_ends_once(condition: str) -> None:
    case = CASES[condition]
    a_rule(condition, case.threshold, a_channel())
    evaluation.look(NOW)
    assert told() == []
    case.begin()
    for later in (15, 30, 45):
        evaluation.look(NOW + later)
    (alert,) = firing()
    assert case.says in Alert.objects.get().sentence or case.says in json.loads(Webhook.objects.get().body)["sentence"]
    assert told() == ["alert.firing"]
    case.end()
    for later in (1000, 1015, 1030):
        evaluation.look(NOW + later)
    alert.refresh_from_db()
    assert alert.resolved_at == at(NOW + 1000)
    assert told() == ["alert.firing", "alert.resolved"]
    assert [(row.data["state"], row.topics) for row in Event.objects.order_by("seq")] == [
        ("firing", ["alert.rule.all"]),
        ("resolved", ["alert.rule.all"]),
    ]


@pytest.mark.parametrize("condition", CASES)
def test_what_the_rule_allows_fires_nothing(condition: str) -> None:
    most = {
        "error_rate": "12.5",
        "p95_duration": "130",
        "usage_missing": "100",
        "budget": "80.0001",
        "breaker_open": "1",
        "key_rejected": "1",
    }
    a_rule(condition, most.get(condition, "10000"), a_channel())
    evaluation.look(NOW)
    CASES[condition].begin()
    for later in (15, 30, 45):
        evaluation.look(NOW + later)
    assert firing() == []


@pytest.mark.parametrize("condition", ["error_rate", "p95_duration", "usage_missing"])
def test_of_too_few_requests_nothing_is_said(condition: str) -> None:
    a_rule(condition, "1", min_requests=41)
    evaluation.look(NOW)
    requests(40, NOW + 1, failed=20, duration_ms=60_000, usage_source="none")
    for later in (15, 30, 45):
        evaluation.look(NOW + later)
    assert firing() == []


def test_it_may_be_judged_by_provider() -> None:
    a_rule("error_rate", "10", per_provider=True)
    evaluation.look(NOW)
    requests(30, NOW + 1, failed=30)
    evaluation.look(NOW + 15)
    assert [alert.label for alert in firing()] == ["provider vendor"]


def test_only_what_happened_in_the_window_counts() -> None:
    requests(100, NOW - 1200, failed=100, prefix="old")
    a_rule("error_rate", "10")
    evaluation.look(NOW)
    requests(40, NOW + 1)
    evaluation.look(NOW + 15)
    assert firing() == []


def test_over_the_turn_of_an_hour() -> None:
    before = 1_799_999_990.0 // 3600 * 3600 - 20
    a_rule("error_rate", "10")
    evaluation.look(before)
    requests(20, before + 10, failed=10, prefix="before")
    requests(20, before + 25, prefix="after")
    evaluation.look(before + 30)
    assert firing()[0].value == 25.0


def test_a_breaker_that_lets_a_trial_through_is_the_same_alert() -> None:
    a_rule("breaker_open", "0", a_channel(), window_s=60)
    an_open_breaker()
    evaluation.look(NOW + 30)
    ProviderState.objects.all().delete()
    evaluation.look(NOW + 45)
    an_open_breaker("half-open")
    evaluation.look(NOW + 60)
    ProviderState.objects.all().delete()
    evaluation.look(NOW + 119)
    assert told() == ["alert.firing"]
    evaluation.look(NOW + 120)
    assert told() == ["alert.firing", "alert.resolved"]


def test_a_budget_that_renews_is_over_at_once() -> None:
    a_rule("budget", "100", a_channel())
    a_budget_at(101)
    evaluation.look(NOW)
    (alert,) = firing()
    assert "are refused until it renews" in alert.sentence
    evaluation.look(period_at("day", NOW).end + 1)
    assert firing() == []
    assert told() == ["alert.firing", "alert.resolved"]


def test_where_nobody_has_looked_for_long_nothing_is_concluded() -> None:
    a_rule("error_rate", "10", a_channel())
    evaluation.look(NOW)
    requests(30, NOW + 1, failed=30)
    evaluation.look(NOW + 15)
    AlertSample.objects.all().delete()
    evaluation.look(NOW + 86_400)
    assert len(firing()) == 1
    evaluation.look(NOW + 86_415)
    assert firing() == []


def test_a_rule_that_is_switched_off_ends_its_alerts_and_tells_why() -> None:
    rule = a_rule("queue_delay", "60", a_channel())
    a_waiting_task()
    evaluation.look(NOW)
    AlertRule.objects.filter(pk=rule.pk).update(is_active=False)
    evaluation.look(NOW + 15)
    assert told() == ["alert.firing", "alert.resolved"]
    assert "switched off" in json.loads(Webhook.objects.get(event_type="alert.resolved").body)["sentence"]


def test_a_rule_that_is_deleted_leaves_its_history() -> None:
    rule = a_rule("queue_delay", "60")
    a_waiting_task()
    evaluation.look(NOW)
    rule.delete()
    evaluation.look(NOW + 15)
    assert [(alert.rule_name, alert.resolved_at) for alert in Alert.objects.all()] == [("rule of queue_delay", at(NOW + 15))]


def test_a_channel_that_is_switched_off_is_told_nothing() -> None:
    a_rule("queue_delay", "60", a_channel(is_active=False))
    a_waiting_task()
    evaluation.look(NOW)
    assert len(firing()) == 1
    assert told() == []


def test_the_turn_is_one_process_at_a_time() -> None:
    assert evaluation.take_turn(NOW, 15)
    assert not evaluation.take_turn(NOW, 15)
    assert not evaluation.take_turn(NOW + 14.9, 15)
    assert evaluation.take_turn(NOW + 15, 15)


def test_what_ended_long_ago_goes_and_what_fires_stays() -> None:
    a_rule("queue_delay", "60", window_s=60)
    a_waiting_task()
    evaluation.look(NOW)
    assert evaluation.prune(NOW + 400 * 86_400, 90) == 0
    Task.objects.update(status="completed")
    evaluation.look(NOW + 100)
    assert evaluation.prune(NOW + 100 + 89 * 86_400, 90) == 0
    assert evaluation.prune(NOW + 100 + 91 * 86_400, 90) == 1


def test_a_look_asks_a_bounded_number_of_questions(django_assert_max_num_queries: Callable[..., object]) -> None:
    evaluation.look(NOW)
    requests(60, NOW + 1)
    with django_assert_max_num_queries(60):  # eleven rules; not one more for sixty requests
        evaluation.look(NOW + 15)
