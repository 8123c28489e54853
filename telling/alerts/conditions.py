"""What each kind of rule reads, and what it finds beyond the rule's threshold. Nothing here reads more than a bounded number of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
from django.conf import settings

from access.budget_rules import scope_of
from access.models import Budget
from core.money import MICROS, micros_from_decimal
from core.periods import period_at
from monitoring import histogram
from monitoring.models import BudgetAccount
from monitoring.pages import amount
from providers import states
from providers.models import ProviderState
from tasks.models import Task
from tasks.states import Status
from telling.alert_models import AlertRule, JournalBacklog
from telling.alerts import kinds, samples
from telling.alerts.moment import Moment

GATEWAY: Final = "gateway"
BACKLOG_SAID_FOR_S: Final = 120.0
_MAX_STATES, _MAX_BUDGETS, _BUDGETS_AT_ONCE, _TASKS_LOOKED_AT = 5_000, 10_000, 500, 100
_MIB = 2**20


class Reading(msgspec.Struct, frozen=True):
    """One subject and how it is. `value` in the condition's unit, of money exact; `about`: the subject as people know it."""

    subject: str
    about: str
    value: Decimal | float
    sentence: str


class NotKnown(Exception):
    """There is nothing yet to judge by: what fires goes on firing, and nothing new does."""


def read(rule: AlertRule, moment: Moment) -> dict[str, Reading]:
    """Subject → what is beyond. Raises NotKnown, DatabaseError."""
    found = _READ[rule.condition](rule, moment)
    return {reading.subject: reading for reading in found if rule.beyond(reading.value)}


# Of requests ----------------------------------------------------------------------------------------------------------
def _error_rate(rule: AlertRule, moment: Moment) -> Iterator[Reading]:
    for subject, about, seen in _traffic(rule, moment):
        share = 100 * seen.failed / seen.requests
        sentence = f"{share:.1f} % of the requests failed: {seen.failed} of {seen.requests} {_lately(rule)}."
        yield Reading(subject, about, share, f"{sentence} The rule allows {_limit(rule)} %.")


def _p95_duration(rule: AlertRule, moment: Moment) -> Iterator[Reading]:
    for subject, about, seen in _traffic(rule, moment):
        p95_ms = histogram.quantile(seen.durations, 0.95)
        if p95_ms is not None:
            sentence = f"One request in twenty took longer than {p95_ms / 1000:.1f} s, {_lately(rule)}."
            yield Reading(subject, about, p95_ms / 1000, f"{sentence} The rule allows {_limit(rule)} s.")


def _traffic(rule: AlertRule, moment: Moment) -> Iterator[tuple[str, str, samples.Traffic]]:
    """(subject, what people call it, requests) of all that had enough of them."""
    by_provider = moment.once(("traffic", rule.window_s), lambda: samples.traffic(moment.now, rule.window_s))
    if by_provider is None:
        raise NotKnown
    if rule.per_provider:
        of = [(f"provider:{name}", f"provider {name}", seen) for name, seen in by_provider.items() if name]
    else:
        whole = samples.Traffic()
        for seen in by_provider.values():
            whole = whole.plus(seen)
        of = [(GATEWAY, "all requests", whole)]
    yield from (each for each in of if each[2].requests >= rule.min_requests)


def _call_cost(rule: AlertRule, moment: Moment) -> Iterator[Reading]:
    dearest = samples.dearest(moment.now, rule.window_s)
    if dearest is None:
        return
    cost = amount(dearest.cost_micros, settings.REPORTING_CURRENCY)
    who = f"request {dearest.request_id}, key {dearest.key or '–'}, model {dearest.model}"
    above = f"The rule allows {amount(micros_from_decimal(str(rule.threshold)), settings.REPORTING_CURRENCY)}."
    yield Reading(
        GATEWAY, "the dearest call", Decimal(dearest.cost_micros) / MICROS, f"One call cost {cost} ({who}), {_lately(rule)}. {above}"
    )


def _usage_missing(rule: AlertRule, moment: Moment) -> Iterator[Reading]:
    for provider, (answered, missing) in samples.calls(moment.now, rule.window_s).items():
        if answered >= rule.min_requests:
            share = 100 * missing / answered
            sentence = f"{missing} of {answered} answers came without counts of tokens, {_lately(rule)}: ours are estimates."
            yield Reading(f"provider:{provider}", f"provider {provider}", share, f"{sentence} The rule allows {_limit(rule)} %.")


# Of states ------------------------------------------------------------------------------------------------------------
def _breaker_open(rule: AlertRule, moment: Moment) -> Iterator[Reading]:
    for provider_id, name, said in _states(moment):
        # One that lets a trial call through is not closed yet, and would otherwise fire anew after each trial.
        open_ = {(each["key"], each["model"]): each for state in said for each in state["breakers"] if each["state"] != "closed"}
        if open_:
            models = ", ".join(sorted({model for _, model in open_}))[:200]
            why = next((each["reason"] for each in open_.values() if each["reason"]), "") or "no reason known"
            sentence = f"{len(open_)} breaker(s) of {name} are open (model {models}): no request goes there. Last failure: {why[:150]}"
            yield Reading(f"provider:{provider_id}", f"provider {name}", len(open_), sentence)


def _key_rejected(rule: AlertRule, moment: Moment) -> Iterator[Reading]:
    for provider_id, name, said in _states(moment):
        rejected = {rest["key"]: rest for state in said for rest in state["rests"] if not rest["model"]}
        if rejected:
            why = next(iter(rejected.values()))["reason"]
            sentence = f"{len(rejected)} key(s) of {name} are refused by the vendor and rest. It says: {why[:250]}"
            yield Reading(f"provider:{provider_id}", f"provider {name}", len(rejected), sentence)


def _states(moment: Moment) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """(id, name, what the processes say) of each provider of which some process speaks."""
    said: dict[tuple[str, str], list[dict[str, Any]]] = {}
    rows = ProviderState.objects.filter(updated_at__gte=moment.at - states.STALE_AFTER)
    for provider_id, name, state in rows.order_by("pk").values_list("provider_id", "provider__name", "state")[:_MAX_STATES]:
        if name:  # it may be being deleted
            said.setdefault((str(provider_id), name), []).append(state)
    yield from ((provider_id, name, found) for (provider_id, name), found in said.items())


def _queue_delay(rule: AlertRule, moment: Moment) -> Iterator[Reading]:
    waiting = Task.objects.filter(status=Status.QUEUED, run_after__lte=moment.now).order_by("rank")
    since = [
        max(created.timestamp(), run_after) for created, run_after in waiting.values_list("created_at", "run_after")[:_TASKS_LOOKED_AT]
    ]
    if since:
        waited_s = moment.now - min(since)
        sentence = f"Of the tasks whose turn is next, one has waited {waited_s:.0f} s. The rule allows {_limit(rule)} s."
        yield Reading("tasks", "queued tasks", waited_s, sentence)


def _journal_backlog(rule: AlertRule, moment: Moment) -> Iterator[Reading]:
    rows = JournalBacklog.objects.filter(updated_at__gte=moment.now - BACKLOG_SAID_FOR_S).order_by("process")
    for process, waiting_bytes in rows.values_list("process", "waiting_bytes")[:_MAX_STATES]:
        waiting = waiting_bytes / _MIB
        sentence = f"{waiting:.1f} MiB of the journal of process {process} are not in the database. The rule allows {_limit(rule)} MiB."
        yield Reading(f"process:{process}", f"process {process}", waiting, sentence)


def _budget(rule: AlertRule, moment: Moment) -> Iterator[Reading]:
    yield from moment.once("budgets", lambda: list(_budgets(moment)))


def _budgets(moment: Moment) -> Iterator[Reading]:
    starts = {kind: period_at(kind, moment.now).start for kind in Budget.Period.values}
    budgets = list(Budget.objects.select_related("team", "key", "provider").order_by("pk")[:_MAX_BUDGETS])
    for first in range(0, len(budgets), _BUDGETS_AT_ONCE):
        some = {(str(budget.pk), starts[budget.period]): budget for budget in budgets[first : first + _BUDGETS_AT_ONCE]}
        ids = {budget_id for budget_id, _ in some}
        accounts = BudgetAccount.objects.filter(budget_id__in=ids, period_start__in=set(starts.values()))
        for budget_id, start, spent in accounts.order_by().values_list("budget_id", "period_start", "spent"):
            if budget := some.get((budget_id, start)):
                yield _of_budget(budget, spent)


def _of_budget(budget: Budget, spent: int) -> Reading:
    percent = 100 * spent / budget.limit if budget.limit > 0 else 0.0
    scope, _, name = scope_of(budget)
    after = " Requests that it covers are refused until it renews." if percent >= 100 and budget.hard else ""
    of = f"the {budget.period} budget of {scope} {name}"
    return Reading(f"budget:{budget.pk}", of, percent, f"{percent:.0f} % of {of} ({budget.get_kind_display().lower()}) is used.{after}")


def _lately(rule: AlertRule) -> str:
    return f"in the last {rule.window_s // 60} min" if rule.window_s % 60 == 0 else f"in the last {rule.window_s} s"


def _limit(rule: AlertRule) -> str:
    return f"{rule.threshold.normalize():f}"


_READ: Final[Mapping[str, Callable[[AlertRule, Moment], Iterator[Reading]]]] = {
    "error_rate": _error_rate,
    "p95_duration": _p95_duration,
    "call_cost": _call_cost,
    "budget": _budget,
    "breaker_open": _breaker_open,
    "key_rejected": _key_rejected,
    "usage_missing": _usage_missing,
    "queue_delay": _queue_delay,
    "journal_backlog": _journal_backlog,
}
assert _READ.keys() == kinds.KINDS.keys()
