"""The shipped roles: what docs/access.md says of them is so, and migrating makes them what they are."""

from __future__ import annotations

import re

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.db.models.signals import post_migrate

from access.roles import ADMINISTRATOR, AUDITOR, OPERATOR, ROLES, TEAM_PERMISSIONS, TEAM_ROLES, VIEWER, sync_groups
from tests.conftest import ROOT


def test_the_page_tells_the_roles_as_they_are() -> None:
    page = (ROOT / "docs/access.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| (.+) \| (\d+) \|$", page, re.MULTILINE)
    assert told == [(name, purpose, str(len(permissions))) for name, (purpose, permissions) in ROLES.items()]


def test_only_the_administrator_gives_anything_and_the_auditor_changes_nothing() -> None:
    def writes(permissions: frozenset[str]) -> set[str]:
        reads = ("view_", "export_")
        return {one for one in permissions if not one.partition(".")[2].startswith(reads) and not one.endswith("_personaltoken")}

    for name in (AUDITOR, VIEWER):
        assert writes(ROLES[name][1]) == set()
    for name in (OPERATOR, AUDITOR, VIEWER):
        assert not {one for one in writes(ROLES[name][1]) if one.startswith(("access.", "auth."))}
    for name in ROLES:
        assert ROLES[name][1] - _views_of_people() <= ROLES[ADMINISTRATOR][1]
    assert not {one for one in writes(ROLES[ADMINISTRATOR][1]) if "group" in one or "permission" in one or one == "auth.delete_user"}


def _views_of_people() -> set[str]:
    return {"auth.view_user", "auth.view_group", "monitoring.export_auditevent"}


def test_roles_in_a_team_grow() -> None:
    viewer, member, manager = (TEAM_ROLES[role][1] for role in ("viewer", "member", "manager"))
    assert viewer < member < manager == TEAM_PERMISSIONS


@pytest.mark.django_db
def test_every_permission_that_a_role_names_exists() -> None:
    there = {f"{row.content_type.app_label}.{row.codename}" for row in Permission.objects.select_related("content_type")}
    named = TEAM_PERMISSIONS.union(*(permissions for _, permissions in ROLES.values()))
    assert named - there == set()


@pytest.mark.django_db
def test_migrating_makes_them_what_they_are_and_leaves_others_alone() -> None:
    Group.objects.get_or_create(name=VIEWER)
    own = Group.objects.create(name="night shift")
    own.permissions.add(Permission.objects.get(codename="view_team"))
    Group.objects.get(name=VIEWER).permissions.set(Permission.objects.all())
    apps.get_app_config("access").ready()  # tests/conftest.py has taken its receiver away
    try:
        call_command("migrate", verbosity=0)
    finally:
        assert any(post_migrate.disconnect(sender=app, dispatch_uid="access.roles") for app in apps.get_app_configs())
    for name, (_, permissions) in ROLES.items():
        rows = Group.objects.get(name=name).permissions.select_related("content_type")
        assert {f"{row.content_type.app_label}.{row.codename}" for row in rows} == permissions, name
    assert own.permissions.count() == 1


@pytest.mark.django_db
def test_doing_it_twice_changes_nothing() -> None:
    sync_groups()
    before = set(Group.permissions.through.objects.values_list("group_id", "permission_id"))
    sync_groups()
    assert set(Group.permissions.through.objects.values_list("group_id", "permission_id")) == before
