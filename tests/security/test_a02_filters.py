"""A02: only declared filters. Whatever else stands in an address is refused, and never becomes a look-up."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.urls import get_resolver, reverse

from tests.security.access_fixtures import Tenants
from tests.security.test_a13_other_tenants_ids import DETAILED, rest_routes

HOSTILE = (
    *("ordering=digest", "fields=digest", "digest__startswith=a", "key_hash__startswith=a", "_connector=OR 1=1", "_negated=1"),
    *("team__name__startswith=t", "team__keys__digest__startswith=a", "created_by__password__startswith=p", "pk__in=1", "id__gt=0"),
    *("user__password__startswith=p", "keys__secret__startswith=s", "name__regex=(a%2B)%2B$", "search=%25", "__class__=x", "name[]=x"),
)
_NO_LISTS = {"/api/v1/config/import", "/api/v1/llm/providers/<uuid:provider_id>/sync-models", "/api/v1/tasks/batch", "/api/v1/ws-ticket"}
LISTS = sorted(set(rest_routes(get_resolver().url_patterns)) - set(DETAILED) - _NO_LISTS)


@pytest.mark.parametrize("parameter", HOSTILE)
def test_every_list_of_rest_refuses_it(tenants: Tenants, parameter: str) -> None:
    client = tenants.rest(tenants.people["superuser"])
    assert len(LISTS) >= 12
    for url in LISTS:
        answer = client.get(f"{url}?{parameter}")
        assert answer.status_code == 400, url
        assert {error["attr"] for error in answer.json()["errors"]} == {parameter.partition("=")[0]}, url


def test_a_declared_filter_takes_no_other_comparison_from_its_value(tenants: Tenants) -> None:
    client = tenants.rest(tenants.people["superuser"])
    for url in ("/api/v1/llm/models?alias=ours-", "/api/v1/llm/members?user=ours-%25", "/api/v1/requests?team=o%25"):
        assert client.get(url).json()["results"] == []
    assert client.get("/api/v1/llm/keys?team=1 OR 1=1").status_code == 400


def test_the_admin_looks_up_only_what_it_offers(tenants: Tenants) -> None:
    client = tenants.admin(tenants.people["superuser"])
    for model, model_admin in admin.site._registry.items():
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        offered = {item if isinstance(item, str) else item[0] for item in model_admin.list_filter if isinstance(item, str | tuple)}
        for field in model._meta.get_fields():
            if field.name not in offered and not field.name.startswith(("duration_", "first_token_")):
                assert client.get(url, {f"{field.name}__startswith": "a"}).status_code == 400, (url, field.name)
        assert client.get(url, {"pk__gt": "0"}).status_code == 400, url
    for url, lookup in (("access_apikey", "team__keys__digest__gt"), ("access_personaltoken", "user__password__startswith")):
        answer = client.get(reverse(f"admin:{url}_changelist"), {lookup: "a"})
        assert answer.status_code == 400, url


def test_what_the_admin_offers_works(tenants: Tenants) -> None:
    client = tenants.admin(tenants.people["superuser"])
    page = client.get(reverse("admin:access_apikey_changelist"), {"team__id__exact": str(tenants.theirs.team.pk)}).content.decode()
    assert "theirs-bot" in page
    assert "ours-bot" not in page


def test_a_filter_named_like_a_column_works(tenants: Tenants) -> None:
    client = tenants.admin(tenants.people["superuser"])
    asked = 0
    for model, model_admin in admin.site._registry.items():
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        for item in model_admin.list_filter:
            if isinstance(item, type) and issubclass(item, admin.SimpleListFilter):
                asked += 1
                assert client.get(url, {str(item.parameter_name): "x"}).status_code == 200, (url, item.parameter_name)
    assert asked >= 10
