"""A10: a body that names a field which cannot be set is refused whole, on every route that takes one, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db.models import Model
from django.urls import URLPattern, URLResolver, get_resolver

from tasks.api.views import TaskViewSet
from tests.security.access_fixtures import Tenants
from tests.security.test_a13_other_tenants_ids import _PARAMETER, row_of

HOSTILE = (
    *("id", "pk", "is_staff", "is_superuser", "tenant", "tenant_id", "team_id", "balance", "spent", "used", "reserved", "left"),
    *("key_hash", "digest", "secret", "last4", "prefix", "key", "created_by", "created_by_id", "created_at", "revoked_at", "_state"),
)


def writable() -> list[tuple[str, str, Any]]:
    """(route, method, view class) of every create and change that the router made."""
    found = []

    def walk(patterns: list[URLPattern | URLResolver], prefix: str) -> None:
        for entry in patterns:
            path = prefix + str(entry.pattern).strip("^$").replace(r"\Z", "")
            if isinstance(entry, URLResolver):
                walk(entry.url_patterns, path)
                continue
            actions = getattr(entry.callback, "actions", None) or {}
            for method, action in actions.items():
                if action in ("create", "update", "partial_update") and path.startswith("/api/v1/"):
                    found.append((path, method, entry.callback.cls))

    walk(get_resolver().url_patterns, "/")
    return sorted(found, key=lambda one: one[:2])


WRITABLE = writable()


def columns(row: Model) -> dict[str, Any]:
    row.refresh_from_db()
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


@pytest.mark.parametrize(("route", "method", "view"), WRITABLE, ids=[f"{method} {route}" for route, method, _ in WRITABLE])
def test_each_is_named_and_the_row_is_as_it_was(tenants: Tenants, route: str, method: str, view: Any) -> None:
    client = tenants.rest(tenants.people["superuser"])
    known = view.serializer_class().fields
    hostile = [name for name in HOSTILE if name not in known or known[name].read_only]
    assert len(hostile) > 15
    url = _PARAMETER.sub(row_of(tenants.ours, route), route)
    model = view.queryset.model
    before, count = [columns(row) for row in model.objects.order_by("pk")], model.objects.count()
    answer = getattr(client, method)(url, dict.fromkeys(hostile, "1"), format="json")
    assert answer.status_code == 400
    named = {error["attr"] for error in answer.json()["errors"]}
    if view is TaskViewSet:  # a task's body is read up to its first mistake
        assert named < set(hostile)
        for name in hostile:
            assert getattr(client, method)(url, {name: "1"}, format="json").status_code == 400, name
    else:
        assert set(hostile) <= named
    assert ([columns(row) for row in model.objects.order_by("pk")], model.objects.count()) == (before, count)


def test_routes_that_take_lists_take_none(tenants: Tenants) -> None:
    client = tenants.rest(tenants.people["superuser"])
    for route, method, _ in WRITABLE:
        answer = getattr(client, method)(_PARAMETER.sub(row_of(tenants.ours, route), route), [{"id": 1}], format="json")
        assert answer.status_code == 400, route


def test_the_admins_form_of_a_user_hands_out_no_power(tenants: Tenants) -> None:
    administrator, viewer = tenants.people["administrator"], tenants.ours.people["viewer"]
    client = tenants.admin(administrator)
    power = {"is_superuser": "on", "is_staff": "on", "groups": [str(tenants.people["operator"].groups.get().pk)], "user_permissions": ["1"]}
    for user in (viewer, administrator):
        fields = {"username": user.username, "is_active": "on", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
        client.post(f"/admin/auth/user/{user.pk}/change/", {**fields, **power})
        user.refresh_from_db()
        assert not user.is_superuser
        assert not user.user_permissions.exists()
    assert viewer.groups.count() == 0
    assert [group.name for group in administrator.groups.all()] == ["administrator"]


def test_an_administrator_sets_no_password_of_somebody_who_may_more(tenants: Tenants) -> None:
    client = tenants.admin(tenants.people["administrator"])
    assert client.get(f"/admin/auth/user/{tenants.people['superuser'].pk}/password/").status_code == 403
    assert client.get(f"/admin/auth/user/{tenants.people['viewer'].pk}/password/").status_code == 200


def test_nor_does_a_role_in_a_team_or_being_switched_off_hide_what_somebody_may(tenants: Tenants) -> None:
    """Whoever sets a password, and switches a person on, can be that person."""
    helpdesk = User.objects.create_user("helpdesk", is_staff=True)
    helpdesk.user_permissions.set(Permission.objects.filter(codename__in=("view_user", "change_user")))
    client = tenants.admin(helpdesk)
    operator, manager, nobody = tenants.people["operator"], tenants.ours.people["manager"], User.objects.create_user("nobody")
    User.objects.filter(pk=operator.pk).update(is_active=False)
    status = {each.username: client.get(f"/admin/auth/user/{each.pk}/password/").status_code for each in (operator, manager, nobody)}
    assert status == {operator.username: 403, manager.username: 403, "nobody": 200}
