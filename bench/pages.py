"""`make bench-pages`: how long every page of the admin takes over many rows. Builds 120,000 requests, attempts, audit events, tasks,
webhooks and budget entries, and the configuration of a large house; asks each list, search, filter, form and overview; prints a
table, and writes it into docs/operations.md with `--write`.

On an empty SQLite file in a temporary folder, or on the Postgres database of `--database`, which must be empty. Exit status:
0 = measured, 1 = something took longer than `--limit-ms` at p95, 2 = it could not be measured.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.logs import AN_ID, DAYS, MOMENT, Progress, Unusable, ask, build, configure, insert_rows, insert_sql

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "operations.md"
_PROVIDERS, _MODELS_EACH, _TEAMS, _KEYS_EACH = 20, 10, 50, 6
_ENDED = 0.98  # of the tasks; the others wait

_UUID = {
    "sqlite": "printf('%032x', {number})",
    "postgresql": "lpad(to_hex({number}), 32, '0')::uuid",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=120_000, help="of each kind; 120,000 unless told")
    parser.add_argument("--database", default="", help="URL of an empty Postgres database; a temporary SQLite file unless told")
    parser.add_argument("--limit-ms", type=float, default=300.0, help="what no p95 may exceed; 300 unless told")
    parser.add_argument("--rounds", type=int, default=9, help="how often each page is asked; 9 unless told")
    parser.add_argument("--only", default="", help="only pages whose name begins so, e.g. task")
    parser.add_argument("--write", action="store_true", help="the table goes into docs/operations.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-pages-") as folder:
        configure(folder, asked.database)
        try:
            build(asked.rows, _fill_more)
        except Unusable as exc:
            print(f"bench-pages: {exc}", file=sys.stderr)
            return 2
        measured = _measure(asked.rows, asked.rounds, asked.only)
        if asked.write:
            _write(measured, asked.rows)
    slow = [name for name, (_, p95) in measured.items() if p95 > asked.limit_ms]
    if slow:
        print(f"Slower than {asked.limit_ms:g} ms: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


# What there is ----------------------------------------------------------------------------------------------------------
def _fill_more(rows: int) -> None:
    from monitoring import audit_triggers
    from monitoring.models import AuditEvent, BudgetEntry
    from tasks.models import Task
    from telling.alert_models import Alert
    from telling.models import Webhook

    _configuration()
    audit_triggers.remove()  # they take rows of the chain alone
    for model, sql in (
        (AuditEvent, _audit_sql),
        (Task, _tasks_sql),
        (Webhook, _webhooks_sql),
        (BudgetEntry, _entries_sql),
        (Alert, _alerts_sql),
    ):
        name = str(model._meta.verbose_name_plural)
        with Progress(f"{rows:,} {name}", rows) as progress:
            insert_rows(rows, sql, progress.add)
    audit_triggers.install()


def _configuration() -> None:
    """The rows that people make: thousands at most."""
    from django.contrib.auth.models import User
    from django.utils import timezone

    from access.models import ApiKey, Budget, Team
    from models_registry.models import LLMModel, Price, Route
    from providers.models import Provider

    providers = Provider.objects.bulk_create(
        Provider(name=f"provider-{n}", provider_type="openai_compatible", base_url="https://example.com/v1") for n in range(_PROVIDERS)
    )
    models = LLMModel.objects.bulk_create(
        LLMModel(provider=provider, model_id=f"vendor-model-{n}", alias=f"model-{place}-{n}")
        for place, provider in enumerate(providers)
        for n in range(_MODELS_EACH)
    )
    money = {"currency": "USD", "valid_from": timezone.now(), "input_micros": 2_500_000, "output_micros": 10_000_000}
    Price.objects.bulk_create(Price(model=model, cached_input_micros=1, cache_write_micros=1, **money) for model in models)
    Route.objects.bulk_create(Route(alias=f"route-{n}", targets=[model.alias]) for n, model in enumerate(models))
    teams = Team.objects.bulk_create(Team(name=f"team-{n}") for n in range(_TEAMS))
    keys = ApiKey.objects.bulk_create(
        ApiKey(name=f"key-{n}", team=team, prefix=f"sk-{place}-{n}", digest=f"{place}-{n}".encode().ljust(32), scopes=["chat"])
        for place, team in enumerate(teams)
        for n in range(_KEYS_EACH)
    )
    Budget.objects.bulk_create(Budget(key=key, kind="tokens", limit=1_000_000) for key in keys)
    User.objects.bulk_create(User(username=f"user-{n}") for n in range(200))


def _moment(vendor: str, step: float) -> str:
    return MOMENT[vendor].format(begun=time.time() - DAYS * 86_400, step=step)


def _audit_sql(vendor: str, step: float) -> str:
    return insert_sql(
        "monitoring.AuditEvent",
        {
            "sequence": "n + 1000000",
            "at": _moment(vendor, step),
            "actor_id": "n % 200",
            "actor": "'user-' || (n % 200)",
            "source": "CASE WHEN n % 3 = 0 THEN 'admin' ELSE 'api' END",
            "address": "'10.0.0.' || (n % 250)",
            "request_id": "'audited-' || n",
            "action": "CASE n % 5 WHEN 0 THEN 'login' WHEN 1 THEN 'created' WHEN 2 THEN 'deleted' ELSE 'changed' END",
            "object_type": "CASE WHEN n % 2 = 0 THEN 'providers.Provider' ELSE 'access.ApiKey' END",
            "object_id": "n % 500",
            "object_label": "'object ' || (n % 500)",
            "changes": '\'{"name": ["before", "after"], "limit": [1, 2]}\'',
        },
    )


def _tasks_sql(vendor: str, step: float) -> str:
    moment = _moment(vendor, step)
    state = "CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'completed' END"
    return insert_sql(
        "tasks.Task",
        {
            "id": _UUID[vendor].format(number="n"),
            "kind": "CASE n % 3 WHEN 0 THEN 'translation' WHEN 1 THEN 'custom' ELSE 'data_extraction' END",
            "prompt": "'Say hello to customer ' || n",
            "priority": "50",
            "max_attempts": "3",
            "timeout_s": "300",
            "status": f"CASE WHEN n % 100 >= {round(100 * _ENDED)} THEN 'queued' ELSE {state} END",
            "rank": "n",
            "attempts": "1",
            "created_at": moment,
            "finished_at": moment,
        },
    )


def _webhooks_sql(vendor: str, step: float) -> str:
    return insert_sql(
        "telling.Webhook",
        {
            "id": _UUID[vendor].format(number="n"),
            "task_id": _UUID[vendor].format(number="n"),
            "event_type": "'completed'",
            "url": "'https://example.com/hook'",
            "host": "'example.com'",
            "body": "'{}'",
            "status": "CASE WHEN n % 50 = 0 THEN 'dead' ELSE 'delivered' END",
            "tries": "1",
            "created_at": _moment(vendor, step),
        },
    )


def _entries_sql(vendor: str, step: float) -> str:
    return insert_sql(
        "monitoring.BudgetEntry",
        {
            "started_at": _moment(vendor, step),
            "request_id": "'entered-' || n",
            "attempt": "1",
            "budget_id": f"'{AN_ID}'",
            "reserved": "1000",
            "amount": "900",
            "state": "'settled'",
        },
    )


def _alerts_sql(vendor: str, step: float) -> str:
    """All of them over but the last."""
    moment = _moment(vendor, step)
    return insert_sql(
        "telling.Alert",
        {
            "rule_name": "'Error rate above 10 %'",
            "condition": "'error_rate'",
            "subject": "'provider:' || (n % 20)",
            "label": "'provider provider-' || (n % 20)",
            "value": "12.5",
            "sentence": "'12.5 % of the requests failed.'",
            "started_at": moment,
            "seen_at": moment,
            "resolved_at": moment,
        },
    )


# What is asked ----------------------------------------------------------------------------------------------------------
_OVERVIEWS = {
    "overview, last hour": "/admin/?span=hour",
    "overview, last 24 hours": "/admin/",
    "overview, last 7 days": "/admin/?span=week",
    "costs, 90 days": "/admin/costs/?days=90",
    "playground": "/admin/playground/",
    "stored secrets": "/admin/decrypt-health/",
}
# Of each list the queries that are asked beside the plain one: one that finds, one that does not, filters, another order, a late page.
_LISTS: Mapping[str, tuple[str, ...]] = {
    "providers/provider": ("q=provider-7", "is_active__exact=1"),
    "models_registry/llmmodel": ("q=model-3", "model_type__exact=chat", "p=2"),
    "models_registry/route": ("q=route-7",),
    "models_registry/prompttemplate": ("q=rag",),
    "models_registry/exchangerate": (),
    "tasks/tasktype": (),
    "access/team": ("q=team-3",),
    "access/teammember": (),
    "access/grant": (),
    "access/apikey": ("q=key-3", "p=2"),
    "access/budget": ("q=key-3", "kind__exact=tokens"),
    "access/personaltoken": (),
    "telling/webhooksecret": (),
    "tasks/task": ("q=req_00", "status__exact=queued", "status__exact=failed", "kind=custom", "p=2", "p=1000", "o=-7", "o=2"),
    "telling/webhook": ("q=nothing", "status__exact=dead", "event_type=completed", "p=2", "p=1000", "o=3"),
    "telling/alert": ("q=nothing", "state=firing", "condition__exact=error_rate", "p=2", "p=1000"),
    "telling/alertrule": (),
    "telling/alertchannel": (),
    "monitoring/requestlog": ("q=req_00", "since=24h", "outcome=failed", "team=team-3", "key=rare", "before=60000"),
    "monitoring/usagerecord": ("q=req_00", "since=24h", "status__exact=error", "model=model-3", "before=60000"),
    "monitoring/budgetentry": ("q=entered-77", "before=60000"),
    "monitoring/auditevent": ("q=audited-77", "action__exact=deleted", "actor=user-7", "source=admin", "object=77", "before=1060000"),
    "auth/user": ("q=user-7",),
    "auth/group": (),
}


def _questions(browser: Any) -> dict[str, str]:
    """Each list with its queries, and the newest row's page, its history, and the empty form, where there are such."""
    asked = dict(_OVERVIEWS)
    for path, queries in _LISTS.items():
        name, url = path.rpartition("/")[2], f"/admin/{path}/"
        asked[f"{name}: list"] = url
        asked |= {f"{name}: list, {query}": f"{url}?{query}" for query in queries}
        page = browser.get(url).content.decode()
        if found := re.search(rf'href="({url}[^/"?]+/change/)', page):
            asked[f"{name}: its page"] = found[1]
            asked[f"{name}: history"] = found[1].replace("/change/", "/history/")
        if f'href="{url}add/' in page:
            asked[f"{name}: new"] = f"{url}add/"
    return asked


def _measure(rows: int, rounds: int, only: str) -> dict[str, tuple[float, float]]:
    """Name → (median, p95) in ms, through the whole site without a network."""
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from llmcontrol import memory

    memory.collect_seldom()  # as where it is served
    browser = Client(SERVER_NAME="localhost")
    browser.force_login(User.objects.create_superuser("bench"))
    measured = {}
    print(f"{connection.vendor}, {rows:,} rows of each kind; ms over {rounds} rounds")
    print(f"{'':62}{'median':>9}{'p95':>9}{'CPU':>9}{'queries':>9}")
    for name, url in _questions(browser).items():
        if not name.startswith(only):
            continue
        with CaptureQueriesContext(connection) as queries:  # and to warm up
            ask(browser, url)
        asked = len(queries)
        took, cpu = zip(*[ask(browser, url) for _ in range(rounds)], strict=True)
        measured[name] = median(took), quantiles(took, n=20, method="inclusive")[18]
        print(f"{name:62}{measured[name][0]:9.1f}{measured[name][1]:9.1f}{median(cpu):9.1f}{asked:9}", flush=True)
    return measured


# What is written --------------------------------------------------------------------------------------------------------
def block(measured: Mapping[str, tuple[float, float]], rows: int) -> str:
    """The table: of each page the worst of what was asked of it."""
    kinds: dict[str, list[tuple[float, float]]] = {}
    for name, figures in measured.items():
        kind = name.partition(",")[0] if name in _OVERVIEWS else name.partition(": ")[2].partition(",")[0]
        what = {"list": "lists, with and without searches and filters", "its page": "one row's page", "new": "an empty form"}
        kinds.setdefault(what.get(kind, kind), []).append(figures)
    lines = [f"{rows:,} of each kind; milliseconds, the worst of each:", "", "| what | questions | median | p95 |", "|---|---|---|---|"]
    for kind, all_figures in kinds.items():
        worst = [max(part) for part in zip(*all_figures, strict=True)]
        lines.append(f"| {kind} | {len(all_figures)} | {worst[0]:.0f} | {worst[1]:.0f} |")
    return "\n".join(lines) + "\n"


def written(document: str, table: str, vendor: str) -> str:
    """`document` with the table in the place of that database. Raises ValueError where there is no place."""
    begin, end = f"<!-- bench-pages {vendor}: written by `make bench-pages` -->\n", f"<!-- /bench-pages {vendor} -->"
    before, begun, rest = document.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"docs/operations.md has no place for these figures: the lines {begin.strip()} and {end}.")
    return before + begin + table + end + after


def _write(measured: Mapping[str, tuple[float, float]], rows: int) -> None:
    from django.db import connection

    name = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[connection.vendor]
    DOCUMENT.write_text(written(DOCUMENT.read_text(), f"{name}, {block(measured, rows)}", connection.vendor))


if __name__ == "__main__":
    sys.exit(main())
