"""Role × route: who gets through, and that no route is missing from the table."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.test import APIClient

from llmcontrol.rest import DeclaredPermissions
from tests.rest.conftest import World

pytestmark = pytest.mark.usefixtures("standing_world")

LLM = "/api/v1/llm"
PROVIDER, MODEL, PRICE = f"{LLM}/providers/{{provider.id}}", f"{LLM}/models/{{model.id}}", f"{LLM}/prices/{{price.id}}"
ROUTE = f"{LLM}/routes/{{route.id}}"
PROMPT = f"{LLM}/prompts/{{prompt.id}}"
NEW_PROMPT = {"name": "new", "messages": [{"role": "user", "content": "Hi."}]}
TASK_TYPE, NEW_TASK_TYPE = f"{LLM}/task-types/{{task_type.id}}", {"name": "new", "prompt": "greeting"}
TEAM, KEY = f"{LLM}/teams/{{team.id}}", f"{LLM}/keys/{{api_key.id}}"
BUDGET = f"{LLM}/budgets/{{budget.id}}"
MEMBER, GRANT = f"{LLM}/members/{{member.id}}", f"{LLM}/grants/{{grant.id}}"
WEBHOOK, WEBHOOK_SECRET = "/api/v1/webhooks/{webhook.id}", "/api/v1/webhook-secrets/{webhook_secret.id}"
RULE, CHANNEL, ALERT = (
    f"{LLM}/alerts/{{alert_rule.id}}",
    f"{LLM}/alert-channels/{{alert_channel.id}}",
    f"{LLM}/alert-history/{{alert.id}}",
)
NEW_RULE = {"name": "new", "condition": "breaker_open", "threshold": 0}
NEW_CHANNEL = {"name": "new", "kind": "email", "recipients": "ops@example.com"}
NEW_MEMBER = {"team": "{team.id}", "user": "other", "role": "viewer"}
NEW_BUDGET = {"scope": {"user": "ann"}, "kind": "requests", "limit": 5, "period": "month"}
TASK = {"type": "custom", "prompt": "hi"}
VENDOR_KEY = {"api_key": "sk-another-vendor-key-0123456789"}

# (method, path, body, permissions that are enough, status with them). A viewer may do what needs view permissions alone.
_EMPTY_DOCUMENT = {"format": "llmcontrol-configuration", "version": 1}
TABLE: list[tuple[str, str, Any, tuple[str, ...], int]] = [
    ("get", f"{LLM}/providers", None, ("providers.view_provider",), 200),
    ("post", f"{LLM}/providers", {"name": "new", "provider_type": "echo"}, ("providers.add_provider",), 201),
    ("get", PROVIDER, None, ("providers.view_provider",), 200),
    ("put", PROVIDER, {"name": "new", "provider_type": "echo"}, ("providers.change_provider",), 200),
    ("patch", PROVIDER, {"max_concurrency": 3}, ("providers.change_provider",), 200),
    ("delete", PROVIDER, None, ("providers.delete_provider",), 204),
    ("post", f"{PROVIDER}/test", None, ("providers.test_provider",), 200),
    ("post", f"{PROVIDER}/disable", None, ("providers.change_provider",), 200),
    ("post", f"{PROVIDER}/reset-breaker", None, ("providers.change_provider",), 200),
    ("patch", f"{PROVIDER}/keys/{{key.id}}", {"weight": 2}, ("providers.change_providerkey",), 200),
    ("post", f"{PROVIDER}/keys", VENDOR_KEY, ("providers.add_providerkey",), 201),
    ("post", f"{PROVIDER}/keys/{{key.id}}/rotate", VENDOR_KEY, ("providers.rotate_providerkey",), 200),
    ("delete", f"{PROVIDER}/keys/{{key.id}}", None, ("providers.delete_providerkey",), 204),
    (
        "post",
        f"{PROVIDER}/sync-models",
        {},
        ("providers.sync_provider", "models_registry.add_llmmodel", "models_registry.change_llmmodel"),
        200,
    ),
    ("get", f"{LLM}/models", None, ("models_registry.view_llmmodel",), 200),
    ("post", f"{LLM}/models", {"provider": "{provider.id}", "model_id": "m", "alias": "m"}, ("models_registry.add_llmmodel",), 201),
    ("get", MODEL, None, ("models_registry.view_llmmodel",), 200),
    ("put", MODEL, {"provider": "{provider.id}", "model_id": "m", "alias": "m"}, ("models_registry.change_llmmodel",), 200),
    ("patch", MODEL, {"quality": 70}, ("models_registry.change_llmmodel",), 200),
    ("delete", MODEL, None, ("models_registry.delete_llmmodel",), 204),
    ("get", f"{LLM}/routes", None, ("models_registry.view_route",), 200),
    ("post", f"{LLM}/routes", {"alias": "new", "targets": ["echo"]}, ("models_registry.add_route",), 201),
    ("get", ROUTE, None, ("models_registry.view_route",), 200),
    ("put", ROUTE, {"alias": "new", "targets": ["echo"]}, ("models_registry.change_route",), 200),
    ("patch", ROUTE, {"fixed_answer": "Later."}, ("models_registry.change_route",), 200),
    ("delete", ROUTE, None, ("models_registry.delete_route",), 204),
    ("get", f"{LLM}/prompts", None, ("models_registry.view_prompttemplate",), 200),
    ("post", f"{LLM}/prompts", NEW_PROMPT, ("models_registry.add_prompttemplate",), 201),
    ("get", PROMPT, None, ("models_registry.view_prompttemplate",), 200),
    ("put", PROMPT, {**NEW_PROMPT, "variables": []}, ("models_registry.change_prompttemplate",), 200),
    ("patch", PROMPT, {"labels": {"staging": 1}}, ("models_registry.change_prompttemplate",), 200),
    ("delete", PROMPT, None, ("models_registry.delete_prompttemplate",), 204),
    ("get", f"{PROMPT}/versions", None, ("models_registry.view_prompttemplate",), 200),
    ("post", f"{PROMPT}/preview", {"variables": {"name": "Ann"}}, ("models_registry.change_prompttemplate",), 200),
    ("get", f"{LLM}/task-types", None, ("tasks.view_tasktype",), 200),
    ("post", f"{LLM}/task-types", NEW_TASK_TYPE, ("tasks.add_tasktype",), 201),
    ("get", TASK_TYPE, None, ("tasks.view_tasktype",), 200),
    ("put", TASK_TYPE, {**NEW_TASK_TYPE, "name": "greeting"}, ("tasks.change_tasktype",), 200),
    ("patch", TASK_TYPE, {"is_active": False}, ("tasks.change_tasktype",), 200),
    ("delete", TASK_TYPE, None, ("tasks.delete_tasktype",), 204),
    ("get", f"{LLM}/prices", None, ("models_registry.view_price",), 200),
    (
        "post",
        f"{LLM}/prices",
        {"model": "{model.id}", "currency": "USD", "per_million": {"input": "1", "output": "1"}},
        ("models_registry.add_price",),
        201,
    ),
    ("get", PRICE, None, ("models_registry.view_price",), 200),
    ("get", f"{LLM}/exchange-rates", None, ("models_registry.view_exchangerate",), 200),
    ("post", f"{LLM}/exchange-rates", {"base": "EUR", "quote": "USD", "rate": "1.1"}, ("models_registry.add_exchangerate",), 201),
    ("get", f"{LLM}/exchange-rates/{{rate.id}}", None, ("models_registry.view_exchangerate",), 200),
    ("get", f"{LLM}/teams", None, ("access.view_team",), 200),
    ("post", f"{LLM}/teams", {"name": "new"}, ("access.add_team",), 201),
    ("get", TEAM, None, ("access.view_team",), 200),
    ("put", TEAM, {"name": "new"}, ("access.change_team",), 200),
    ("patch", TEAM, {"is_active": False}, ("access.change_team",), 200),
    ("delete", TEAM, None, ("access.delete_team",), 204),
    ("get", f"{LLM}/members", None, ("access.view_teammember",), 200),
    ("post", f"{LLM}/members", NEW_MEMBER, ("access.add_teammember",), 201),
    ("get", MEMBER, None, ("access.view_teammember",), 200),
    ("put", MEMBER, {**NEW_MEMBER, "user": "member"}, ("access.change_teammember",), 200),
    ("patch", MEMBER, {"role": "viewer"}, ("access.change_teammember",), 200),
    ("delete", MEMBER, None, ("access.delete_teammember",), 204),
    ("get", f"{LLM}/grants", None, ("access.view_grant",), 200),
    ("post", f"{LLM}/grants", {"team": "{team.id}", "provider": "{provider.id}"}, ("access.add_grant",), 201),
    ("get", GRANT, None, ("access.view_grant",), 200),
    ("delete", GRANT, None, ("access.delete_grant",), 204),
    ("get", f"{LLM}/keys", None, ("access.view_apikey",), 200),
    ("post", f"{LLM}/keys", {"name": "new", "team": "{team.id}"}, ("access.add_apikey",), 201),
    ("get", KEY, None, ("access.view_apikey",), 200),
    ("put", KEY, {"name": "new", "team": "{team.id}"}, ("access.change_apikey",), 200),
    ("patch", KEY, {"name": "new"}, ("access.change_apikey",), 200),
    ("delete", KEY, None, ("access.delete_apikey",), 204),
    ("post", f"{KEY}/revoke", None, ("access.change_apikey",), 200),
    ("get", f"{LLM}/budgets", None, ("access.view_budget",), 200),
    ("post", f"{LLM}/budgets", NEW_BUDGET, ("access.add_budget",), 201),
    ("get", BUDGET, None, ("access.view_budget",), 200),
    ("put", BUDGET, {**NEW_BUDGET, "scope": {"team": "{team.id}"}}, ("access.change_budget",), 200),
    ("patch", BUDGET, {"limit": 7}, ("access.change_budget",), 200),
    ("delete", BUDGET, None, ("access.delete_budget",), 204),
    ("post", f"{BUDGET}/correct", {"amount": 1, "note": "counted twice"}, ("access.change_budget",), 200),
    ("get", "/api/v1/providers", None, ("providers.view_provider",), 200),
    ("get", "/api/v1/providers/status", None, ("providers.view_provider",), 200),
    ("get", "/api/v1/providers/{provider.name}/status", None, ("providers.view_provider",), 200),
    ("get", "/api/v1/requests", None, ("monitoring.view_requestlog",), 200),
    ("get", "/api/v1/requests/req-1", None, ("monitoring.view_requestlog",), 200),
    ("get", "/api/v1/requests/req-1/bodies", None, ("monitoring.view_requestbody",), 404),
    ("get", "/api/v1/requests/req-1/explain", None, ("monitoring.view_requestlog",), 200),
    ("get", "/api/v1/usage/records", None, ("monitoring.view_usagerecord",), 200),
    ("get", "/api/v1/usage/stats", None, ("monitoring.view_usagerecord",), 200),
    ("get", "/api/v1/usage/costs", None, ("monitoring.view_usagerecord",), 200),
    ("get", "/api/v1/stats", None, ("monitoring.view_usagerecord",), 200),
    ("get", "/api/v1/metrics", None, ("monitoring.view_usagerecord",), 200),
    ("post", "/api/v1/tasks", TASK, ("tasks.add_task",), 202),
    ("post", "/api/v1/tasks/batch", {"tasks": [TASK]}, ("tasks.add_task",), 202),
    ("get", "/api/v1/tasks", None, ("tasks.view_task",), 200),
    ("get", "/api/v1/tasks/{task.public_id}", None, ("tasks.view_task",), 200),
    ("get", "/api/v1/tasks/{task.public_id}/events", None, ("tasks.view_task",), 200),
    ("post", "/api/v1/tasks/{task.public_id}/cancel", None, ("tasks.change_task",), 200),
    ("get", "/api/v1/webhooks", None, ("telling.view_webhook",), 200),
    ("get", WEBHOOK, None, ("telling.view_webhook",), 200),
    ("post", f"{WEBHOOK}/replay", None, ("telling.replay_webhook",), 200),
    ("get", "/api/v1/webhook-secrets", None, ("telling.view_webhooksecret",), 200),
    ("post", "/api/v1/webhook-secrets", {"team": "{team.id}"}, ("telling.add_webhooksecret",), 201),
    ("get", WEBHOOK_SECRET, None, ("telling.view_webhooksecret",), 200),
    ("delete", WEBHOOK_SECRET, None, ("telling.delete_webhooksecret",), 204),
    ("get", f"{LLM}/alerts", None, ("telling.view_alertrule",), 200),
    ("post", f"{LLM}/alerts", NEW_RULE, ("telling.add_alertrule",), 201),
    ("get", RULE, None, ("telling.view_alertrule",), 200),
    ("put", RULE, NEW_RULE, ("telling.change_alertrule",), 200),
    ("patch", RULE, {"threshold": "2.5"}, ("telling.change_alertrule",), 200),
    ("delete", RULE, None, ("telling.delete_alertrule",), 204),
    ("post", f"{RULE}/test", None, ("telling.test_alertchannel",), 200),
    ("get", f"{LLM}/alert-channels", None, ("telling.view_alertchannel",), 200),
    ("post", f"{LLM}/alert-channels", NEW_CHANNEL, ("telling.add_alertchannel",), 201),
    ("get", CHANNEL, None, ("telling.view_alertchannel",), 200),
    ("put", CHANNEL, NEW_CHANNEL, ("telling.change_alertchannel",), 200),
    ("patch", CHANNEL, {"is_active": False}, ("telling.change_alertchannel",), 200),
    ("delete", CHANNEL, None, ("telling.delete_alertchannel",), 204),
    ("post", f"{CHANNEL}/test", None, ("telling.test_alertchannel",), 200),
    ("get", f"{LLM}/alert-history", None, ("telling.view_alert",), 200),
    ("get", ALERT, None, ("telling.view_alert",), 200),
    ("post", "/api/v1/ws-ticket", None, (), 201),
    ("get", "/api/v1/audit", None, ("monitoring.view_auditevent",), 200),
    ("get", "/api/v1/audit/1", None, ("monitoring.view_auditevent",), 200),
    ("get", f"{LLM}/secrets/health", None, ("providers.view_providerkey",), 200),
    ("get", "/api/info", None, (), 200),
    ("get", "/api/v1/config/export", None, ("gateway_config.export_configversion",), 200),
    ("post", "/api/v1/config/import", _EMPTY_DOCUMENT, ("gateway_config.import_configversion",), 200),
    ("get", "/api/schema/", None, (), 200),
    ("get", "/docs", None, (), 200),
    ("get", "/metrics", None, ("monitoring.view_usagerecord",), 200),
    ("get", "/redoc", None, (), 200),
]
IDS = [f"{method} {path}" for method, path, *_ in TABLE]


def filled(value: Any, world: World) -> Any:
    if isinstance(value, dict):
        return {name: filled(inner, world) for name, inner in value.items()}
    return value.format(**vars(world)) if isinstance(value, str) and "{" in value else value


def call(client: APIClient, world: World, method: str, path: str, body: Any) -> int:
    return int(getattr(client, method)(filled(path, world), filled(body, world), format="json" if body is not None else None).status_code)


@pytest.mark.parametrize(("method", "path", "body", "needed", "success"), TABLE, ids=IDS)
class TestTable:
    def test_anonymous_is_asked_who_they_are(self, anonymous, world, method, path, body, needed, success) -> None:
        response = getattr(anonymous, method)(filled(path, world), filled(body, world), format="json" if body is not None else None)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer" if "/tasks" in path or path.endswith("/explain") else "Token")

    def test_a_stranger_is_refused(self, stranger, world, method, path, body, needed, success) -> None:
        assert call(stranger, world, method, path, body) == (403 if needed else success)

    def test_a_viewer_only_looks(self, viewer, world, method, path, body, needed, success) -> None:
        looks = all(".view_" in permission for permission in needed)
        assert call(viewer, world, method, path, body) == (success if looks else 403)

    def test_the_permission_is_enough(self, allowed, world, method, path, body, needed, success) -> None:
        assert call(allowed(*needed), world, method, path, body) == success

    def test_root_may(self, root, world, method, path, body, needed, success) -> None:
        assert call(root, world, method, path, body) == success


@pytest.mark.parametrize("missing", ["providers.sync_provider", "models_registry.add_llmmodel", "models_registry.change_llmmodel"])
def test_each_of_several_permissions_is_needed(allowed: Callable[..., APIClient], world: World, missing: str) -> None:
    needed = {"providers.sync_provider", "models_registry.add_llmmodel", "models_registry.change_llmmodel"} - {missing}
    assert call(allowed(*needed), world, "post", f"{PROVIDER}/sync-models", {}) == 403


def test_changing_a_provider_is_not_changing_its_keys(allowed: Callable[..., APIClient], world: World) -> None:
    body = {"config": VENDOR_KEY}
    client = allowed("providers.change_provider")
    assert call(client, world, "patch", PROVIDER, body) == 403
    world.key.refresh_from_db()
    assert world.key.last4 == "1234"


def test_a_staff_session_works_as_a_token_does(world: World, admin_client: Any) -> None:
    assert admin_client.get("/api/v1/llm/providers").status_code == 200


def test_a_session_needs_the_csrf_token_to_write(world: World, admin_user: Any) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post("/api/v1/llm/teams", {"name": "new"}, format="json").status_code == 403
    assert client.get("/api/v1/llm/teams").status_code == 200


def _routes(patterns: list[Any], prefix: str = "/") -> set[str]:
    found = set()
    for pattern in patterns:
        path = prefix + str(pattern.pattern).removeprefix("^").removesuffix("$").removesuffix("\\Z")
        if isinstance(pattern, URLResolver):
            found |= _routes(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern):
            found.add(path)
    return {route for route in found if not route.startswith("/admin/")}


def test_every_route_is_in_the_table() -> None:
    routes = _routes(get_resolver().url_patterns)
    names = (
        *("provider", "model", "price", "rate", "route", "prompt", "team", "member", "grant", "api_key", "key", "budget", "task"),
        *("webhook", "webhook_secret", "alert_rule", "alert_channel", "alert", "task_type"),
    )
    in_table = {path.format(**dict.fromkeys(names, _ID)) for _, path, *_ in TABLE}
    missing = {route for route in routes if not any(_same(route, path) for path in in_table)}
    assert missing == set()


class _ID:
    id = name = public_id = "ID"


def _same(route: str, path: str) -> bool:
    parameter = re.compile(r"\(\?P<\w+>\[\^[^\]]+\]\+\)|<[\w:]+>")
    return re.fullmatch("[^/]+".join(map(re.escape, parameter.split(route))), path) is not None


def test_an_undeclared_action_is_a_loud_mistake() -> None:
    class View:
        permission_for = {"known": ()}

    assert DeclaredPermissions.needed(View(), "known") == ()
    with pytest.raises(ImproperlyConfigured, match="explode"):
        DeclaredPermissions.needed(View(), "explode")
