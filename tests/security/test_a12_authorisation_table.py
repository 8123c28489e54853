"""A12: every URL and method × every kind of caller, against the table beside this file. A URL that is not in it fails.

`make test T=tests/security/test_a12_authorisation_table.py` compares. After a change on purpose, `AUTHORISATION_TABLE=write` writes the
table anew, and its diff is what a reviewer reads. Cells: 401 = who are you, 403 = you may not, 404 = not for you (another tenant's
row), 405 = no such method, login = sent to the login page, moved = sent to another page of the table, yes = let in (whatever became of
an empty body).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from tests.security.access_fixtures import Tenants
from tests.undrawn import undrawn

TABLE = Path(__file__).with_name("authorisation_table.csv")
CALLERS = (
    *("anonymous", "api key", "viewer", "auditor", "operator", "administrator", "superuser"),
    *("team viewer", "team member", "team manager", "other manager"),
)
# Everything may be changed, nothing may, and one team's alone: the three shapes that a page has.
DRAWN_FOR = ("superuser", "viewer", "team manager")
REST_METHODS = ("get", "post", "put", "patch", "delete")
ADMIN_METHODS = ("get", "post")
_PARAMETER = re.compile(r"\(\?P<\w+>(?:[^()]|\([^()]*\))*\)|<[\w:]+>")
# They end or change the session that asks, or do nothing but redirect.
_LEFT_OUT = ("/admin/logout/", "/admin/jsi18n/", "/admin/r/", "/admin/(?P<url>", "/admin/autocomplete/")


def routes(patterns: Iterable[URLPattern | URLResolver] | None = None, prefix: str = "/") -> Iterator[str]:
    """Every URL of the control plane, as it is written in the tables of URLs."""
    for entry in get_resolver().url_patterns if patterns is None else patterns:
        path = prefix + str(entry.pattern).removeprefix("^").removesuffix("$").replace(r"\Z", "")
        if isinstance(entry, URLResolver):
            yield from routes(entry.url_patterns, path)
        elif not any(path.startswith(left_out) for left_out in _LEFT_OUT):
            yield path


def rows_of(tenants: Tenants) -> list[tuple[str, Any]]:
    """(words in a URL, the row that it is about): the first that fits counts."""
    ours = tenants.ours
    return [
        ("llm/teams", ours.team),
        ("llm/members", ours.member),
        ("llm/grants", ours.grant),
        ("llm/keys", ours.key),
        ("llm/budgets", ours.budget),
        ("llm/models", ours.model),
        ("llm/routes", ours.route),
        ("llm/prompts", ours.prompt),
        ("llm/task-types", ours.task_type),
        ("llm/prices", ours.price),
        ("llm/exchange-rates", ours.rate),
        ("api/v1/webhooks", ours.webhook),
        ("api/v1/webhook-secrets", ours.webhook_secret),
        ("llm/alerts", ours.alert_rule),
        ("llm/alert-channels", ours.alert_channel),
        ("llm/alert-history", ours.alert),
        ("llm/providers", ours.provider),
        ("models_registry/llmmodel/sync", ours.provider),
        *((f"/admin/{row._meta.app_label}/{row._meta.model_name}/", row) for row in vars(ours).values() if hasattr(row, "_meta")),
        ("/admin/providers/provider/", ours.provider),
        ("/admin/auth/user/", ours.people["viewer"]),
        ("/admin/auth/group/", tenants.people["viewer"].groups.get()),
        ("/admin/models_registry/exchangerate/", ours.rate),
        ("/audit/", ours.event),
        ("/auditevent/", ours.event),
    ]


def with_ids(route: str, tenants: Tenants, rows: list[tuple[str, Any]]) -> str:
    """The URL of our tenant's row, or of one that belongs to nobody."""
    ours = tenants.ours
    row = next((candidate for words, candidate in rows if words in route), None)
    if "/providers/" in route and "/llm/" not in route and route.startswith("/api/"):
        return _PARAMETER.sub(ours.provider.name, route)
    if "requests/" in route:
        return _PARAMETER.sub(ours.request.request_id, route)
    if "/task/batch/" in route:
        return _PARAMETER.sub(str(ours.task.batch), route)
    if "/v1/tasks/" in route:
        return _PARAMETER.sub(ours.task.public_id, route)
    if "app_label" in route:
        return "/admin/access/"
    if route.endswith("<path:object_id>/history/") and "<slug:app>" in route:
        return f"/admin/access/team/{ours.team.pk}/history/"
    parts = [str(row.pk) if row is not None else "1", str(ours.provider_key.pk)]
    return _PARAMETER.sub(lambda _: parts.pop(0), route)


def shown(route: str) -> str:
    return _PARAMETER.sub("{id}", route)


def outcome(response: Any, method: str) -> str:
    if response.status_code in (301, 302):
        location = response.headers.get("Location", "")
        if "/admin/login/" in location:
            return "login"
        if location == "/admin/":
            return "404"  # how the admin says that there is no such row
        return "moved" if method == "get" else "yes"
    if response.status_code in (401, 403, 404, 405):
        return str(response.status_code)
    assert response.status_code < 500, response
    return "yes"


@contextmanager
def undone() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def client_of(caller: str, tenants: Tenants, *, session: bool) -> Client:
    people = {**tenants.people, **{f"team {role}": user for role, user in tenants.ours.people.items()}}
    people["other manager"] = tenants.theirs.people["manager"]
    if caller == "api key":
        client = tenants.rest(None)
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {tenants.ours.key_plaintext}")
        return client
    return tenants.admin(people.get(caller)) if session else tenants.rest(people.get(caller))


def cells(caller: str, tenants: Tenants) -> dict[tuple[str, str], str]:
    found = {}
    rows = rows_of(tenants)
    clients = {in_admin: client_of(caller, tenants, session=in_admin) for in_admin in (True, False)}
    for route in sorted(set(routes())):
        in_admin = route.startswith("/admin/")
        client, url = clients[in_admin], with_ids(route, tenants, rows)
        for method in ADMIN_METHODS if in_admin else REST_METHODS:
            more: dict[str, Any] = {} if method == "get" else {"data": {"_": "_"}} if in_admin else {"data": {"_": "_"}, "format": "json"}
            with undone(), nullcontext() if method == "get" and caller in DRAWN_FOR else undrawn():
                found[shown(route), method] = outcome(getattr(client, method)(url, **more), method)
    return found


def read_table() -> dict[tuple[str, str], dict[str, str]]:
    lines = TABLE.read_text().splitlines()
    assert lines[0].split(",") == ["url", "method", *CALLERS]
    rows = (line.split(",") for line in lines[1:])
    return {(url, method): dict(zip(CALLERS, row, strict=True)) for url, method, *row in rows}


@pytest.mark.skipif(os.environ.get("AUTHORISATION_TABLE") == "write", reason="the table is being written")
@pytest.mark.parametrize("caller", CALLERS)
def test_the_table_is_true(tenants: Tenants, caller: str) -> None:
    expected = {cell: row[caller] for cell, row in read_table().items()}
    assert cells(caller, tenants) == expected


@pytest.mark.skipif(os.environ.get("AUTHORISATION_TABLE") != "write", reason="only AUTHORISATION_TABLE=write writes the table")
def test_write_the_table(tenants: Tenants) -> None:
    by_caller = {caller: cells(caller, tenants) for caller in CALLERS}
    lines = [",".join(["url", "method", *CALLERS])]
    for cell in by_caller["anonymous"]:
        lines.append(",".join([*cell, *(by_caller[caller][cell] for caller in CALLERS)]))
    TABLE.write_text("\n".join(lines) + "\n")


def test_a_url_that_is_not_in_the_table_fails() -> None:
    assert {shown(route) for route in routes()} == {url for url, _ in read_table()}


def test_what_everybody_should_know_of_the_table() -> None:
    """The few sentences that a reviewer of the table would look for first."""
    for (url, method), row in read_table().items():
        if url not in ("/admin/login/", "/admin/logout/", "/admin/language/"):
            assert row["anonymous"] in ("401", "403", "404", "405", "login"), (url, method)
            assert row["api key"] in ("401", "403", "404", "405", "login"), (url, method)
        if url.startswith("/api/v1/llm/") and method != "get":
            assert row["viewer"] in ("403", "404", "405"), (url, method)
            assert row["auditor"] in ("403", "404", "405"), (url, method)
        if "{id}" in url and url.startswith("/api/v1/"):
            assert row["other manager"] in ("403", "404", "405"), (url, method)
