"""Members, grants and a manager's own keys in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from access.models import ApiKey, Grant, Team, TeamMember
from models_registry.models import LLMModel
from tests.admin.conftest import World

pytestmark = pytest.mark.usefixtures("standing_world")

MEMBERS, ADD_MEMBER = reverse("admin:access_teammember_changelist"), reverse("admin:access_teammember_add")
KEYS, ADD_KEY = reverse("admin:access_apikey_changelist"), reverse("admin:access_apikey_add")
ADD_GRANT = reverse("admin:access_grant_add")


@pytest.fixture
def manager(world: World) -> Client:
    """The world's owner manages its team, and has no right over anything else."""
    client = Client()
    client.force_login(User.objects.get(username="owner"))
    return client


@pytest.fixture
def other(world: World) -> Team:
    return Team.objects.create(name="other team")


def errors(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    return dict(response.context["adminform"].form.errors)


def test_a_manager_adds_a_member_by_name(manager: Client, world: World, other: Team) -> None:
    User.objects.create_user("bob")
    page = manager.get(ADD_MEMBER).content.decode()
    assert "search" in page
    assert "other team" not in page
    assert manager.post(ADD_MEMBER, {"team": world.team.pk, "user": "bob", "role": "viewer"}).status_code == 302
    assert TeamMember.objects.get(user__username="bob").role == "viewer"
    twice = errors(manager.post(ADD_MEMBER, {"team": world.team.pk, "user": "bob", "role": "viewer"}))
    assert twice == {"__all__": ["This person is a member of the team already."]}
    nobody = errors(manager.post(ADD_MEMBER, {"team": world.team.pk, "user": "nobody", "role": "viewer"}))
    assert "There is no user of this name" in nobody["user"][0]
    assert set(errors(manager.post(ADD_MEMBER, {"team": other.pk, "user": "bob", "role": "manager"}))) == {"team"}


def test_a_manager_changes_a_role_and_nothing_else(manager: Client, world: World) -> None:
    member = TeamMember.objects.create(team=world.team, user=User.objects.create_user("bob"), role="viewer")
    url = reverse("admin:access_teammember_change", args=[member.pk])
    assert manager.post(url, {"role": "member", "user": "owner"}).status_code == 302
    member.refresh_from_db()
    assert (member.role, member.user.username) == ("member", "bob")


def test_a_manager_makes_a_key_within_the_team(manager: Client, world: World, other: Team) -> None:
    LLMModel.objects.create(provider=world.provider, model_id="hidden", alias="hidden-model", visibility="granted")
    page = manager.get(ADD_KEY).content.decode()
    assert "gpt-4o" in page
    assert "hidden-model" not in page
    assert "other team" not in page
    Team.objects.filter(pk=world.team.pk).update(scopes=["chat"])
    body = {"name": "mine", "team": world.team.pk, "scopes": ["chat"], "source_networks": "10.1.0.0/16\r\n2001:db8::/32"}
    assert set(errors(manager.post(ADD_KEY, {**body, "scopes": ["chat", "usage"]}))) == {"scopes"}
    assert set(errors(manager.post(ADD_KEY, {**body, "allowed_models": ["hidden-model"]}))) == {"allowed_models"}
    assert set(errors(manager.post(ADD_KEY, {**body, "team": other.pk}))) == {"team"}
    assert "is no network" in errors(manager.post(ADD_KEY, {**body, "source_networks": "here"}))["source_networks"][0]
    made = manager.post(ADD_KEY, body)
    assert made.status_code == 200
    key = ApiKey.objects.get(name="mine")
    assert made.context["credential"].startswith(key.prefix)
    assert key.source_networks == ["10.1.0.0/16", "2001:db8::/32"]
    assert "2001:db8::/32" in manager.get(reverse("admin:access_apikey_change", args=[key.pk])).content.decode()


def test_a_key_is_changed_within_the_team_too(manager: Client, world: World) -> None:
    Team.objects.filter(pk=world.team.pk).update(scopes=["chat", "models"])
    url = reverse("admin:access_apikey_change", args=[world.key.pk])
    assert set(errors(manager.post(url, {"name": "crawler", "scopes": ["chat", "usage"]}))) == {"scopes"}
    assert manager.post(url, {"name": "renamed", "scopes": ["chat"]}).status_code == 302
    world.key.refresh_from_db()
    assert (world.key.name, world.key.scopes) == ("renamed", ["chat"])


def test_a_manager_sees_neither_the_menu_nor_the_pages_of_what_is_not_the_teams(manager: Client, world: World) -> None:
    page = manager.get(reverse("admin:index")).content.decode()
    assert "API keys" in page
    for title in ("Providers", "Costs", "Exchange rates", "Users", "Groups", "Grants"):
        assert f">{title}<" not in page.replace("\n", "").replace("  ", ""), title
    for name in ("providers_provider", "auth_user", "access_grant", "models_registry_exchangerate"):
        assert manager.get(reverse(f"admin:{name}_changelist")).status_code == 403


def test_a_grant_names_one_holder_and_one_thing(root: Client, world: World) -> None:
    assert set(errors(root.post(ADD_GRANT, {}))) == {"team", "provider"}
    both = errors(root.post(ADD_GRANT, {"team": world.team.pk, "user": "owner", "provider": world.provider.pk}))
    assert both == {"user": ["Choose one of team and user, not team and user."]}
    assert root.post(ADD_GRANT, {"user": "owner", "route": world.route.pk}).status_code == 302
    grant = Grant.objects.get(route=world.route)
    assert (grant.user.username, grant.created_by.username) == ("owner", "root")  # type: ignore[union-attr]
    again = errors(root.post(ADD_GRANT, {"user": "owner", "route": world.route.pk}))
    assert again == {"__all__": ["This is granted already."]}


def test_lists_cost_the_same_however_long(root: Client, world: World) -> None:
    counts = []
    for number in range(2):
        for each in range(5):
            user = User.objects.create_user(f"u{number}-{each}")
            TeamMember.objects.create(team=world.team, user=user, role="viewer")
            Grant.objects.create(user=user, model=world.model)
        with CaptureQueriesContext(connection) as queries:
            assert root.get(MEMBERS).status_code == 200
            assert root.get(reverse("admin:access_grant_changelist")).status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]
