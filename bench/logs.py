"""`make bench-logs`: how long lists and sums take over millions of requests. Builds the tables, asks, prints a table of p95s;
then deletes the oldest day, and prints what that takes (bench/retention.py).

On an empty SQLite file in a temporary folder, or on the Postgres database of `--database`, which must be empty. Exit status:
0 = measured, 1 = something took longer than `--limit-ms` at p95, 2 = it could not be measured.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Any

from bench import retention

DAYS = 35
_KEYS, _TEAMS, _MODELS, _PROVIDERS = 50, 7, 8, 3
_ROUNDS, _WARM_UP = 30, 2
AN_ID, _NO_ID = "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0001", "7b0f0c4e-2f7e-4f0e-9a64-0a7a3c1f0002"
# One request in so many is of a key, team and model that ask for nothing else: what is rare must be found as quickly as what is not.
_RARE_EVERY = 400_000

# As the gateway makes them: of each of four processes at a time something random and a counter; they restart now and then.
_PROCESS = "((n % 4 + 4 * (n / 300000) + 1) * 2654435761 & 4294967295)"
_HEX_ID = {
    "sqlite": f"printf('req_%08x%08x%08x', {_PROCESS}, {_PROCESS}, n)",
    "postgresql": f"'req_' || lpad(to_hex({_PROCESS}), 8, '0') || lpad(to_hex({_PROCESS}), 8, '0') || lpad(to_hex(n), 8, '0')",
}
MOMENT = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', {begun} + n * {step}, 'unixepoch') || '000'",
    "postgresql": "to_timestamp({begun} + n * {step})",
}
NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}) {insert} FROM numbers",
    "postgresql": "{insert} FROM generate_series({first}::bigint, {last}::bigint) AS numbers(n)",
}
_ROWS_PER_STATEMENT = 250_000
_USERS, _TAGS = 20_000, 12


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="requests, each with one attempt; 5,000,000 unless told")
    parser.add_argument("--database", default="", help="URL of an empty Postgres database; a temporary SQLite file unless told")
    parser.add_argument("--limit-ms", type=float, default=300.0, help="what no p95 may exceed; 300 unless told")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-logs-") as folder:
        configure(folder, asked.database)
        try:
            build(asked.rows)
        except Unusable as exc:
            print(f"bench-logs: {exc}", file=sys.stderr)
            return 2
        slow = _measure(asked.rows, asked.limit_ms)
    if slow:
        print(f"Slower than {asked.limit_ms:g} ms: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


class Unusable(Exception):
    """The database cannot be measured; the message says why."""


def configure(folder: str, database: str) -> None:
    """The product's own settings, on a state folder of nobody."""
    os.environ.update(
        LLM_STATE_DIR=folder,
        SECRET_KEY=secrets.token_hex(32),
        API_KEY_PEPPER=secrets.token_hex(32),
        KEY_ENCRYPTION_KEYS=f"1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        DATABASE_URL=database,
        DJANGO_SETTINGS_MODULE="llmcontrol.settings",
    )
    import django

    django.setup()


def build(rows: int, more: Callable[[int], None] = lambda rows: None) -> None:
    """An empty database gets `rows` requests and attempts, their rollups, and what `more` fills in. Raises Unusable."""
    from django.core.management import call_command
    from django.db import connection

    from monitoring import rollups
    from monitoring.models import RequestLog, UsageRecord

    call_command("migrate", verbosity=0)
    if RequestLog.objects.exists():
        raise Unusable("the database is not empty; give one that is.")
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":  # while it is built
            cursor.execute("PRAGMA synchronous = OFF")
            cursor.execute("PRAGMA cache_size = -262144")
        else:  # an index of millions of rows takes longer than any statement of the product may
            cursor.execute("SET statement_timeout = 0")
    for name, model, fill in (("requests", RequestLog, requests_sql), ("attempts", UsageRecord, attempts_sql)):
        with Progress(f"{rows:,} {name}", rows) as progress:
            _fill(model, rows, fill, progress.add)
        assert model.objects.count() == rows
    with Progress("rollups", 2 * rows) as progress:
        rollups.rebuild(progress.add)
    more(rows)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    connection.close()
    print(f"{_size_bytes() / 2**30:.1f} GiB in all", file=sys.stderr)


def _size_bytes() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_database_size(current_database())")
        else:
            cursor.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        return int(cursor.fetchone()[0])


class Progress:
    """Says on stderr how far something is: at most once a second, and how long it took."""

    def __init__(self, what: str, rows: int) -> None:
        self._what, self._rows, self._done = what, rows, 0

    def __enter__(self) -> Progress:
        self._begun = self._said = time.monotonic()
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            print(f"\rbuilt {self._what} in {time.monotonic() - self._begun:.0f} s", file=sys.stderr)

    def add(self, rows: int) -> None:
        self._done += rows
        if time.monotonic() - self._said > 1:
            self._said = time.monotonic()
            print(f"\rbuilding {self._what}: {100 * self._done // self._rows} %", end="", file=sys.stderr, flush=True)


def _fill(model: Any, rows: int, insert_sql: Callable[[str, float], str], progress: Callable[[int], None]) -> None:
    """Without the indexes of lists, which are made afterwards, all at once."""
    from django.db import connection

    with connection.schema_editor() as schema:
        for index in model._meta.indexes:
            schema.remove_index(model, index)
    insert_rows(rows, insert_sql, progress)
    with connection.schema_editor() as schema:
        for index in model._meta.indexes:
            schema.add_index(model, index)


def insert_rows(rows: int, insert_sql: Callable[[str, float], str], progress: Callable[[int], None]) -> None:
    from django.db import connection

    vendor, step = connection.vendor, DAYS * 86_400 / rows
    for first in range(1, rows + 1, _ROWS_PER_STATEMENT):
        last = min(first + _ROWS_PER_STATEMENT - 1, rows)
        with connection.cursor() as cursor:
            cursor.execute(NUMBERS[vendor].format(first=first, last=last, insert=insert_sql(vendor, step)))
        progress(last - first + 1)


def _columns(vendor: str, step: float) -> dict[str, str]:
    """What requests and attempts have in common. Each key asks one of two models; the first ones ask most."""
    key = f"(CASE WHEN n % {_RARE_EVERY} = 7 THEN 'rare' ELSE 'key-' || ((n * 7919 % {_KEYS}) * (n % 3 + 1) / 3) END)"
    number = f"((n * 7919 % {_KEYS}) * (n % 3 + 1) / 3)"
    return {
        "request_id": _HEX_ID[vendor],
        "started_at": MOMENT[vendor].format(begun=time.time() - DAYS * 86_400, step=step),
        "team_id": f"CASE WHEN n % 5 = 0 THEN '{AN_ID}' ELSE 'team-id-' || ({number} % {_TEAMS}) END",
        "team_name": f"(CASE WHEN n % {_RARE_EVERY} = 7 THEN 'rare' ELSE 'team-' || ({number} % {_TEAMS}) END)",
        "key_id": f"CASE WHEN n % 5 = 0 THEN '{AN_ID}' ELSE 'id-of-' || {key} END",
        "key_name": key,
        "provider_name": f"'provider-' || ({number} % {_MODELS} % {_PROVIDERS})",
        "alias": f"(CASE WHEN n % {_RARE_EVERY} = 7 THEN 'rare' ELSE 'model-' || (({number} + n % 2) % {_MODELS}) END)",
        "model_id": f"'vendor-model-' || (({number} + n % 2) % {_MODELS})",
        "streamed": "n % 2 = 0" if vendor == "postgresql" else "n % 2",
        "cost_micros": "500 + n % 5000",
        "currency": "'USD'",
        "duration_ms": "200 + n * 31 % 4000",
        "first_token_ms": "50 + n * 17 % 500",
        "config_version": "1",
        "error_code": "CASE WHEN n % 50 = 0 THEN 'upstream_error' ELSE '' END",
        "end_user": f"CASE WHEN n % 4 = 0 THEN 'user-' || (n * 7919 % {_USERS}) ELSE '' END",
        "tag": f"CASE WHEN n % {_RARE_EVERY} = 7 THEN 'rare' WHEN n % 3 = 0 THEN 'tag-' || (n % 7 % {_TAGS}) ELSE '' END",
    }


def requests_sql(vendor: str, step: float) -> str:
    own = {
        "dialect": "'openai'",
        "status_code": f"CASE WHEN n % {_RARE_EVERY} = 9 THEN 418 WHEN n % 50 = 0 THEN 502 ELSE 200 END",
        "attempts": "1",
        "total_tokens": "1000",
    }
    return insert_sql("monitoring.RequestLog", {**_columns(vendor, step), **own})


def attempts_sql(vendor: str, step: float) -> str:
    own = {
        "attempt": "1",
        "provider_id": f"'{AN_ID}'",
        "status": "CASE WHEN n % 50 = 0 THEN 'error' ELSE 'ok' END",
        "vendor_status": "200",
        "finish_reason": "'stop'",
        "usage_source": "'vendor'",
        "cost_reporting_micros": "500 + n % 5000",
        "charged_micros": "500 + n % 5000",
        "reporting_currency": "'USD'",
        "exchange_rate": "'1'",
        "input_tokens": "500",
        "cached_input_tokens": "n % 400",
        "output_tokens": "100",
    }
    return insert_sql("monitoring.UsageRecord", {**_columns(vendor, step), **own})


def insert_sql(label: str, columns: dict[str, str]) -> str:
    """Into the model of that label. Columns that are not given are empty."""
    from django.apps import apps
    from django.db.models import BooleanField, CharField, JSONField, TextField

    empty_of = {CharField: "''", TextField: "''", JSONField: "'{}'", BooleanField: "FALSE"}
    model = apps.get_model(label)
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]
    empty = {
        field.column: "NULL" if field.null else next((empty for kind, empty in empty_of.items() if isinstance(field, kind)), "0")
        for field in fields
    }
    whole = {**empty, **columns}
    return f"INSERT INTO {model._meta.db_table} ({', '.join(whole)}) SELECT {', '.join(whole.values())}"


def _measure(rows: int, limit_ms: float) -> list[str]:
    """Asks everything through the whole site, without a network; returns what was too slow."""
    from django.contrib.auth.models import User
    from django.test import Client

    from access.services import create_personal_token
    from llmcontrol import memory

    memory.collect_seldom()  # as where it is served
    root = User.objects.create_superuser("bench")
    browser = Client(SERVER_NAME="localhost")
    browser.force_login(root)
    script = Client(SERVER_NAME="localhost", HTTP_AUTHORIZATION=f"Token {create_personal_token(root, 'bench')[1]}")
    slow = []
    print(f"{rows:,} requests and attempts; ms over {_ROUNDS} rounds")
    print(f"{'':62}{'median':>9}{'p95':>9}{'CPU':>9}")
    for name, url in _questions(rows).items():
        asked = [ask(browser if url.startswith("/admin/") else script, url) for _ in range(_ROUNDS + _WARM_UP)][_WARM_UP:]
        took, cpu = zip(*asked, strict=True)
        parts = quantiles(took, n=20, method="inclusive")
        print(f"{name:62}{parts[9]:9.1f}{parts[18]:9.1f}{median(cpu):9.1f}", flush=True)
        if parts[18] > limit_ms:
            slow.append(name)
    retention.measure(lambda: ask(browser, "/admin/monitoring/requestlog/")[0], _write)
    return slow


def _write() -> None:
    """One request and its attempt, entered as the drainer enters them: in one transaction."""
    from django.db import transaction

    from monitoring.models import RequestLog, UsageRecord

    common = {"request_id": f"req_{secrets.token_hex(12)}", "started_at": datetime.now(UTC)}
    with transaction.atomic():
        UsageRecord.objects.create(**common, attempt=1, provider_id=AN_ID, status="ok")
        RequestLog.objects.create(**common, dialect="openai", status_code=200)


def ask(client: Any, url: str) -> tuple[float, float]:
    """(ms it took, ms of this process's CPU): on a machine that has other things to do they differ."""
    begun, cpu = time.perf_counter(), time.process_time()
    response = client.get(url)
    took_ms, cpu_ms = (time.perf_counter() - begun) * 1000, (time.process_time() - cpu) * 1000
    assert response.status_code == 200, f"{url} was answered {response.status_code}"
    return took_ms, cpu_ms


def _questions(rows: int) -> dict[str, str]:
    requests, usage = "/admin/monitoring/requestlog/", "/admin/monitoring/usagerecord/"
    month, day = since(31), since(20)
    old = f"since={day}&until={since(19)}".replace("+", "%2B")
    filters = {
        **{f"{name}={value}": f"{name}={value}" for name in ("team", "key", "model") for value in (f"{name}-3", "rare", "nobody")},
        "provider=provider-1": "provider=provider-1",
        "provider=nobody": "provider=nobody",
        **{query: query for query in ("user=user-76", "user=nobody", "tag=tag-3", "tag=rare", "tag=nobody")},
    }
    between = f"started_at_from_0={day[:10]}&started_at_to_0={day[:10]}"
    return {
        "overview": "/admin/",
        "costs, 90 days": "/admin/costs/?days=90",
        "requests, first page": requests,
        "requests, in the middle": f"{requests}?before={rows // 2}",
        "requests, last day": f"{requests}?since=24h",
        "requests, one day of weeks ago": f"{requests}?{between}",
        "requests, one team on one day of weeks ago": f"{requests}?{between}&team=team-3",
        "requests, failed": f"{requests}?outcome=failed",
        "requests, a status that is rare": f"{requests}?code=418",
        "requests, a status that never was": f"{requests}?code=451",
        **{f"requests, {name}": f"{requests}?{query}" for name, query in filters.items()},
        "usage, first page": usage,
        "usage, in the middle": f"{usage}?before={rows // 2}",
        "usage, one day of weeks ago": f"{usage}?{between}",
        "usage, errors": f"{usage}?status__exact=error",
        "usage, a status that never was": f"{usage}?status__exact=interrupted",
        **{f"usage, {name}": f"{usage}?{query}" for name, query in filters.items()},
        "REST requests": "/api/v1/requests",
        "REST requests, key=rare": "/api/v1/requests?key=rare",
        "REST requests, one day of weeks ago": f"/api/v1/requests?{old}",
        "REST records": "/api/v1/usage/records",
        "REST records, team=rare": "/api/v1/usage/records?team=rare",
        "REST records, one day of weeks ago": f"/api/v1/usage/records?{old}",
        **{
            f"REST {what}, {name} by an id that {whose}": f"/api/v1/{path}?{name}={value}"
            for what, path, names in (("requests", "requests", ("team", "key")), ("records", "usage/records", ("team", "key", "provider")))
            for name in names
            for whose, value in (("all have", AN_ID), ("none has", _NO_ID))
        },
        "REST records, user=user-76": "/api/v1/usage/records?user=user-76",
        "REST stats, a month by user": f"/api/v1/usage/stats?since={month}&group_by=user&key=key-3",
        "REST costs, a month by day and tag": f"/api/v1/usage/costs?since={month}&group_by=day,tag",
        "REST stats, a month by day and model": f"/api/v1/usage/stats?since={month}&group_by=day,model",
        "REST stats, a week by hour": f"/api/v1/usage/stats?since={since(7)}&group_by=hour",
        "REST stats, a month by day, team, key, model, status": f"/api/v1/usage/stats?since={month}&group_by=day,team,key,model,status",
        "REST costs, a month by day and team": f"/api/v1/usage/costs?since={month}&group_by=day,team",
    }


def since(days: int) -> str:
    return time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime(time.time() - days * 86_400))


if __name__ == "__main__":
    sys.exit(main())
