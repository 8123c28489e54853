"""A13: ids of another tenant, on every route of REST and every page of the admin, answer as ids that nobody has."""

from __future__ import annotations

import re
import uuid

import pytest
from django.contrib import admin
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from tests.security.access_fixtures import Tenant, Tenants

METHODS = ("get", "put", "patch", "delete", "post")
# The words of a route that say which row is meant → the row of a tenant.
ROWS = {
    "llm/teams": "team",
    "llm/members": "member",
    "llm/grants": "grant",
    "llm/keys": "key",
    "llm/budgets": "budget",
    "llm/models": "model",
    "llm/routes": "route",
    "llm/prompts": "prompt",
    "llm/task-types": "task_type",
    "llm/prices": "price",
    "llm/exchange-rates": "rate",
    "llm/providers": "provider",
    "api/v1/providers": "provider",
    "api/v1/requests": "request",
    "api/v1/tasks": "task",
    "api/v1/audit": "event",
    "api/v1/webhooks": "webhook",
    "api/v1/webhook-secrets": "webhook_secret",
    "llm/alerts": "alert_rule",
    "llm/alert-channels": "alert_channel",
    "llm/alert-history": "alert",
}
_PARAMETER = re.compile(r"\(\?P<\w+>[^)]*\)|<[\w:]+>")


def rest_routes(patterns: list[URLPattern | URLResolver], prefix: str = "/") -> list[str]:
    found: list[str] = []
    for entry in patterns:
        path = prefix + str(entry.pattern).strip("^$").replace(r"\Z", "")
        if isinstance(entry, URLResolver):
            found += rest_routes(entry.url_patterns, path)
        elif path.startswith("/api/v1/"):
            found.append(path)
    return found


def row_of(tenant: Tenant, route: str) -> str:
    row = next(row for words, row in ROWS.items() if words in route)
    if row == "request":
        return tenant.request.request_id
    if row == "task":
        return tenant.task.public_id
    return tenant.provider.name if route.startswith("/api/v1/providers") else str(getattr(tenant, row).pk)


def nobody(route: str) -> str:
    """What no row has, in the form that the route asks for."""
    if "<int:" in route:
        return "987654321"
    return "nobody" if route.startswith("/api/v1/providers") else str(uuid.uuid4())


DETAILED = sorted({route for route in rest_routes(get_resolver().url_patterns) if _PARAMETER.search(route)})


def test_there_is_a_row_for_every_route() -> None:
    assert len(DETAILED) > 15
    assert [route for route in DETAILED if not any(words in route for words in ROWS)] == []


@pytest.mark.parametrize("role", ["manager", "member", "viewer"])
def test_every_route_of_rest(tenants: Tenants, role: str) -> None:
    client = tenants.rest(tenants.ours.people[role])
    for route in DETAILED:
        theirs = _PARAMETER.sub(row_of(tenants.theirs, route), route)
        nobodys = _PARAMETER.sub(nobody(route), route)
        for method in METHODS:
            answer, unknown = (getattr(client, method)(url, {}, format="json") for url in (theirs, nobodys))
            assert (answer.status_code, answer.content) == (unknown.status_code, unknown.content), (method, route)
            assert answer.status_code in (403, 404, 405), (method, route)


def test_what_is_ours_is_there(tenants: Tenants) -> None:
    """Or the test above would pass with nothing but 404."""
    client = tenants.rest(tenants.ours.people["manager"])
    for route in ("teams", "members", "keys", "budgets", "models", "routes", "prompts"):
        row = getattr(tenants.ours, route.removesuffix("s"))
        assert client.get(f"/api/v1/llm/{route}/{row.pk}").status_code == 200, route
    assert client.get("/api/v1/requests/ours-1").status_code == 200
    assert client.get(f"/api/v1/webhooks/{tenants.ours.webhook.pk}").status_code == 200
    assert client.get(f"/api/v1/webhook-secrets/{tenants.ours.webhook_secret.pk}").status_code == 200


def test_every_page_of_the_admin(tenants: Tenants) -> None:
    client = tenants.admin(tenants.ours.people["manager"])
    rows = {type(row): row for row in vars(tenants.theirs).values() if hasattr(row, "_meta")}
    rows |= {type(tenants.theirs.provider): tenants.theirs.provider, type(tenants.theirs.people["viewer"]): tenants.theirs.people["viewer"]}
    seen = 0
    for model in admin.site._registry:
        if model not in rows:
            continue
        seen += 1
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        key = rows[model].pk
        nobodys = key + 1_000_000 if isinstance(key, int) else uuid.uuid4()
        for page in ("change", "delete", "history"):
            answer, unknown = (client.get(reverse(f"{name}_{page}", args=[pk])) for pk in (key, nobodys))
            assert answer.status_code == unknown.status_code, (name, page)
            assert answer.status_code in (302, 403, 404), (name, page)
            assert tenants.theirs.name not in answer.content.decode(), (name, page)
    assert seen >= 10


def test_their_team_cannot_be_named_in_a_body(tenants: Tenants) -> None:
    client = tenants.rest(tenants.ours.people["manager"])
    for url, body in (("keys", {"name": "k"}), ("members", {"user": "ours-viewer", "role": "manager"})):
        answers = []
        for team in (tenants.theirs.team.pk, uuid.uuid4()):
            answer = client.post(f"/api/v1/llm/{url}", {**body, "team": str(team)}, format="json")
            answers.append((answer.status_code, answer.content.replace(str(team).encode(), b"ID")))
        assert answers[0] == answers[1]
        assert answers[0][0] == 400
    moved = client.patch(f"/api/v1/llm/keys/{tenants.ours.key.pk}", {"team": str(tenants.theirs.team.pk)}, format="json")
    assert moved.status_code == 400
    assert tenants.theirs.team.keys.count() == 1
