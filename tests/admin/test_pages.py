"""Every page of the admin: it opens, it shows no secret, and it opens only for those who may see it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from tests.admin.conftest import World

pytestmark = pytest.mark.usefixtures("standing_world")

PAGES = sorted(f"{model._meta.app_label}_{model._meta.model_name}" for model in admin.site._registry)


def test_everything_people_manage_is_registered() -> None:
    assert PAGES == [
        "access_apikey",
        "access_budget",
        "access_grant",
        "access_personaltoken",
        "access_team",
        "access_teammember",
        "auth_group",
        "auth_user",
        "gateway_config_configversion",
        "models_registry_exchangerate",
        "models_registry_llmmodel",
        "models_registry_prompttemplate",
        "models_registry_route",
        "monitoring_auditevent",
        "monitoring_budgetentry",
        "monitoring_requestlog",
        "monitoring_usagerecord",
        "providers_provider",
        "tasks_task",
        "tasks_tasktype",
        "telling_alert",
        "telling_alertchannel",
        "telling_alertrule",
        "telling_webhook",
        "telling_webhooksecret",
    ]


@pytest.mark.parametrize("page", PAGES)
def test_a_superuser_sees_every_page_and_no_secret(root: Client, world: World, page: str) -> None:
    Group.objects.create(name="auditors")
    model = next(model for model in admin.site._registry if f"{model._meta.app_label}_{model._meta.model_name}" == page)
    row = model._default_manager.first()
    assert row is not None, "the world has one of everything"
    urls = [reverse(f"admin:{page}_changelist"), reverse(f"admin:{page}_change", args=[row.pk])]
    read_only = page.startswith("monitoring_") or page in ("tasks_task", "gateway_config_configversion", "telling_webhook", "telling_alert")
    if not read_only:
        urls.append(reverse(f"admin:{page}_add"))
    for action in admin.site._registry[model]._get_base_actions_detail():
        if not action.action_name.endswith("sync_models"):
            urls.append(reverse(f"admin:{action.action_name}", args=[row.pk]))
    for url in urls:
        response = root.get(url)
        assert response.status_code == 200, url
        assert not [secret for secret in world.secrets if secret in response.content.decode()], url


@pytest.mark.parametrize("query", ["sk-planted", "vendor"])
def test_no_search_finds_or_shows_a_secret(root: Client, world: World, query: str) -> None:
    for page in PAGES:
        response = root.get(reverse(f"admin:{page}_changelist"), {"q": query})
        assert response.status_code == 200
        assert not [secret for secret in world.secrets if secret in response.content.decode()]


def test_the_sealed_secret_cannot_be_filtered_by(root: Client, world: World) -> None:
    url = reverse("admin:providers_provider_changelist")
    for lookup in ("keys__secret__startswith", "keys__secret", "keys__digest__gt"):
        assert root.get(url, {lookup: "x"}).status_code in (302, 400)


def test_strangers_are_sent_to_the_login(client: Client, world: World) -> None:
    for page in PAGES:
        response = client.get(reverse(f"admin:{page}_changelist"))
        assert response.status_code == 302
        assert response.headers["Location"].startswith("/admin/login/")


def test_staff_without_permissions_see_an_empty_house(staff: Callable[..., Client], world: World) -> None:
    client = staff()
    index = client.get("/admin/")
    assert index.status_code == 200
    assert "crawler" not in index.content.decode()
    for page in PAGES:
        assert client.get(reverse(f"admin:{page}_changelist")).status_code == 403


def test_who_may_only_look_cannot_act(staff: Callable[..., Client], world: World) -> None:
    client = staff(
        "providers.view_provider", "models_registry.view_llmmodel", "access.view_apikey", "access.view_team", "access.view_personaltoken"
    )
    provider, key = world.provider, world.key
    assert client.get(reverse("admin:providers_provider_change", args=[provider.pk])).status_code == 200
    assert client.get(reverse("admin:access_apikey_change", args=[key.pk])).status_code == 200
    verbs = ("test_connection", "sync_models", "rotate_key", "add_key", "disable", "enable")
    acts = [
        *(reverse(f"admin:providers_provider_{verb}", args=[provider.pk]) for verb in verbs),
        reverse("admin:models_registry_llmmodel_sync", args=[provider.pk]),
        reverse("admin:models_registry_llmmodel_set_price", args=[world.model.pk]),
        reverse("admin:access_apikey_revoke", args=[key.pk]),
        reverse("admin:providers_provider_change", args=[provider.pk]),
        reverse("admin:providers_provider_add"),
        reverse("admin:access_apikey_add"),
    ]
    for url in acts:
        assert client.post(url, {}).status_code == 403, url
    provider.refresh_from_db()
    key.refresh_from_db()
    assert provider.is_active
    assert key.revoked_at is None


def test_acts_need_a_csrf_token(root: Client, world: World) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = root.cookies
    assert strict.post(reverse("admin:providers_provider_disable", args=[world.provider.pk])).status_code == 403
    world.provider.refresh_from_db()
    assert world.provider.is_active


def test_looking_at_an_act_does_not_do_it(root: Client, world: World) -> None:
    for url in (
        reverse("admin:providers_provider_disable", args=[world.provider.pk]),
        reverse("admin:access_apikey_revoke", args=[world.key.pk]),
    ):
        assert root.get(url).status_code == 200
    world.provider.refresh_from_db()
    world.key.refresh_from_db()
    assert world.provider.is_active
    assert world.key.revoked_at is None


def test_the_configuration_version_is_on_every_page(root: Client, world: World) -> None:
    from gateway.config.models import ConfigVersion

    version = ConfigVersion.objects.get().version
    assert f"configuration {version}" in root.get(reverse("admin:access_team_changelist")).content.decode()
    assert root.post(reverse("admin:gateway_config_configversion_change", args=[1]), {"version": 99}).status_code == 403


def test_only_a_superuser_hands_out_power(staff: Callable[..., Client], root: Client) -> None:
    from django.contrib.auth.models import User

    client = staff("auth.view_user", "auth.change_user", "auth.add_user", "auth.change_group", "auth.view_group")
    myself = User.objects.get(username="staff")
    boss = User.objects.get(username="root")
    form = {"username": "staff", "is_superuser": "on", "is_active": "on", "is_staff": "on"}
    form |= {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00", "last_login_0": "", "last_login_1": ""}
    assert client.post(reverse("admin:auth_user_change", args=[myself.pk]), form).status_code == 302
    myself.refresh_from_db()
    assert not myself.is_superuser
    assert client.post(reverse("admin:auth_user_change", args=[boss.pk]), form).status_code == 403
    assert client.post(reverse("admin:auth_user_password_change", args=[boss.pk]), {}).status_code == 403
    group = Group.objects.create(name="auditors")
    assert client.post(reverse("admin:auth_group_change", args=[group.pk]), {"name": "x"}).status_code == 403
