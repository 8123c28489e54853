"""A14: all that a tenant can read is the same, byte by byte, whether or not there is another tenant."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse

from access.roles import sync_groups
from core.config import CallerSpec
from gateway.config.loader import load
from models_registry.services import set_exchange_rate
from tests.security.access_fixtures import MOMENT, Tenant, Tenants, make_tenant
from tests.security.test_a02_filters import LISTS

pytestmark = pytest.mark.django_db

SPAN = "since=2026-11-01T00:00:00Z&until=2026-11-02T00:00:00Z"
# They differ by chance, or by when: tokens against forgery, nonces, and the number of the configuration that is in force.
_CHANCE = re.compile(r'csrfmiddlewaretoken" value="[^"]*"|nonce="[^"]*"|"config_version":\d+|configuration \d+|X-CSRFToken[^}]*')


def everything(tenant: Tenant, rest: Any, site: Any) -> dict[str, str]:
    seen = {}
    for url in LISTS:
        for query in ("", f"?{SPAN}" if "usage/stats" in url or "usage/costs" in url else "?page_size=1"):
            if "usage/" in url and "records" not in url and not query:
                continue
            seen[url + query] = rest.get(url + query).content.decode()
    for group in ("team", "key", "provider", "model"):
        seen[f"by {group}"] = rest.get(f"/api/v1/usage/stats?{SPAN}&group_by={group}").content.decode()
    for filtered in (
        "llm/models?alias=theirs-model",
        "llm/routes?alias=theirs-route",
        "requests?team=theirs",
        "usage/records?key=theirs-bot",
    ):
        seen[filtered] = rest.get(f"/api/v1/llm/{filtered}").content.decode()
    for path in ("/metrics", "/api/info", "/api/v1/llm/models/none", "/api/v1/llm/keys/none"):
        seen[path] = rest.get(path).content.decode()
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        for page in ("changelist", "add"):
            seen[f"{name}_{page}"] = site.get(reverse(f"{name}_{page}")).content.decode()
        seen[f"{name} search"] = site.get(reverse(f"{name}_changelist"), {"q": "theirs"}).content.decode()
    for path in ("/admin/", "/admin/access/", "/admin/search/?s=theirs", f"/admin/access/apikey/{tenant.key.pk}/change/"):
        seen[path] = site.get(path).content.decode()
    return {what: _CHANCE.sub("", page) for what, page in seen.items()}


def reachable(key: bytes) -> dict[str, tuple[str, ...]]:
    """What GET /v1/models and the router have for this key."""
    snapshot = load(None)
    caller: CallerSpec = snapshot.callers[key]
    models = {alias: tuple(m.id for m in found if m.id not in caller.barred) for alias, found in snapshot.models.items()}
    return {alias: ids for alias, ids in models.items() if caller.may_name(alias) and ids} | {
        alias: route.targets for alias, route in snapshot.routes.items() if caller.may_name(alias)
    }


@pytest.mark.parametrize("role", ["manager", "viewer"])
def test_with_and_without_the_other_tenant(role: str) -> None:
    sync_groups()
    set_exchange_rate(base="CNY", quote="USD", rate="0.1404", valid_from=MOMENT)
    ours = make_tenant("ours")
    digest, people = bytes(ours.key.digest), Tenants(ours, ours, {})
    rest, site = people.rest(ours.people[role]), people.admin(ours.people[role])
    alone, reached_alone = everything(ours, rest, site), reachable(digest)
    make_tenant("theirs")
    together, reached = everything(ours, rest, site), reachable(digest)
    assert [what for what in alone if alone[what] != together[what]] == []
    assert reached == reached_alone
    assert set(reached) == {"ours-model", "ours-route"}
    assert "ours-bot" in together["/api/v1/llm/keys"]  # or there would be nothing to tell apart
